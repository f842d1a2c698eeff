"""What the views of many pairs show, in plain sentences that go no further than the numbers."""

from collections.abc import Iterator

import numpy as np
from jaxtyping import Bool, Float

from headpatch.core.study import edge_ends
from headpatch.engine.interventions import Direction
from headpatch.heads import HeadSet, Tower
from headpatch.questions.path.means import OverPairs
from headpatch.questions.path.words import (
    HALF,
    HEARD,
    PATCHES,
    SMALL,
    TOKENS,
    carrying,
    depth,
    percent,
    set_name,
    span,
    twice,
    unread,
    window,
)
from headpatch.stats.intervals import Interval

DIRECTIONS: tuple[Direction, ...] = ("noising", "denoising")
Curve = Float[np.ndarray, "pairs layers"]


def sentences(found: OverPairs, chosen_on: int, valid: bool, noise_floor: float) -> tuple[str, ...]:
    """Say what the pairs show in common, on how many of them, and with what intervals.

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
        *_where(found),
        *_moves(found),
        *_writers(found),
        *_listeners(found, chosen_on),
        _caveat(found, valid, noise_floor),
    )


def _where(found: OverPairs) -> Iterator[str]:
    """Say which tokens hold the difference at which depth."""
    yield from _tower(found)
    for name, tokens in TOKENS.items():
        if name != "before":
            yield from _held(found, "lm", name, tokens)
    yield from _twice(found)


def _tower(found: OverPairs) -> Iterator[str]:
    """Say how far up the vision tower its output matters, and where its region's patches do."""
    whole = _stream(found, "vision", "all", "denoising")
    means = found.interval(whole)
    if (means.low >= HALF).any():
        last = int(np.flatnonzero(means.low >= HALF)[-1])
        behind = whole[:, last + 1 :]
        rest = percent(float(np.abs(behind).max(initial=0.0)))
        tail = f"; the {unread(behind.shape[1])} {rest} at most, on any pair" if behind.size else ""
        yield f"The vision tower's output carries {_mean(means, last)} up to layer {last}{tail}."
    yield from _held(found, "vision", "region", PATCHES)


def _held(found: OverPairs, tower: Tower, name: str, tokens: str) -> Iterator[str]:
    """Describe where one class of tokens is shown to carry half of the difference on average."""
    said, half = [], False
    for direction in DIRECTIONS:
        curve = _stream(found, tower, name, direction)
        means = found.interval(curve)
        if not curve.size or not np.isfinite(means.mean).all():
            continue
        shown = means.low >= HALF
        if shown.any():
            half = True
            least = int(np.argmin(np.where(shown, means.mean, np.inf)))
            held = _pairs(curve[:, shown].min(1) >= HALF)
            said.append(f"{span(shown)} ({direction}: {_mean(means, least)} or more, {held})")
            continue
        peak = int(np.argmax(np.abs(means.mean)))
        where = "" if abs(means.mean[peak]) < SMALL else f" in layer {peak}"
        held = _pairs(curve.max(1) >= HALF)
        said.append(f"at most {_mean(means, peak)}{where} ({direction}: half or more {held})")
    if said:
        yield carrying(tokens, ", ".join(said), half)


def _twice(found: OverPairs) -> Iterator[str]:
    """Say on how many pairs the difference is held in two places, so that neither is needed."""
    noising, denoising = (
        [_stream(found, "lm", name, direction) for name in TOKENS] for direction in DIRECTIONS
    )
    pairs = len(denoising[0])
    names = [
        place for place, curve in enumerate(denoising) if len(curve) == pairs and curve.size
    ]  # those that every pair has
    if not names:
        return
    copied = twice(*(np.stack([one[place] for place in names]) for one in (noising, denoising)))
    most = copied.sum(0) * 2 > pairs
    if most.any():
        counts = copied.sum(0)[most]
        few, many = int(counts.min()), int(counts.max())
        on = f"{few}" if few == many else f"{few} to {many}"
        yield (
            f"It is held twice {span(most)}, each on {on} of {pairs} pairs: either place is enough "
            "there, neither is needed."
        )
    elif copied.any():
        yield f"It is held twice in some layer {_pairs(copied.max(1))}, in none on most pairs."


def _moves(found: OverPairs) -> Iterator[str]:
    """Say which window's cut does most on average, edge by edge."""
    width, said = found.study.path.window, []
    for edge in found.study.path.edges:
        start, end = edge_ends(edge)
        curve = found.curve(view="edge", where=edge, direction="noising")
        means = found.interval(curve)
        if not curve.size or not np.isfinite(means.mean).any():
            continue
        centre = int(np.nanargmax(np.abs(means.mean)))
        layers = window(centre, width, len(means.mean))
        said.append(f"{start} → {end} {_mean(means, centre)} ({layers})")
    if said:
        yield (
            f"Cutting attention in {depth(width)} takes, where the mean is largest: "
            f"{', '.join(said)}. (A cut also takes away what both runs share; the windows were "
            "picked on these pairs.)"
        )


def _writers(found: OverPairs) -> Iterator[str]:
    """Say which parts write most of the difference straight into the logits."""
    rows = {name: found.rows(view="direct", where=name) for name in ("head", "mlp")}
    shares = {name: found.of_rows(here) for name, here in rows.items()}
    if not all(values.size for values in shares.values()):
        return
    named = found.keys[rows["head"]]
    names = [f"head {one}" for one in named["heads"]]
    names += [f"MLP {layer}" for layer in found.keys.loc[rows["mlp"], "layer"]]
    parts = found.interval(np.concatenate([shares["head"], shares["mlp"]], 1))
    if not np.isfinite(parts.mean).all():
        return
    first = np.argsort(-np.abs(parts.mean))[:5].tolist()
    listed = ", ".join(f"{names[part]} {_mean(parts, part)}" for part in first)
    sums = found.interval(np.stack([shares["head"].sum(1), shares["mlp"].sum(1)], 1))
    yield (
        f"Written straight into LD: heads {_mean(sums, 0)}, MLPs {_mean(sums, 1)}; most by "
        f"{listed} (the largest of {len(names):,}, picked on these pairs)."
    )


def _listeners(found: OverPairs, chosen_on: int) -> Iterator[str]:
    """Say, head by head, which input carries what on average."""
    paths = found.keys[found.rows(view="head path", tower="lm")]
    for direction in DIRECTIONS:
        for heads in paths["heads"].unique():
            said, small = [], False
            for words, (inputs, sender) in HEARD.items():
                values = found.curve(
                    view="head path", tower="lm", where=f"{inputs} from {sender}", heads=heads,
                    direction=direction,
                )  # fmt: skip
                mean = found.interval(values)
                small |= words == "all inputs" and not abs(mean.mean).max(initial=0.0) >= SMALL
                if values.size:
                    said.append(f"{words} {_mean(mean, 0)}")
            if said and not small:
                name = set_name(HeadSet.parse(heads))
                yield f"Paths to {name} ({direction}): {', '.join(said)}."
    if chosen_on and len(paths):
        judged = len(found.curve(view="head path"))
        yield (
            f"The heads were picked on {chosen_on:,} of the pairs; the paths to them are means "
            f"over the other {judged:,}."
        )


def _caveat(found: OverPairs, valid: bool, noise_floor: float) -> str:
    if not valid:
        return (
            "The study is INVALID (pairs that failed the gate were run): these figures say nothing."
        )
    pairs, level = len(found.normalized), found.study.pairs.level
    return (
        f"Shares of the difference between each pair's runs, means over {pairs:,} pairs; in "
        f"brackets the {level:.0%} interval over pairs, of each figure by itself (noise "
        f"floor {noise_floor:.1e} logits). They speak of pairs like these."
    )


def _stream(found: OverPairs, tower: Tower, name: str, direction: Direction) -> Curve:
    return found.curve(view="stream", tower=tower, where=name, direction=direction)


def _mean(means: Interval, at: int) -> str:
    low, high = percent(float(means.low[at])), percent(float(means.high[at]))
    return f"{percent(float(means.mean[at]))} [{low} to {high}]"


def _pairs(holding: Bool[np.ndarray, " pairs"]) -> str:
    return f"on {int(holding.sum()):,} of {len(holding):,} pairs"
