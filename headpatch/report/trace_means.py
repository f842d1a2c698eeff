"""The heads behind each token of the answers of many pairs: a figure over the tokens' slots."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from jaxtyping import Bool, Float

from headpatch.kinds import KINDS, Line
from headpatch.present.canvas import DIFFERENCE, Target, array, drawing, frame
from headpatch.report.traces import (
    LOOKS,
    Values,
    answers,
    draw_maps,
    labels,
    largest,
    lead_effects,
    map_height,
    mark_tokens,
    part,
    way_name,
)

if TYPE_CHECKING:
    import matplotlib.axes

SLOTS: Final = 40
"""Slots in a figure: those that most pairs have."""
_SHIFT: Final = 0.08  # by which the bars of kinds and directions stand apart


def mean_traces(
    results: Mapping[str, Any],
    path: Target,
    *,
    question: str = "",
    region: str = "",
) -> None:
    """Draw, over the slots of the answers, where heads look and what they do, with intervals.

    From the top: the largest mean attention difference, with its head; the summed size of all
    heads' effects, a line a kind and direction; then a map of slots × heads a kind and direction,
    of the heads with the largest mean effect on any slot, coloured by their signed mean effect. A
    dot marks an effect whose interval excludes 0.

    Parameters
    ----------
    results
        ``trace.pt`` of many pairs: that of one pair (see `headpatch.report.traces.token_traces`),
        with ``pairs``, ``diff``, ``diff_low``, ``diff_high``, and, by kind and direction,
        ``effect_low``, ``effect_high``, ``total``, ``total_low``, ``total_high``.
    path
        The file to write.
    question, region
        Words for the title.

    Raises
    ------
    ValueError
        If there is no effect.
    """
    effects = lead_effects(results)
    if not effects:
        raise ValueError("'effect_logit' holds no effects by kind_direction")
    slots = _chosen(results)
    left_out = len(results["tokens"]) - len(slots)
    here = {key: [results[key][slot] for slot in slots] for key in ("tokens", "rivals", "forced")}
    names, chosen = largest({way: values[slots] for way, values in effects.items()})
    heights = [1.05, 1.05, *[map_height(names)] * len(effects)]
    with drawing(path, sum(heights) + 0.75) as figure:
        panels = figure.subplots(len(heights), sharex=True, height_ratios=heights, squeeze=False)
        looking, moving, *maps = panels.ravel()
        _draw_looks(looking, results, slots, here)
        _draw_totals(moving, results, slots, here)
        draw_maps(figure, maps, names, chosen)
        for axes, way in zip(maps, effects, strict=True):
            _dot(axes, _beyond(results, way)[slots], names)
        mark_tokens(maps[-1], _words(results, slots, here))
        maps[-1].set_xlabel("Token of the answer (in brackets: what a run would say instead)")
        for axes in panels.ravel():
            part(axes, here["forced"])
        looking.set_xlim(-0.5, len(slots) - 0.5)
        more = f" Left out: the tokens that fewest pairs have ({left_out})." if left_out else ""
        frame(
            figure,
            "Heads behind each token of the answer, means over pairs",
            question=question,
            region=region,
            legend=(looking, moving),
            note=f"Bars: {float(results['level']):.0%} intervals over pairs; none where "
            "one pair alone has the token. Tokens of different answers are averaged where they "
            "stand in the same place of the sentence (a/b: tokens there). Effect: what replacing "
            "one head's z at the position before a token does to logit(token) - logit(what a run "
            "would say instead), over the pairs where a run would, or to logit(token) where both "
            "runs of most pairs would say it. Dot: the interval excludes 0 (not corrected for the "
            f"number of heads).{more}",
        )


def _chosen(results: Mapping[str, Any]) -> list[int]:
    """Return the slots that most pairs have, in order."""
    pairs = np.asarray(results["pairs"])
    return sorted(np.argsort(-pairs, kind="stable")[:SLOTS].tolist())


def _words(
    results: Mapping[str, Any], slots: list[int], here: Mapping[str, list[str]]
) -> list[str]:
    """Label each slot; with the number of pairs that have it where some have not."""
    every, found = len(results["pair_names"]), []
    for slot, word in zip(slots, labels(here), strict=True):
        pairs = int(results["pairs"][slot])
        found.append(word if pairs == every else f"{word}\nn={pairs}")
    return found


def _draw_looks(
    axes: "matplotlib.axes.Axes",
    results: Mapping[str, Any],
    slots: list[int],
    here: Mapping[str, list[str]],
) -> None:
    """Draw the largest mean attention difference of each slot, and name its head."""
    mean, low, high = (
        array(results, name, 3)[slots].reshape(len(slots), -1)
        for name in ("diff", "diff_low", "diff_high")
    )
    heads = np.asarray(results["diff"]).shape[2]
    if np.isnan(mean).all():
        return
    first = np.nan_to_num(mean, nan=-np.inf).argmax(1)
    rows = np.arange(len(slots))
    figures = (mean[rows, first], low[rows, first], high[rows, first])
    x = rows.astype(float)
    _draw_line(axes, x, figures, here, DIFFERENCE, "o", "-", "largest attention difference")
    for place, flat in enumerate(first.tolist()):
        layer, head = divmod(flat, heads)
        top = np.nanmax([figures[0][place], figures[2][place]])
        axes.annotate(f"{layer}.{head}", (place, top), (0, 2), textcoords="offset points",
                      ha="center", va="bottom", fontsize=5)  # fmt: skip
    axes.axhline(0.0, color="0.55", linewidth=0.6)
    axes.margins(y=0.15)
    axes.set_ylabel("Region's share of\nimage attention,\nwith − without")


def _draw_totals(
    axes: "matplotlib.axes.Axes",
    results: Mapping[str, Any],
    slots: list[int],
    here: Mapping[str, list[str]],
) -> None:
    ways = list(results["total"])
    for place, way in enumerate(ways):
        kind, _, direction = way.rpartition("_")
        color, marker, line = LOOKS[direction]
        figures = tuple(
            array(results[name], way, 1)[slots] for name in ("total", "total_low", "total_high")
        )
        x = np.arange(len(slots)) + (place - (len(ways) - 1) / 2) * _SHIFT
        name = way_name(kind, direction, results)
        _draw_line(axes, x, figures, here, color, marker, KINDS[kind].line or line, name)
    axes.set_ylim(bottom=0)
    axes.set_ylabel("Sum over heads of\n|effect| (logits)")


def _draw_line(
    axes: "matplotlib.axes.Axes",
    x: Float[np.ndarray, " slots"] | Values,
    figures: tuple[Values, ...],
    here: Mapping[str, list[str]],
    color: str,
    marker: str,
    line: Line,
    label: str,
) -> None:
    """Draw means and their intervals; a line does not join two answers."""
    mean, low, high = figures
    for one in answers(here):
        axes.plot(x[one], mean[one], marker, color=color, linestyle=line, label=label)
    there = np.isfinite(low)
    axes.vlines(x[there], low[there], high[there], color=color, linewidth=1.4)


def _beyond(results: Mapping[str, Any], way: str) -> Bool[np.ndarray, "slots layers heads"]:
    """Say which intervals exclude 0."""
    low, high = (array(results[name], way, 3) for name in ("effect_low", "effect_high"))
    return np.asarray((low > 0) | (high < 0))


def _dot(
    axes: "matplotlib.axes.Axes", there: Bool[np.ndarray, "slots layers heads"], names: list[str]
) -> None:
    layers, heads = np.array([name.split(".") for name in names], dtype=int).T
    x, y = np.nonzero(there[:, layers, heads])
    axes.plot(x, y, ".", color="0.15", markersize=2, markeredgewidth=0)
