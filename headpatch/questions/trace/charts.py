"""The heads behind each token of an answer, as charts over the tokens."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Any, Final, TypeAlias

import numpy as np
from jaxtyping import Bool, Float

from headpatch.present.canvas import DIFFERENCE, GREEN, ORANGE, WITH, WITHOUT, array, signed
from headpatch.present.chart import AnyPanel, Cells, Chart, Colours, HeadMap, largest_cells
from headpatch.present.panel import ASKED, Guide, Look, Panel, Scale, Series, beside

HEADS: Final = 12
"""Heads with a row of their own in the maps: those with the largest effect on any token."""
SLOTS: Final = 40
"""Slots of many pairs in a figure: those that most pairs have."""
_LOOKS: Final = {
    "noising": Look(GREEN, "^", "-", size=3.5),
    "denoising": Look(ORANGE, "v", "--", size=3.5),
}
"""Looks of directions: none of a run's."""
_LINES: Final = {"zero": ":", "mean": "-."}
"""Lines of the kinds other than resample, which has its direction's."""
_RUNS: Final = {"with": Look(WITH, "o", "-", size=3.5), "without": Look(WITHOUT, "s", size=3.5)}
_SHARE: Final = "Region's share of\nimage attention"
_SUM: Final = "Sum over heads of\n|effect| (logits)"
_TOKEN: Final = "Token of the answer (in brackets: what a run would say instead)"
_NOTE: Final = (
    "Each token is looked at from the position before it; both runs are made to say the same "
    "tokens. Effect: what replacing one head's z there does to logit(token) - logit(the token in "
    "brackets, which a run would say instead), or to logit(token) where both runs would say it. "
    "Negative: towards another token."
)
_NOTE_MEANS: Final = (
    "Bars: {level:.0%} intervals over pairs; none where one pair alone has the token. Tokens of "
    "different answers are averaged where they stand in the same place of the sentence (a/b: "
    "tokens there). Effect: what replacing one head's z at the position before a token does to "
    "logit(token) - logit(what a run would say instead), over the pairs where a run would, or to "
    "logit(token) where both runs of most pairs would say it. Dot: the interval excludes 0 (not "
    "corrected for the number of heads)."
)

Values: TypeAlias = Float[np.ndarray, "..."]


def trace_chart(results: Mapping[str, Any]) -> Chart:
    """Show, over the tokens of the answer, where heads look and what they do.

    From the top: the heads' attention to the region (the highest and the mean, in both runs; of
    many pairs the largest mean difference, with its head); the summed size of all heads' effects;
    then a map of tokens × heads a kind and direction. Of many pairs, a dot marks an effect whose
    interval excludes 0.
    """
    effects = lead_effects(results)
    if not effects:
        raise ValueError("'effect_logit' holds no effects by kind_direction")
    many = "pair_names" in results
    slots = list(range(len(results["tokens"])))
    if many:  # those that most pairs have, in order
        slots = sorted(np.argsort(-np.asarray(results["pairs"]), kind="stable")[:SLOTS].tolist())
    axis = _Axis(results, slots)
    effects = {way: values[slots] for way, values in effects.items()}
    names, picked = largest(effects)
    looks = _looks(results, axis) if many else _attention(results, axis)
    beyond = {way: _beyond(results, way)[slots] for way in effects if many}
    maps = [_effects(way, picked[way], names, axis, beyond.get(way)) for way in effects]
    maps[-1] = replace(maps[-1], x_label=_TOKEN)
    panels: list[AnyPanel] = [looks, _summed(results, effects, axis), *maps]
    left_out = len(results["tokens"]) - len(slots)
    more = f" Left out: the tokens that fewest pairs have ({left_out})." if left_out else ""
    note = _NOTE_MEANS.format(level=float(results["level"])) + more if many else _NOTE
    return Chart(
        "trace",
        "trace.png",
        "Heads behind each token of the answer" + ", means over pairs" * many,
        panels,
        note,
        spoken=["", "", *(_spoken(one) for one in maps)],
        share_y="none",
        heights=[1.2, 1.2, *[0.13 * len(names) + 0.4] * len(maps)],
        colours=Colours("Effect (logits)", rooted=True),
    )


class _Axis:
    """The tokens along the x axis; a line does not join two answers."""

    def __init__(self, results: Mapping[str, Any], slots: Sequence[int]) -> None:
        self.slots = list(slots)
        self.names = _words(results, self.slots)
        forced = [results["forced"][slot] for slot in slots]
        ends = [place for place, (one, other) in enumerate(pairwise(forced), 1) if one != other]
        self.starts = np.array(ends, dtype=np.int64)
        self.guides = [Guide("x", end - 0.5) for end in ends]

    def series(
        self, name: str, values: Values, look: Look, shift: float = 0.0, ends: Any = (), **more: Any
    ) -> Series:
        """Return values over the tokens, parted where another answer begins."""
        x = np.insert(np.arange(len(self.slots), dtype=np.float64), self.starts, np.nan) + shift
        y = np.insert(values, self.starts, np.nan)
        low, high = (np.insert(one, self.starts, np.nan) for one in ends) if ends else (None, None)
        return Series(name, x, y, low, high, look=look, mark="line", ends="bars", **more)

    def panel(self, title: str, series: Sequence[Series], label: str, scale: Scale) -> Panel:
        return Panel(title, series, "", label, self.names, y_scale=scale, guides=self.guides)


def lead_effects(results: Mapping[str, Any]) -> dict[str, Float[np.ndarray, "tokens layers heads"]]:
    """Return, by kind and direction, effects on the contrast, or on the logit without a rival."""
    logits, contrasts = results.get("effect_logit", {}), results.get("effect_contrast", {})
    rival = np.array([bool(one) for one in results["rivals"]])[:, None, None]
    return {way: np.where(rival, array(contrasts, way, 3), array(logits, way, 3)) for way in logits}


def largest(effects: Mapping[str, Values]) -> tuple[list[str], dict[str, Values]]:
    """Name the heads with the largest effects, in layer order, and pick theirs: tokens × heads."""
    size = np.max([np.abs(values).max(0) for values in effects.values()], axis=0)
    layers, heads = np.array(sorted(largest_cells(size, HEADS))).T
    picked = {way: values[:, layers, heads] for way, values in effects.items()}
    return [f"{layer}.{head}" for layer, head in zip(layers, heads, strict=True)], picked


def shown(word: str) -> str:
    """Return a token so that white space can be seen."""
    return repr(word)[1:-1] if word.isspace() or "\n" in word else word


def _words(results: Mapping[str, Any], slots: Sequence[int]) -> list[str]:
    """Return each token, its rival in brackets, and how many pairs have it if not all do."""
    words, every = [], len(results.get("pair_names", ()))
    for slot in slots:
        rival, word = results["rivals"][slot], shown(results["tokens"][slot])
        pairs = int(results["pairs"][slot]) if every else 0
        word += f"\n({shown(rival)})" if rival else ""
        words.append(word if pairs == every else f"{word}\nn={pairs}")
    return words


def _attention(results: Mapping[str, Any], axis: _Axis) -> Panel:
    """Show the highest and the mean attention to the region, in both runs."""
    series = []
    for run, look in _RUNS.items():
        shares = array(results, run, 3).reshape(len(axis.slots), -1)
        if not np.isnan(shares).all():
            mean = replace(look, line=":", hollow=True)
            series.append(axis.series(f"highest head, {run}", shares.max(1), look))
            series.append(axis.series(f"mean, {run}", shares.mean(1), mean))
    return axis.panel("Where heads look", series, _SHARE, Scale(low=0.0, high=1.02))


def _looks(results: Mapping[str, Any], axis: _Axis) -> Panel:
    """Show the largest mean attention difference of each slot, and name its head."""
    flat = [
        array(results, name, 3)[axis.slots].reshape(len(axis.slots), -1)
        for name in ("diff", "diff_low", "diff_high")
    ]
    heads, series = np.asarray(results["diff"]).shape[2], list[Series]()
    if not np.isnan(flat[0]).all():
        first = np.nan_to_num(flat[0], nan=-np.inf).argmax(1)
        mean, *ends = (one[np.arange(len(first)), first] for one in flat)
        names = np.array(["{}.{}".format(*divmod(int(one), heads)) for one in first], object)
        texts, look = np.insert(names, axis.starts, "").tolist(), Look(DIFFERENCE, size=3.5)
        name = "largest attention difference"
        series = [axis.series(name, mean, look, ends=ends, texts=texts)]
    return axis.panel("Where heads look", series, f"{_SHARE},\nwith − without", Scale())


def _summed(results: Mapping[str, Any], effects: Mapping[str, Values], axis: _Axis) -> Panel:
    """Show the summed size of all heads' effects; its means over pairs side by side."""
    series: list[Series] = []
    ends: Sequence[Values] = ()
    for place, (way, values) in enumerate(effects.items()):
        total, shift = np.abs(values).sum((1, 2)), 0.0
        if "total" in results:
            names = "total", "total_low", "total_high"
            total, *ends = (array(results[name], way, 1)[axis.slots] for name in names)
            shift = beside(place, len(effects), 0.08 * len(effects))
        series.append(axis.series(_way(way), total, _look(way), shift, ends))
    return axis.panel("What heads do, in sum", series, _SUM, Scale(low=0.0))


def _way(way: str) -> str:
    kind, _, direction = way.rpartition("_")
    return direction if kind == "resample" else f"{direction}, {kind}"


def _look(way: str) -> Look:
    kind, _, direction = way.rpartition("_")
    look = _LOOKS[direction]
    return replace(look, line=_LINES.get(kind, look.line))


def _effects(
    way: str,
    values: Float[np.ndarray, "tokens heads"],
    names: list[str],
    axis: _Axis,
    beyond: Bool[np.ndarray, "tokens layers all_heads"] | None,
) -> HeadMap:
    """Show one kind and direction's effects of the chosen heads."""
    kind, _, direction = way.rpartition("_")
    cells = []
    if beyond is not None:
        layers, heads = np.array([name.split(".") for name in names], dtype=int).T
        columns, rows = np.nonzero(beyond[:, layers, heads])
        cells = [Cells(rows.tolist(), columns.tolist(), ".")]
    hover = [
        [f"head {name}, {' '.join(token.split())}: {signed(float(value), 3)}"
         for token, value in zip(axis.names, row, strict=True)]
        for name, row in zip(names, values.T, strict=True)
    ]  # fmt: skip
    title = f"{kind.capitalize()}, {direction} ({ASKED[direction]})"
    return HeadMap(title, values.T, "", "Head", axis.names, names, hover, cells,
                   guides=axis.guides)  # fmt: skip


def _beyond(results: Mapping[str, Any], way: str) -> Bool[np.ndarray, "slots layers heads"]:
    """Say which intervals exclude 0."""
    low, high = (array(results[name], way, 3) for name in ("effect_low", "effect_high"))
    return np.asarray((low > 0) | (high < 0))


def _spoken(panel: HeadMap) -> str:
    """Name the largest effect of a map."""
    cells = largest_cells(panel.values, 1)
    return f"Largest: {panel.hover[cells[0][0]][cells[0][1]]}" if cells else ""
