"""What changing heads of the vision encoder does to the answer, one by one and layer by layer."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from jaxtyping import Float

from headpatch.core.output.folder import Results
from headpatch.core.output.part import load, reading
from headpatch.kinds import kind_label
from headpatch.present.canvas import VERMILLION, signed
from headpatch.present.charts import (
    SYMBOLS,
    band,
    layer_axis,
    lines,
    rooted_heat,
    unread,
)
from headpatch.present.section import Figure, Section, said
from headpatch.report.effects import KINDS
from headpatch.report.sweeps import ways
from headpatch.stats.rankings import descending

LISTED = 10
"""Heads in the table: those with the largest effects."""
_NEEDED = {"noise_floor": 0, "ld_with": 0, "ld_without": 0}
_JUDGED = dict.fromkeys(
    ["layer", "necessity", "necessity_low", "necessity_high", "pairs"], "number"
)

Map = Float[np.ndarray, "layers heads"]


def section(results: Results) -> Section | None:
    """Make the tower's effects; None unless its heads or layers were changed."""
    figures: dict[str, Figure] = {}
    loaded = [(part, load(part, "sweep.pt", _NEEDED)) for part in results.having("sweep.pt")]
    runs = []
    for part, saved in loaded:
        if saved.get("tower") == "vision":
            with reading(part.folder / "sweep.pt"):
                if np.ndim(next(iter(saved["normalized"].values()))) == 2:
                    runs.append(_run(saved, figures))
    judged = _judged(results, figures)
    if not runs and judged is None:
        return None
    values = {"runs": runs, "judged": judged}
    return Section("tower", "What changing vision heads does", values, figures)


def _run(saved: Mapping[str, Any], figures: dict[str, Figure]) -> dict[str, Any]:
    maps = {way: np.asarray(one, np.float64) for way, one in saved["normalized"].items()}
    effects = {way: np.asarray(saved["effect"][way], np.float64) for way in maps}
    layers = len(next(iter(maps.values())))
    feature = int(saved.get("feature_layer", layers - 1))
    most = float(np.nanmax(np.abs(list(maps.values())), initial=0.0)) or 1.0
    kinds, directions = ways(maps)
    drawn = []
    for way in (f"{kind}_{direction}" for direction in directions for kind in kinds):
        if way in maps:
            drawn.append(f"tower-{len(figures)}")
            figures[drawn[-1]] = _map(way, maps[way], effects[way], most, feature)
    whole = saved.get("layer_normalized", {})
    by_layer = ""
    if whole:
        by_layer = f"tower-{len(figures)}"
        figures[by_layer] = _layers(saved, whole, feature)
    floor = float(saved["noise_floor"])
    above = sum(int((np.abs(one) > floor).sum()) for one in effects.values())
    past = [np.abs(one[feature + 1 :]) for one in effects.values()]
    pairs = len(saved.get("pair_names", ()))
    return {
        "where": f"{f'mean over {pairs:,} pairs' if pairs else 'this pair'}; z changed at: "
        f"{saved['positions']} tokens of the tower",
        "many": pairs > 0,
        "above": above,
        "effects": sum(one.size for one in effects.values()),
        "floor": _logits(floor),
        "feature": feature,
        "unread": layers - 1 - feature,
        "past": _logits(max(float(np.nanmax(one, initial=0.0)) for one in past)),
        "rows": _largest(maps),
        "ways": [way.replace("_", ", ") for way in maps],
        "maps": drawn,
        "across": len(kinds),
        "layers": by_layer,
    }


def _logits(value: float) -> str:
    """Write a size that is near 0."""
    return f"{value:.1e}" if value else "0"


def _largest(maps: Mapping[str, Map]) -> list[dict[str, Any]]:
    """Return the heads with the largest effects of any kind and direction."""
    stack = np.stack([np.nan_to_num(one) for one in maps.values()])
    size = np.abs(stack).max(0)
    return [
        {
            "head": "v{}.{}".format(*divmod(int(flat), size.shape[1])),
            "values": [said(float(one.flat[flat]), 4) for one in maps.values()],
        }
        for flat in descending(size)[:LISTED]
    ]


def _map(way: str, values: Map, effect: Map, most: float, feature: int) -> Figure:
    """One map of layers × heads, the layers that are read above the shade."""
    layers, heads = values.shape
    texts = [
        [
            f"head v{layer}.{head}: {said(values[layer, head], 4)} "
            f"({said(effect[layer, head], 4)} logits)"
            for head in range(heads)
        ]
        for layer in range(layers)
    ]
    flat = int(np.nan_to_num(np.abs(values)).argmax())
    title = way.replace("_", ", ")
    return Figure(
        [rooted_heat(values, texts, most)],
        {
            "xaxis": {"title": {"text": "head"}, "dtick": 1 if heads <= 8 else 4, "tick0": 0,
                      "showgrid": False, "zeroline": False},
            "yaxis": {"title": {"text": "vision layer"}, "autorange": "reversed", "dtick": 4,
                      "tick0": 0, "showgrid": False, "zeroline": False},
            "shapes": [
                {"type": "line", "xref": "paper", "x0": 0, "x1": 1, "yref": "y",
                 "y0": feature + 0.5, "y1": feature + 0.5,
                 "line": {"color": "#8A8A8A", "width": 1.5, "dash": "dash"}}
            ] * (feature < layers - 1),
        },
        360,
        f"Map: effect of each vision head, {title}. Largest: v{flat // heads}.{flat % heads}, "
        f"{said(float(values.flat[flat]), 4)}.",
        title=title,
    )  # fmt: skip


def _layers(saved: Mapping[str, Any], whole: Mapping[str, Any], feature: int) -> Figure:
    """All heads of a layer together."""
    traces = []
    for way, values in whole.items():
        kind, _, direction = way.rpartition("_")
        color, marker = KINDS[kind]
        dash = "solid" if direction == "noising" else "dash"
        y = np.asarray(values, np.float64)
        name = f"{kind_label(kind, saved)}, {direction}"
        traces.append(lines(y, name, color, SYMBOLS[marker], dash=dash))
    return _over_layers(traces, len(y), feature, "All heads of a layer together")


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
