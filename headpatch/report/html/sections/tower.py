"""What changing whole layers of the vision encoder does to the answer, as a verdict found."""

from typing import Any

import numpy as np

from headpatch.core.output.folder import Results
from headpatch.core.output.part import load, reading
from headpatch.present.canvas import VERMILLION, signed
from headpatch.present.charts import (
    band,
    layer_axis,
    lines,
    unread,
)
from headpatch.present.section import Figure, Section

_JUDGED = dict.fromkeys(
    ["layer", "necessity", "necessity_low", "necessity_high", "pairs"], "number"
)


def section(results: Results) -> Section | None:
    """Make the layers' effects; None without a verdict of them."""
    figures: dict[str, Figure] = {}
    judged = _judged(results, figures)
    if judged is None:
        return None
    return Section("tower", "What changing vision heads does", {"judged": judged}, figures)


def _over_layers(traces: list[dict[str, Any]], layers: int, feature: int, title: str) -> Figure:
    return Figure(
        traces,
        {
            "xaxis": layer_axis("vision layer", layers),
            "yaxis": {"title": {"text": "share of the difference"}, "zeroline": True},
            "shapes": unread(feature, layers),
        },
        300,
        f"Lines: {title.lower()}, by vision layer.",
        title=title,
    )


def _judged(results: Results, figures: dict[str, Figure]) -> dict[str, str] | None:
    """What a verdict found of whole layers, over many pairs."""
    table, part = results.table("vision.csv", _JUDGED), results.first("vision.csv")
    if table is None or part is None or table.empty:
        return None
    with reading(part.folder / "vision.csv"):
        layer = table["layer"].to_numpy().astype(int)
        mean, low, high = (table[f"necessity{end}"].to_numpy() for end in ("", "_low", "_high"))
        pairs = int(table["pairs"].iloc[0])
    traces = [
        band(layer, low, high, VERMILLION, "interval over pairs"),
        lines(mean, "resample, noising", VERMILLION, x=layer),
    ]
    title = f"All heads of a layer together, mean over {pairs:,} pairs"
    layers = int(layer.max()) + 1
    figures["tower-judged"] = _over_layers(traces, layers, _feature(results, layers - 1), title)
    first = int(np.nan_to_num(np.abs(mean)).argmax())
    return {
        "pairs": f"{pairs:,}",
        "layer": str(layer[first]),
        "value": signed(float(mean[first]), 3),
        "interval": f"[{signed(float(low[first]), 3)}, {signed(float(high[first]), 3)}]",
    }


def _feature(results: Results, last: int) -> int:
    """The vision layer that the language model reads, where a run says so; else the last one."""
    for name in ("spatial_vision_analysis.pt", "sweep.pt"):
        for part in results.having(name):
            saved = load(part, name, {})
            if "feature_layer" in saved:
                return int(saved["feature_layer"])
    return last
