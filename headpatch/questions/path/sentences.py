"""What the views show, in plain sentences that go no further than the numbers."""

from collections.abc import Iterator, Mapping

import numpy as np
from jaxtyping import Bool, Float

from headpatch.core.study import edge_ends
from headpatch.engine.interventions import Direction
from headpatch.heads import HeadSet, Tower
from headpatch.questions.path.heads import Way
from headpatch.questions.path.tables import HALF, OverPairs
from headpatch.stats.intervals import Interval

SMALL = 0.05
"""Shares below this are called little."""
PATCHES = "the region's patches in the vision tower"
TOKENS: Mapping[str, str] = {
    "region": "the region's image tokens",
    "other": "the other image tokens",
    "words": "the question's words",
    "answer": "the answer position",
    "before": "the text before the image",
}
"""Classes of the language model's tokens, as a sentence names them."""
HEARD: Mapping[str, Way] = {
    "all inputs": ("all", "all"),
    "its values at the region": ("values", "region"),
    "where it looks (query and keys)": ("query+keys", "all"),
}
"""Paths to heads that a sentence speaks of."""
DIRECTIONS: tuple[Direction, ...] = ("noising", "denoising")
Curve = Float[np.ndarray, "pairs layers"]


def sentences(rows: OverPairs, chosen_on: int, valid: bool, noise_floor: float) -> tuple[str, ...]:
    """Say what one pair shows, or what pairs show in common, on how many, with what intervals.

    Parameters
    ----------
    chosen_on
        Pairs that picked the heads; 0 if they were named.
    valid
        Whether all pairs passed the gate.
    noise_floor
        In logits.
    """
    return (
        *_tower(rows),
        *(words for name in TOKENS if name != "before" for words in _held(rows, "lm", name)),
        *_twice(rows),
        *_moves(rows),
        *_writers(rows),
        *_listeners(rows, chosen_on),
        _caveat(rows, valid, noise_floor),
    )


def _tower(rows: OverPairs) -> Iterator[str]:
    """Say how far up the vision tower its output matters, and where its region's patches do."""
    whole = _stream(rows, "vision", "all", "denoising")
    means = rows.interval(whole)
    if (means.low >= HALF).any():
        last = int(np.flatnonzero(means.low >= HALF)[-1])
        behind, tail = whole[:, last + 1 :], ""
        if behind.size:
            count = behind.shape[1]
            after = "layer after it carries" if count == 1 else f"{count} layers after it carry"
            tail = f"; the {after} {_percent(float(np.abs(behind).max()))}"
            tail += " at most, on any pair" * rows.many
        carried = _mean(rows, means, last)
        yield f"The vision tower's output carries {carried} up to layer {last}{tail}."
    yield from _held(rows, "vision", "region")


def _held(rows: OverPairs, tower: Tower, name: str) -> Iterator[str]:
    """Say where one class of tokens is shown to carry half of the difference (on average)."""
    ways: dict[tuple[str, str], list[str]] = {}
    half = False
    for direction in DIRECTIONS:
        curve = _stream(rows, tower, name, direction)
        means = rows.interval(curve)
        if not curve.size or not np.isfinite(means.mean).all():
            continue
        shown = means.low >= HALF
        half |= bool(shown.any())
        if shown.any():
            where = _span(shown)
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
    if ways:
        listed = ", ".join(f"{where} ({' and '.join(said)})" for (where, _), said in ways.items())
        tokens = TOKENS[name] if tower == "lm" else PATCHES
        carry = "carries" if tokens.endswith("position") else "carry"
        much = " half of the difference or more" if half else ""
        yield f"{tokens[0].upper()}{tokens[1:]} {carry}{much} {listed}."


def _twice(rows: OverPairs) -> Iterator[str]:
    """Say where the difference is held in two places, so that neither is needed."""
    pairs = len(rows.tables)
    curves = {
        name: [_stream(rows, "lm", name, direction) for direction in DIRECTIONS] for name in TOKENS
    }
    every = {name: own for name, own in curves.items() if own[1].size and len(own[1]) == pairs}
    if not every:
        return
    noising, denoising = (np.stack([own[way] for own in every.values()]) for way in (0, 1))
    copied = ((denoising >= HALF).sum(0) > 1) & (noising < HALF).all(0)  # pairs × layers
    most = copied.sum(0) * 2 > pairs
    if most.any() and rows.many:
        counts = copied.sum(0)[most]
        few, many = int(counts.min()), int(counts.max())
        on = f"{few}" if few == many else f"{few} to {many}"
        yield (
            f"It is held twice {_span(most)}, each on {on} of {pairs} pairs: either place is "
            "enough there, neither is needed."
        )
    elif most.any():
        holders = [
            TOKENS[name]
            for name, curve in zip(every, list(denoising), strict=True)
            if (curve[0, most] >= HALF).all()
        ]
        yield (
            f"It is held twice {_span(most)}, by {' and '.join(holders)}: either is enough, "
            "neither is needed."
        )
    elif copied.any():
        yield f"It is held twice in some layer {_pairs(copied.max(1))}, in none on most pairs."


def _moves(rows: OverPairs) -> Iterator[str]:
    """Say which window's cut does most (on average), edge by edge."""
    width, listed = rows.study.path.window, []
    for edge in rows.study.path.edges:
        start, end = edge_ends(edge)
        curve = rows.curve(view="edge", where=edge, direction="noising")
        means = rows.interval(curve)
        if not curve.size or not np.isfinite(means.mean).any():
            continue
        centre = int(np.nanargmax(np.abs(means.mean)))
        layers = _window(centre, width, len(means.mean))
        listed.append(f"{start} → {end} {_mean(rows, means, centre)} ({layers})")
    if listed:
        depth = "1 layer" if width == 1 else f"{width} layers"
        largest = "where the mean is largest" if rows.many else "at its largest"
        picked = "; the windows were picked on these pairs" * rows.many
        yield (
            f"Cutting attention in {depth} takes, {largest}: {', '.join(listed)}. (A cut also "
            f"takes away what both runs share{picked}.)"
        )


def _writers(rows: OverPairs) -> Iterator[str]:
    """Say which parts write most of the difference straight into the logits."""
    where = {name: rows.rows(view="direct", where=name) for name in ("head", "mlp")}
    shares = {name: rows.of_rows(of_part) for name, of_part in where.items()}
    if not all(values.size for values in shares.values()):
        return
    names = [f"head {heads}" for heads in rows.keys.loc[where["head"], "heads"]]
    names += [f"MLP {layer}" for layer in rows.keys.loc[where["mlp"], "layer"]]
    parts = rows.interval(np.concatenate([shares["head"], shares["mlp"]], 1))
    if not np.isfinite(parts.mean).all():
        return
    first = np.argsort(-np.abs(parts.mean))[:5].tolist()
    listed = ", ".join(f"{names[part]} {_mean(rows, parts, part)}" for part in first)
    sums = rows.interval(np.stack([shares["head"].sum(1), shares["mlp"].sum(1)], 1))
    picked = f" (the largest of {len(names):,}, picked on these pairs)" if rows.many else ""
    yield (
        f"Written straight into LD: heads {_mean(rows, sums, 0)}, MLPs {_mean(rows, sums, 1)}; "
        f"most by {listed}{picked}."
    )


def _listeners(rows: OverPairs, chosen_on: int) -> Iterator[str]:
    """Say, head by head, which input carries what."""
    paths = rows.keys[rows.rows(view="head path", tower="lm")]
    for direction in DIRECTIONS:
        for heads in paths["heads"].unique():
            listed, small = [], False
            for words, (inputs, sender) in HEARD.items():
                values = rows.curve(
                    view="head path", tower="lm", where=f"{inputs} from {sender}", heads=heads,
                    direction=direction,
                )  # fmt: skip
                means = rows.interval(values)
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


def _stream(rows: OverPairs, tower: Tower, name: str, direction: Direction) -> Curve:
    return rows.curve(view="stream", tower=tower, where=name, direction=direction)


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
