"""What the views show, in plain sentences that go no further than the numbers."""

import math
from collections.abc import Iterator
from typing import Final

import numpy as np
from jaxtyping import Bool

from headpatch.core.study.options import edge_ends
from headpatch.engine.interventions import Direction
from headpatch.heads import HeadSet, Tower
from headpatch.present.column import Row
from headpatch.present.ratio_words import ratio_words
from headpatch.questions.path.tables import HALF, OverPairs
from headpatch.stats.intervals import Interval

SMALL: Final = 0.05
"""Shares below this are called little."""
PATCHES: Final = "the region's patches in the vision tower"
TOKENS: Final = {
    "region": "the region's image tokens",
    "other": "the other image tokens",
    "words": "the question's words",
    "answer": "the answer position",
    "before": "the text before the image",
}
"""Classes of the language model's tokens, as a sentence names them."""
HEARD: Final = {
    "all inputs": "all from all",
    "its values at the region": "values from region",
    "where it looks (query and keys)": "query+keys from all",
}
"""Paths to heads that a sentence speaks of."""
DIRECTIONS: Final[tuple[Direction, ...]] = ("noising", "denoising")


def sentences(rows: OverPairs, chosen_on: int, valid: bool, noise_floor: float) -> tuple[str, ...]:
    """Say what one pair shows, or what pairs show in common, on how many, with what intervals.

    `chosen_on` are the pairs that picked the heads, 0 if they were named; the noise floor is in
    logits.
    """
    said = (
        _tower(rows),
        _held(rows, "vision", "region"),
        *(_held(rows, "lm", name) for name in TOKENS if name != "before"),
        _twice(rows),
        _cuts(rows),
        _writers(rows),
        *_listeners(rows, chosen_on),
        _ratios(rows, noise_floor),
        _caveat(rows, valid, noise_floor),
    )
    return tuple(filter(None, said))


def _tower(rows: OverPairs) -> str:
    """Say how far up the vision tower its output matters."""
    where = _stream("vision", "all", "denoising")
    whole = rows.curve(**where)
    means = rows.interval(whole, **where)
    carrying = np.flatnonzero(means.low >= HALF)
    if not carrying.size:
        return ""
    last = int(carrying[-1])
    behind, tail = whole[:, last + 1 :], ""
    if behind.size:
        count = behind.shape[1]
        after = "layer after it carries" if count == 1 else f"{count} layers after it carry"
        tail = f"; the {after} {_percent(float(np.abs(behind).max()))}"
        tail += " at most, on any pair" * rows.many
    carried = _mean(rows, means, last)
    return f"The vision tower's output carries {carried} up to layer {last}{tail}."


def _held(rows: OverPairs, tower: Tower, name: str) -> str:
    """Say where one class of tokens is shown to carry half of the difference (on average)."""
    ways: dict[tuple[str, str], list[str]] = {}
    half = False
    for direction in DIRECTIONS:
        stream = _stream(tower, name, direction)
        curve = rows.curve(**stream)
        means = rows.interval(curve, **stream)
        if not curve.size or not np.isfinite(means.mean).all():
            continue
        shown = means.low >= HALF
        if shown.any():
            half, where = True, _span(shown)
            least = int(np.argmin(np.where(shown, means.mean, np.inf)))
            on = f"{_mean(rows, means, least)} or more, {_pairs(curve[:, shown].min(1) >= HALF)}"
        else:
            peak = int(np.argmax(np.abs(means.mean)))
            where = f"at most {_mean(rows, means, peak)}"
            where += "" if abs(means.mean[peak]) < SMALL else f" in layer {peak}"
            on = f"half or more {_pairs(curve.max(1) >= HALF)}"
        if rows.many:
            ways[where, direction] = [f"{direction}: {on}"]
        else:
            ways.setdefault((where, ""), []).append(direction)
    if not ways:
        return ""
    listed = ", ".join(f"{where} ({' and '.join(words)})" for (where, _), words in ways.items())
    tokens = TOKENS[name] if tower == "lm" else PATCHES
    carry = "carries" if tokens.endswith("position") else "carry"
    much = " half of the difference or more" if half else ""
    return f"{tokens[0].upper()}{tokens[1:]} {carry}{much} {listed}."


def _twice(rows: OverPairs) -> str:
    """Say where the difference is held in two places, so that neither is needed."""
    pairs = len(rows.tables)
    curves = {
        name: [rows.curve(**_stream("lm", name, way)) for way in DIRECTIONS] for name in TOKENS
    }
    every = {name: own for name, own in curves.items() if own[1].size and len(own[1]) == pairs}
    if not every:
        return ""
    noising, denoising = (np.stack(of_way) for of_way in zip(*every.values(), strict=True))
    copied = ((denoising >= HALF).sum(0) > 1) & (noising < HALF).all(0)  # pairs × layers
    most = copied.sum(0) * 2 > pairs
    if most.any() and rows.many:
        few, many = int(copied.sum(0)[most].min()), int(copied.sum(0)[most].max())
        on = f"{few}" if few == many else f"{few} to {many}"
        return (
            f"It is held twice {_span(most)}, each on {on} of {pairs} pairs: either place is "
            "enough there, neither is needed."
        )
    if most.any():
        held = zip(every, denoising[:, 0, most], strict=True)
        holders = " and ".join(TOKENS[name] for name, shares in held if (shares >= HALF).all())
        return f"It is held twice {_span(most)}, by {holders}: either is enough, neither is needed."
    if copied.any():
        return f"It is held twice in some layer {_pairs(copied.max(1))}, in none on most pairs."
    return ""


def _cuts(rows: OverPairs) -> str:
    """Say which window's cut does most (on average), edge by edge."""
    width, listed = rows.study.path.window, []
    for edge in rows.study.path.edges:
        start, end = edge_ends(edge)
        where = {"view": "edge", "where": edge, "direction": "noising"}
        means = rows.interval(rows.curve(**where), **where)
        if np.isfinite(means.mean).any():
            centre = int(np.nanargmax(np.abs(means.mean)))
            centres = rows.keys.loc[rows.rows(**where), "layer"].astype(int).tolist()
            layers = _window(centres[centre], width, centres[-1] + 1)
            listed.append(f"{start} → {end} {_mean(rows, means, centre)} ({layers})")
    if not listed:
        return ""
    depth = "1 layer" if width == 1 else f"{width} layers"
    largest = "where the mean is largest" if rows.many else "at its largest"
    picked = "; the windows were picked on these pairs" * rows.many
    return (
        f"Cutting attention in {depth} takes, {largest}: {', '.join(listed)}. (A cut also takes "
        f"away what both runs share{picked}.)"
    )


def _writers(rows: OverPairs) -> str:
    """Say which parts write most of the difference straight into the logits."""
    where = {name: rows.rows(view="direct", where=name) for name in ("head", "mlp")}
    heads, mlps = (rows.curve(view="direct", where=name) for name in where)
    names = [f"head {heads}" for heads in rows.keys.loc[where["head"], "heads"]]
    names += [f"MLP {layer}" for layer in rows.keys.loc[where["mlp"], "layer"]]
    if not heads.size or not mlps.size:
        return ""
    parts = rows.interval(np.concatenate([heads, mlps], 1), view="direct", where="head")
    if not np.isfinite(parts.mean).all():
        return ""
    first = np.argsort(-np.abs(parts.mean))[:5].tolist()
    listed = ", ".join(f"{names[part]} {_mean(rows, parts, part)}" for part in first)
    both = np.stack([heads.sum(1), mlps.sum(1)], 1)
    sums = rows.interval(both, view="direct", where="head")
    picked = f" (the largest of {len(names):,}, picked on these pairs)" if rows.many else ""
    return (
        f"Written straight into LD: heads {_mean(rows, sums, 0)}, MLPs {_mean(rows, sums, 1)}; "
        f"most by {listed}{picked}."
    )


def _listeners(rows: OverPairs, chosen_on: int) -> Iterator[str]:
    """Say, head by head, which input carries what."""
    paths = rows.keys[rows.rows(view="head path", tower="lm")]
    for direction in DIRECTIONS:
        for heads in paths["heads"].unique():
            listed, small = [], False
            for words, where in HEARD.items():
                path = {"view": "head path", "tower": "lm", "where": where, "heads": heads,
                        "direction": direction}  # fmt: skip
                values = rows.curve(**path)
                means = rows.interval(values, **path)
                small |= words == "all inputs" and not abs(means.mean).max(initial=0.0) >= SMALL
                if values.size:
                    listed.append(f"{words} {_mean(rows, means, 0)}")
            if listed and not small:
                members = HeadSet.parse(heads)
                name = str(members) if len(members) < 3 else f"all {len(members)} heads"
                yield f"Paths to {name} ({direction}): {', '.join(listed)}."
    if chosen_on and len(paths):
        judged = len(rows.curve(view="head path"))
        yield (
            f"The heads were picked on {chosen_on:,} of the pairs; the paths to them are means "
            f"over the other {judged:,}."
        )


def _ratios(rows: OverPairs, noise_floor: float) -> str:
    """Say where pairs of small gaps, or one pair, decide a mean; nothing where none do."""
    return ratio_words(rows.means.to_dict("records"), _name, noise_floor) if rows.many else ""


def _name(row: Row) -> str:
    """Name a figure in a sentence."""
    parts = [row["view"], row["heads"], row["where"], row["direction"]]
    layer = "" if math.isnan(row["layer"]) else f" at layer {row['layer']:.0f}"
    return f"{' '.join(filter(None, parts))}{layer}"


def _caveat(rows: OverPairs, valid: bool, noise_floor: float) -> str:
    if not valid:
        why = (
            "pairs that failed the gate were run" if rows.many else "its answers are not Yes and No"
        )
        return f"The study is INVALID ({why}): these figures say nothing."
    if not rows.many:
        return (
            f"Shares of the difference between the runs (noise floor {noise_floor:.1e} logits). "
            "One pair shows one case, not a rule."
        )
    pairs, level = len(rows.tables), rows.study.pairs.level
    return (
        f"Shares of the difference between each pair's runs, means over {pairs:,} pairs; in "
        f"brackets the {level:.0%} interval over pairs, of each figure by itself (noise "
        f"floor {noise_floor:.1e} logits). They speak of pairs like these."
    )


def _stream(tower: Tower, name: str, direction: Direction) -> dict[str, str]:
    """Say which rows are of a stream."""
    return {"view": "stream", "tower": tower, "where": name, "direction": direction}


def _mean(rows: OverPairs, means: Interval, at: int) -> str:
    mean = _percent(float(means.mean[at]))
    if not rows.many:
        return mean
    return f"{mean} [{_percent(float(means.low[at]))} to {_percent(float(means.high[at]))}]"


def _percent(value: float) -> str:
    """Write a share; what rounds to nothing has no sign."""
    return f"{value:.0%}" if abs(value) >= 0.005 else "0%"


def _pairs(holding: Bool[np.ndarray, " pairs"]) -> str:
    return f"on {int(holding.sum()):,} of {len(holding):,} pairs"


def _span(holding: Bool[np.ndarray, " layers"]) -> str:
    """Say in which layers something holds; it must in one."""
    layers = np.flatnonzero(holding)
    first, last, count = int(layers[0]), int(layers[-1]), len(holding)
    gaps = " with gaps" if len(layers) < last - first + 1 else ""
    if first == 0:
        return f"in every layer{gaps}" if last == count - 1 else f"up to layer {last}{gaps}"
    if last == count - 1:
        return f"from layer {first} on{gaps}"
    return f"in layers {first}-{last}{gaps}" if last > first else f"in layer {first}"


def _window(centre: int, width: int, layers: int) -> str:
    """Name the layers of a window, as `headpatch.core.edge_cuts` cuts them."""
    first = max(centre - width // 2, 0)
    last = min(centre - width // 2 + width, layers) - 1
    return f"layers {first}-{last}" if last > first else f"layer {last}"
