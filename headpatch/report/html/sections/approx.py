"""Attribution patching beside the exact effects that it estimates: every head a point."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from jaxtyping import Float

from headpatch.core.output.folder import Results
from headpatch.core.output.part import Part, load, reading
from headpatch.present.canvas import GREY, signed
from headpatch.present.charts import SYMBOLS, rooted_ticks
from headpatch.present.root_scale import root
from headpatch.present.section import Figure, Section, numbers, said, words
from headpatch.report.effects import KINDS
from headpatch.report.sweeps import ways

Sides = tuple[Float[np.ndarray, "..."], Float[np.ndarray, "..."]]
"""Exact effects, and what is estimated of them, in logits."""


def section(results: Results) -> Section | None:
    """Make the comparison; None unless a sweep was estimated too."""
    figures: dict[str, Figure] = {}
    runs = []
    for part in results.having("approx.pt"):
        saved = load(part, "approx.pt", {"noise_floor": 0})
        with reading(part.folder / "approx.pt"):
            runs.append(_run(part, saved, figures))
    return Section("approx", "Estimated by gradients", {"runs": runs}, figures) if runs else None


def _run(part: Part, saved: Mapping[str, Any], figures: dict[str, Figure]) -> dict[str, Any]:
    sides = {way: _sides(saved, way) for way in saved["approx"]}
    names = _names(part, saved, next(iter(sides.values()))[0].shape)
    kinds, directions = ways(sides)
    ordered = [f"{kind}_{direction}" for direction in directions for kind in kinds]
    drawn = {}
    for way in filter(sides.__contains__, ordered):
        key = f"approx-{len(figures)}"
        figures[key] = drawn[key] = _figure(way, sides[way], names)
    pairs = int(saved.get("pairs", 0))
    agreement = saved.get("agreement", {})
    return {
        "where": _where(saved, names),
        "pairs": pairs,
        "level": f"{float(saved['level']):.0%}",
        "k": max((int(one["k"]) for one in agreement.values()), default=0),
        "rows": [_row(way, agreement[way]) for way in ordered if way in agreement],
        "farthest": _farthest(sides, names),
        "figures": list(drawn),
        "across": len(kinds),
    }


def _sides(saved: Mapping[str, Any], way: str) -> Sides:
    exact, approx = (np.asarray(saved[side][way], np.float64) for side in ("effect", "approx"))
    if exact.shape != approx.shape:
        raise ValueError(f"its estimates {approx.shape} are not of the effects {exact.shape}")
    return exact, approx


def _names(part: Part, saved: Mapping[str, Any], shape: tuple[int, ...]) -> list[str]:
    """Name every head, or every set of a list."""
    if len(shape) == 2:
        tower = "v" if saved["tower"] == "vision" else ""
        return [f"{tower}{layer}.{head}" for layer, head in np.ndindex(*shape)]
    if part.has("sweep.pt"):
        listed = [str(one) for one in load(part, "sweep.pt", {})["heads"]]
        if len(listed) == shape[0]:
            return listed
    return [f"set {index}" for index in range(shape[0])]


def _where(saved: Mapping[str, Any], names: list[str]) -> str:
    tower = saved["tower"] == "vision"
    what = "vision heads" if tower else "heads"
    if np.ndim(next(iter(saved["approx"].values()))) == 1:
        what = "sets of heads"
    pairs = int(saved.get("pairs", 0))
    over = f"means over {pairs:,} pairs" if pairs else "this pair"
    tokens = " tokens of the tower" if tower else ""
    return f"{len(names):,} {what}, {over}; z changed at: {saved['positions']}{tokens}"


def _figure(way: str, sides: Sides, names: list[str]) -> Figure:
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


def _row(way: str, one: Mapping[str, Any]) -> dict[str, str]:
    kind, _, direction = way.rpartition("_")
    return {
        "kind": kind,
        "direction": direction,
        "pearson": _correlation(one, "pearson"),
        "of_means": _correlation(one, "of_means_pearson") if "of_means_pearson" in one else "",
        "spearman": said(one["spearman"], 2),
        "recall": f"{one['top_recall']:.2f}",
        "chance": f"{one['top_recall_chance']:.2f}",
    }


def _correlation(one: Mapping[str, Any], name: str) -> str:
    value, low, high = (said(one[f"{name}{end}"], 2) for end in ("", "_low", "_high"))
    return value if value == "undefined" else f"{value} [{low}, {high}]"


def _farthest(sides: Mapping[str, Sides], names: list[str]) -> dict[str, str] | None:
    """The head whose estimate lies farthest from its exact effect, over all ways."""
    gaps = {way: np.nan_to_num(np.abs(b - a)).ravel() for way, (a, b) in sides.items()}
    way = max(gaps, key=lambda way: gaps[way].max(initial=0.0))
    if not gaps[way].any():
        return None
    flat = int(gaps[way].argmax())
    exact, approx = (float(side.flat[flat]) for side in sides[way])
    kind, _, direction = way.rpartition("_")
    return {
        "name": names[flat],
        "way": f"{kind}, {direction}",
        "exact": signed(exact, 3),
        "approx": signed(approx, 3),
    }
