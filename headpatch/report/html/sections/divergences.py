"""How far apart the two runs' attention lies: KL, JS divergence and JS distance."""

from typing import Any

import numpy as np

from headpatch.core.output.folder import Results
from headpatch.core.output.part import reading
from headpatch.present.canvas import BLUE, GREEN, VERMILLION
from headpatch.present.charts import layer_axis, lines
from headpatch.present.section import Figure, Section

_MEASURES = {
    "kl": ("KL (nats)", VERMILLION, "circle"),
    "js": ("JS divergence (nats)", BLUE, "square"),
    "js_distance": ("JS distance", GREEN, "diamond"),
}
_TOWERS = {
    "lm": ("Language model, mean over each layer's heads", "language-model layer"),
    "vision_patch": ("Vision encoder, mean over patch queries", "vision layer"),
    "vision_cls": ("Vision encoder, class-token query", "vision layer"),
}


def section(results: Results) -> Section | None:
    """Make the divergences; None unless heads were ranked on one pair."""
    spatial = results.tensors("spatial_vision_analysis.pt", {})
    part = results.first("spatial_vision_analysis.pt")
    if spatial is None or part is None:
        return None
    with reading(part.folder / "spatial_vision_analysis.pt"):
        overall = {name: float(spatial["divergence_overall"][name]) for name in _MEASURES}
        figures = {
            f"divergence-{tower.replace('_', '-')}": _figure(found, title, axis)
            for tower, (title, axis) in _TOWERS.items()
            if (found := spatial.get(f"divergence_{tower}")) is not None
        }
    rows = [(label, f"{overall[name]:.4f}") for name, (label, _, _) in _MEASURES.items()]
    return Section("divergences", "How different the attention is", {"overall": rows}, figures)


def _figure(found: dict[str, Any], title: str, axis: str) -> Figure:
    values = {name: np.asarray(found[name], np.float64) for name in _MEASURES}
    layers = len(values["js"])
    largest = int(np.nan_to_num(values["js"]).argmax())
    return Figure(
        [
            lines(values[name], label, color, symbol)
            for name, (label, color, symbol) in _MEASURES.items()
        ],
        {
            "xaxis": layer_axis(axis, layers),
            "yaxis": {"title": {"text": "with against without"}, "rangemode": "tozero"},
        },
        280,
        f"{title}: divergence by layer; JS is largest at layer {largest}, "
        f"{values['js'][largest]:.4f} nats.",
        title=title,
    )
