"""What the page shows of a sweep beside its tables: maps of vision heads, estimates as points."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np
from jaxtyping import Float

from headpatch.core.question import Context
from headpatch.kinds import kind_label
from headpatch.present.canvas import GREY, signed
from headpatch.present.charts import (
    SYMBOLS,
    layer_axis,
    lines,
    rooted_heat,
    rooted_ticks,
    unread,
)
from headpatch.present.effects_view import KINDS
from headpatch.present.parts import Grid
from headpatch.present.root_scale import root
from headpatch.present.section import Figure, numbers, said, words
from headpatch.questions.sweep.figure import ways
from headpatch.stats.rankings import descending

LISTED = 10
"""Heads in the table: those with the largest effects."""

Saved: TypeAlias = Mapping[str, Any]
Map: TypeAlias = Float[np.ndarray, "layers heads"]
Sides: TypeAlias = tuple[Float[np.ndarray, "..."], Float[np.ndarray, "..."]]
"""Exact effects, and what is estimated of them, in logits."""


def where(saved: Saved) -> str:
    """Say what was changed, on how many pairs, and at which positions."""
    count, vision = len(saved["heads"]), saved.get("tower") == "vision"
    what = "vision heads" if vision else "heads"
    if not _every(saved):
        what = f"sets of {what}"
    pairs = len(saved.get("pair_names", ()))
    over = f"means over {pairs:,} pairs" if pairs else "this pair"
    tokens = " tokens of the tower" if vision else ""
    return f"{count:,} {what}, {over}; z changed at: {saved['positions']}{tokens}."


def counted(saved: Saved, context: Context) -> str:
    """Say how many effects are above the noise floor, and what unread vision layers do."""
    floor, pairs = float(saved["noise_floor"]), len(saved.get("pair_names", ()))
    effects = [np.asarray(one, np.float64) for one in saved["effect"].values()]
    above = sum(int((np.abs(one) > floor).sum()) for one in effects)
    text = (
        f"{above:,} of {sum(one.size for one in effects):,} effects rise above the noise floor "
        f"({_logits(floor)} logits). "
    )
    feature = saved.get("feature_layer")
    if _every(saved) and feature is not None and feature + 1 < len(effects[0]):
        past = max(float(np.nanmax(np.abs(one[feature + 1 :]), initial=0.0)) for one in effects)
        text += (
            f"The language model reads layer {feature}: later layers (past the dashed line) cannot "
            f"reach the answer; the largest effect there is {_logits(past)} logits. "
        )
    return text + ("These are means without a test." if pairs else context.caveat)


def largest(saved: Saved) -> Grid:
    """List the heads with the largest effects of any kind and direction."""
    maps = _maps(saved, "normalized")
    size = np.abs(np.stack([np.nan_to_num(one) for one in maps.values()])).max(0)
    tower = "v" if saved.get("tower") == "vision" else ""
    rows = tuple(
        (
            _name(int(flat), size.shape[1], tower),
            *(said(one.flat[flat], 4) for one in maps.values()),
        )
        for flat in descending(size)[:LISTED]
    )
    headings = ("head", *(way.replace("_", ", ") for way in maps))
    return Grid("The largest effects of any kind and direction (shares of the difference)",
                headings, rows, (False, *[True] * len(maps)), place="page")  # fmt: skip


def tower(saved: Saved) -> dict[str, Figure]:
    """Draw a map of layers × vision heads a kind and direction, and whole layers as lines."""
    maps, effects = _maps(saved, "normalized"), _maps(saved, "effect")
    layers = len(next(iter(maps.values())))
    feature = int(saved.get("feature_layer", layers - 1))
    most = float(np.nanmax(np.abs(list(maps.values())), initial=0.0)) or 1.0
    figures = {
        f"sweep-{way}": _map(way, maps[way], effects[way], most, feature) for way in _ordered(maps)
    }
    if whole := saved.get("layer_normalized"):
        figures["sweep-layers"] = _layers(saved, whole, feature)
    return figures


def estimates(saved: Saved, swept: Saved) -> dict[str, Figure]:
    """Draw estimates against exact effects, a figure a kind and direction.

    Parameters
    ----------
    saved, swept
        What ``approx.pt`` and ``sweep.pt`` hold.
    """
    sides, names = _sides(saved), _names(swept)
    return {f"approx-{way}": _points(way, sides[way], names) for way in _ordered(sides)}


def farthest(saved: Saved, swept: Saved) -> str:
    """Name the head whose estimate lies farthest from its exact effect, over all ways."""
    sides, names = _sides(saved), _names(swept)
    gaps = {way: np.nan_to_num(np.abs(b - a)).ravel() for way, (a, b) in sides.items()}
    way = max(gaps, key=lambda way: gaps[way].max(initial=0.0))
    if not gaps[way].any():
        return ""
    flat = int(gaps[way].argmax())
    exact, approx = (signed(float(side.flat[flat]), 3) for side in sides[way])
    return (
        f"Farthest apart: {names[flat]} ({way.replace('_', ', ')}), exact {exact} logits, "
        f"estimated {approx}."
    )


def _every(saved: Saved) -> bool:
    return np.ndim(next(iter(saved["normalized"].values()))) == 2


def _maps(saved: Saved, key: str) -> dict[str, Map]:
    return {way: np.asarray(one, np.float64) for way, one in saved[key].items()}


def _ordered(by_way: Mapping[str, Any]) -> Iterator[str]:
    kinds, directions = ways(by_way)
    return filter(
        by_way.__contains__,
        [f"{kind}_{direction}" for direction in directions for kind in kinds],
    )


def _sides(saved: Saved) -> dict[str, Sides]:
    sides = {}
    for way in saved["approx"]:
        exact, approx = (np.asarray(saved[side][way], np.float64) for side in ("effect", "approx"))
        if exact.shape != approx.shape:
            raise ValueError(
                f"approx.pt: its estimates {approx.shape} are not of the effects {exact.shape}"
            )
        sides[way] = exact, approx
    return sides


def _names(swept: Saved) -> list[str]:
    """Name every head, or every set of a list."""
    return [str(one) for one in swept["heads"]]


def _name(flat: int, heads: int, tower: str) -> str:
    return f"{tower}{flat // heads}.{flat % heads}"


def _logits(value: float) -> str:
    """Write a size that is near 0."""
    return f"{value:.1e}" if value else "0"


def _map(way: str, values: Map, effect: Map, most: float, feature: int) -> Figure:
    """One map of layers × heads, the layers that are read above the dashed line."""
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
        f"Map: effect of each vision head, {title}. Largest: {_name(flat, heads, 'v')}, "
        f"{said(float(values.flat[flat]), 4)}.",
        title=title,
    )  # fmt: skip


def _layers(saved: Saved, whole: Mapping[str, Any], feature: int) -> Figure:
    """All heads of a layer together."""
    traces = []
    for way, values in whole.items():
        kind, _, direction = way.rpartition("_")
        color, marker = KINDS[kind]
        dash = "solid" if direction == "noising" else "dash"
        y = np.asarray(values, np.float64)
        name = f"{kind_label(kind, saved)}, {direction}"
        traces.append(lines(y, name, color, SYMBOLS[marker], dash=dash))
    title = "All heads of a layer together"
    return Figure(
        traces,
        {
            "xaxis": layer_axis("vision layer", len(y)),
            "yaxis": {"title": {"text": "share of the difference"}, "zeroline": True},
            "shapes": unread(feature, len(y)),
        },
        300,
        f"Lines: {title.lower()}, by vision layer.",
        title=title,
    )


def _points(way: str, sides: Sides, names: Sequence[str]) -> Figure:
    kind, _, direction = way.rpartition("_")
    color, marker = KINDS[kind]
    exact, approx = (side.ravel() for side in sides)
    most = float(np.nanmax(np.abs([exact, approx]), initial=0.0)) or 1.0
    ends = [-float(root(most)), float(root(most))]
    axis = {"range": [1.15 * end for end in ends], **rooted_ticks(most), "zeroline": True}
    texts = [
        words(f"{name}: exact {signed(a, 4)}, estimated {signed(b, 4)}")
        for name, a, b in zip(names, exact, approx, strict=True)
    ]
    title = f"{kind}, {direction}"
    return Figure(
        [
            {"type": "scatter", "mode": "lines", "x": numbers(ends), "y": numbers(ends),
             "line": {"color": GREY, "width": 1, "dash": "dash"}, "hoverinfo": "skip",
             "showlegend": False},
            {"type": "scatter", "mode": "markers", "x": numbers(root(exact)),
             "y": numbers(root(approx)), "text": texts, "showlegend": False,
             "hovertemplate": "%{text}<extra></extra>",
             "marker": {"color": color, "symbol": SYMBOLS[marker], "size": 5, "opacity": 0.6}},
        ],
        {
            "xaxis": {"title": {"text": "exact effect (logits)"}, **axis},
            "yaxis": {"title": {"text": "estimate (logits)"}, **axis},
        },
        300,
        f"Points: estimated against exact effect of each head or set, {title}; the table says how "
        "they agree.",
        title=title,
    )  # fmt: skip
