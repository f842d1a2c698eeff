"""The vision encoder, layer by layer: how much of its attention goes to the region."""

from typing import Any

import numpy as np

from headpatch.core.output.folder import Results
from headpatch.core.output.part import reading
from headpatch.present.canvas import DIFFERENCE, WITH, WITHOUT, signed
from headpatch.present.charts import layer_axis, lines, unread
from headpatch.present.section import Figure, Section, numbers
from headpatch.report.vision import queries


def section(results: Results) -> Section | None:
    """Make the vision layers; None where the vision encoder was not read."""
    spatial = results.tensors("spatial_vision_analysis.pt", {})
    part = results.first("spatial_vision_analysis.pt")
    if spatial is None or part is None:
        return None
    with reading(part.folder / "spatial_vision_analysis.pt"):
        found = queries(spatial)
        if not found:
            return None
        feature = int(spatial["feature_layer"])
        figures = {f"{prefix.replace('_', '-')}": _figure(spatial, prefix, name, feature)
                   for prefix, name in found.items()}  # fmt: skip
        prefix = "vision_patch" if "vision_patch" in found else next(iter(found))
        diff = np.asarray(spatial[f"{prefix}_diff"], np.float64)
    first = np.argsort(-np.abs(diff), kind="stable")[:3]
    summary = "Largest differences: " + ", ".join(
        f"layer {layer} ({signed(float(diff[layer]), 4)})" for layer in first
    )
    unread = len(diff) - 1 - feature
    return Section(
        "vision",
        "In the vision encoder",
        {"summary": summary, "feature": feature, "unread": unread, "names": found},
        figures,
    )


def _figure(spatial: dict[str, Any], prefix: str, name: str, feature: int) -> Figure:
    present, absent, diff = (
        np.asarray(spatial[f"{prefix}_{run}"], np.float64) for run in ("with", "without", "diff")
    )
    layers = len(diff)
    largest = int(np.nan_to_num(np.abs(diff)).argmax())
    bars = {
        "type": "bar",
        "x": list(range(layers)),
        "y": numbers(diff),
        "name": "difference",
        "marker": {"color": DIFFERENCE},
        "xaxis": "x",
        "yaxis": "y2",
    }
    return Figure(
        [
            lines(present, "with the object", WITH),
            lines(absent, "without", WITHOUT, "diamond-open", dash="dash"),
            bars,
        ],
        {
            "xaxis": {**layer_axis("vision layer", layers), "anchor": "y2"},
            "yaxis": {"domain": [0.46, 1], "title": {"text": "region's share"},
                      "rangemode": "tozero"},
            "yaxis2": {"domain": [0, 0.36], "title": {"text": "difference"}, "zeroline": True},
            "shapes": unread(feature, layers),
        },
        360,
        f"{name}: the region's share of patch attention by vision layer; largest difference "
        f"{signed(float(diff[largest]), 4)} at layer {largest}.",
        title=name,
    )  # fmt: skip
