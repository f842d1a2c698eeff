"""What must come out as nothing, or as the same again, if a verdict is to be believed.

A null that fails marks the whole report: the model answers another question than the one that the
study asks, or the figures are not above rounding. Two nulls ask the same pair otherwise: about a
wrong place, and mirrored. A rate or a share fails only if its interval lies beyond the limit as a
whole (`headpatch.stats.shares`), so that few pairs do not fail a model that is right; a null that
so few could never fail is not tested.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float
from PIL import ImageOps

from headpatch.heads import Head
from headpatch.pairs.pair import Pair
from headpatch.pairs.region import REGIONS, Region
from headpatch.questions.verdict.pair_record import DIRECTIONS, Other, PairRecord, PerPair
from headpatch.stats.effects import rank_of
from headpatch.stats.shares import Estimate, rate_interval, share_interval
from headpatch.stats.verdict_labels import Rule
from headpatch.stats.verdicts import significant_sign

STRAY = 0.05
"""Largest rate of answers that flip about a place where nothing differs; and of random sets of
heads that do as much as the chosen ones."""
TURNS = 0.95
"""Least rate of mirrored pairs whose answer flips."""
SAME = 0.5
"""Least share of the chosen heads' effect, and of their attention, found again when mirrored."""
LEAK = 0.25
"""Largest share of the picked heads' attention difference at a place where nothing differs."""
ROUNDING = 0.1
"""Share of δ below which an effect of patching a head with its own z must lie."""
_SETS = 39  # random sets of heads from which on one that beats all of them is an event
_EDGE = 1e-6  # of the image: boxes that differ by no more are the same
_Box = tuple[float, float, float, float]
_Turn = tuple[Callable[[_Box], _Box], Mapping[str, str]]
_ACROSS: _Turn = (
    lambda box: (1 - box[2], box[1], 1 - box[0], box[3]),
    {"left": "right", "right": "left", "左": "右", "右": "左"},
)
_DOWN: _Turn = (
    lambda box: (box[0], 1 - box[3], box[2], 1 - box[1]),
    {"top": "bottom", "bottom": "top", "upper": "lower", "lower": "upper", "上": "下", "下": "上"},
)


@dataclass(frozen=True)
class Null:
    """One figure of a null, and whether it is as it must be: the columns of ``nulls.csv``."""

    null: str
    figure: str
    value: float  # NaN where it was not tested
    low: float  # ends of its interval; NaN where it has none
    high: float
    limit: str
    outcome: str
    pairs: int
    note: str = ""

    @classmethod
    def untested(cls, null: str, figure: str, limit: str) -> "Null":
        """Return a figure that is to be measured."""
        nothing = float("nan")
        return cls(null, figure, nothing, nothing, nothing, limit, "not tested", 0)

    def judged(self, value: float, fine: bool, pairs: int, note: str = "") -> "Null":
        """Return it with its value, and whether that is fine."""
        outcome = "passed" if fine else "failed"
        return replace(self, value=value, outcome=outcome, pairs=pairs, note=note)

    def estimated(self, found: Estimate, fine: bool, pairs: int, note: str = "") -> "Null":
        """Return it with its value, its interval, and whether that reaches what is fine."""
        known = replace(self, low=found.low, high=found.high)
        return known.judged(found.value, fine, pairs, note)


def _rate(figure: Null, hits: int, pairs: int, level: float, least: float | None = None) -> Null:
    """Judge a rate over pairs: at least `least`, or else at most `STRAY`."""

    def fine(count: int) -> bool:
        rate = rate_interval(count, pairs, level)
        return rate.low <= STRAY if least is None else rate.high >= least

    wrong = [count for count in range(pairs + 1) if not fine(count)]
    if not wrong:
        return replace(figure, pairs=pairs, note=f"{pairs} pairs could not show it to be wrong")
    ends = f"{wrong[0]} or more" if least is None else f"{wrong[-1]} or fewer"
    found = rate_interval(hits, pairs, level)
    return figure.estimated(found, fine(hits), pairs, f"would fail at {ends} of {pairs}")


def _share(figure: Null, found: Estimate, fine: bool, pairs: int) -> Null:
    """Judge a share of what the heads do in the pairs as they are asked."""
    if not np.isfinite([found.low, found.high]).all():
        why = f"what it is a share of is not shown to differ from 0 over {pairs} pairs"
        return replace(figure, pairs=pairs, note=why)
    return figure.estimated(found, fine, pairs)


def failed(nulls: Sequence[Null]) -> list[str]:
    """Name the nulls that failed."""
    return list(dict.fromkeys(one.null for one in nulls if one.outcome == "failed"))


def judge_nulls(
    pairs: Sequence[PairRecord],
    attention: PerPair,
    picked: Sequence[Head],
    chosen: Sequence[Head],
    random_effects: Float[np.ndarray, "sets judges"],
    chosen_effect: Float[np.ndarray, " judges"] | None,
    nothing: float,
    rule: Rule,
    unasked: str = "",
) -> list[Null]:
    """Judge every null on the pairs that judge heads, with their attention differences.

    Parameters
    ----------
    picked, chosen
        Heads picked by attention, and by effect, on the other pairs.
    random_effects, chosen_effect
        Joint necessity of random heads of the chosen heads' layers, and of the chosen heads, if
        any.
    nothing
        Largest effect of patching a head with its own z, or difference of the fast path from the
        plain one in its self-check, as a share of its pair's LD difference.
    unasked
        Why no pair was asked otherwise; empty if pairs were, where they can be.
    """
    own = "largest normalized effect of patching a head with its own z"
    most = ROUNDING * rule.delta
    patched = Null.untested("self-patch", own, f"below {ROUNDING:g} δ = {most:g}")
    return [
        patched.judged(nothing, nothing < most, len(pairs)),
        *_wrong_place(pairs, attention, picked, rule, unasked),
        *_mirrored(pairs, attention, picked, chosen, rule, unasked),
        _unread(pairs),
        _random(random_effects, chosen_effect, rule),
    ]


def _wrong_place(
    pairs: Sequence[PairRecord],
    attention: PerPair,
    picked: Sequence[Head],
    rule: Rule,
    unasked: str,
) -> list[Null]:
    """Ask about a place where the two pictures do not differ: no answer may flip."""
    name = "wrong place"
    words = "attention difference there of the heads that attention picks, as a share of theirs"
    flips = Null.untested(name, "share of pairs whose answer flips", f"at most {STRAY:g}")
    acting = Null.untested(name, "heads with an effect shown beyond ±δ", "0")
    looks = Null.untested(name, words, f"at most {LEAK:g}")
    asked = {i: pair.wrong_place for i, pair in enumerate(pairs) if pair.wrong_place is not None}
    places, others, count = list(asked), list(asked.values()), len(asked)
    if count < 2:
        why = "the questions name no side that could be exchanged" if pairs else "no pairs"
        why = unasked or why
        return [replace(figure, note=why) for figure in (flips, acting, looks)]
    flipped = sum(other.ld_with * other.ld_without < 0 for other in others)
    effects = _effects(others, [pairs[place].gap for place in places])
    layers = np.flatnonzero(~np.isnan(effects[0, 0, :, 0]))  # those that have heads
    beyond = np.abs(significant_sign(effects[:, :, layers], rule)).max(0)
    named = ", ".join(str(Head(int(layers[a]), int(b))) for a, b in np.argwhere(beyond)[:5])
    attended = np.stack([other.attention for other in others])
    leak = _again(attended, attention[places], picked, rule.level)
    return [
        _rate(flips, flipped, count, rule.level),
        acting.judged(float(beyond.sum()), not beyond.any(), count, named),
        _share(looks, leak, leak.low <= LEAK, count),
    ]


def _mirrored(
    pairs: Sequence[PairRecord],
    attention: PerPair,
    picked: Sequence[Head],
    chosen: Sequence[Head],
    rule: Rule,
    unasked: str,
) -> list[Null]:
    """Mirror pictures, region and question: the same heads must do the same at the new place."""
    name, half = "mirrored", f"at least {SAME:g}"
    words = "attention difference of the heads that attention picks, as a share of theirs"
    flips = Null.untested(name, "share of pairs whose answer flips", f"at least {TURNS:g}")
    acting = Null.untested(name, "effect of the chosen heads, as a share of theirs", half)
    looks = Null.untested(name, words, half)
    asked = {i: pair.mirrored for i, pair in enumerate(pairs) if pair.mirrored is not None}
    places, others, count = list(asked), list(asked.values()), len(asked)
    if count < 2:
        why = "the questions and regions have no side to mirror" if pairs else "no pairs"
        why = unasked or why
        return [replace(figure, note=why) for figure in (flips, acting, looks)]
    flipped = sum(other.ld_with > 0 > other.ld_without for other in others)
    attended = np.stack([other.attention for other in others])
    again = _again(attended, attention[places], picked, rule.level)
    judged = [
        _rate(flips, flipped, count, rule.level, TURNS),
        _share(looks, again, again.high >= SAME, count),
    ]
    if not chosen:
        return [*judged, replace(acting, note="no head's effect reached δ where heads are chosen")]
    ways = [f"resample_{way}" for way in DIRECTIONS]
    before = np.stack([[pairs[place].effects[way] for way in ways] for place in places])
    after = _effects(others, [pairs[place].gap for place in places])
    kept = _again(after, before, chosen, rule.level)
    return [*judged, _share(acting, kept, kept.high >= SAME, count)]


def _unread(pairs: Sequence[PairRecord]) -> Null:
    words = "largest effect of vision layers that do not reach the language model (logits)"
    figure = Null.untested("unread vision layers", words, "exactly 0")
    effects = [pair.unread for pair in pairs if not np.isnan(pair.unread)]
    if not effects:
        return replace(figure, note="every vision layer is read, or none can be changed")
    return figure.judged(max(effects), max(effects) == 0, len(effects))


def _random(
    random_effects: Float[np.ndarray, "sets pairs"],
    chosen_effect: Float[np.ndarray, " pairs"] | None,
    rule: Rule,
) -> Null:
    words = "share of random sets of heads of the same layers that do as much as the chosen heads"
    figure = Null.untested("random heads", words, f"at most {STRAY:g}")
    sets = len(random_effects)
    if chosen_effect is None:
        return replace(figure, note="no head's effect reached δ where heads are chosen")
    if sets < _SETS:
        return replace(figure, note=f"{sets} other sets in these layers: too few to tell")
    own, sizes = abs(float(chosen_effect.mean())), np.abs(random_effects.mean(1))
    as_large = rate_interval(int((sizes >= own).sum()), sets, rule.level)
    note = f"{sets} sets; p = {rank_of(own, sizes):.2g}, never below {2 / (sets + 1):.2g}"
    return figure.estimated(as_large, as_large.low <= STRAY, random_effects.shape[1], note)


def _effects(
    others: Sequence[Other], gaps: Sequence[float]
) -> Float[np.ndarray, "pairs ways layers heads"]:
    """Normalized effects of pairs asked otherwise; `gaps`: LD differences as first asked."""
    effects = np.stack([np.stack([-other.noising, other.denoising]) for other in others])
    return np.asarray(effects / np.array(gaps)[:, None, None, None])


def _again(
    after: Float[np.ndarray, "pairs *ways layers heads"],
    before: Float[np.ndarray, "pairs *ways layers heads"],
    heads: Sequence[Head],
    level: float,
) -> Estimate:
    """How much of the size of some heads' means is found again with the same signs."""
    layer, head = [one.layer for one in heads], [one.head for one in heads]
    first, second = (values[..., layer, head] for values in (before, after))
    signs = np.sign(first.mean(0))
    part, whole = ((signs * each).reshape(len(each), -1).sum(1) for each in (second, first))
    return share_interval(part, whole, level)


def mirrored(pair: Pair) -> Pair | None:
    """Mirror both pictures, the region and the question's left and right.

    None where question and region do not move together: one has a side and the other has not, or
    neither has.
    """
    moved = _moved(pair, _ACROSS)
    if moved is None:
        return None
    first, second = ImageOps.mirror(pair.with_image), ImageOps.mirror(pair.without_image)
    return replace(moved, with_image=first, without_image=second)


def wrong_place(pair: Pair) -> Pair | None:
    """Ask the same pictures about another place, where they do not differ.

    Of the places that the question can be turned to (the opposite corner first), the first that
    is of one colour in both pictures, so that it holds nothing; if none is, the first. None
    where the question names no side, or its region does not move with it.
    """
    across, down = _moved(pair, _ACROSS), _moved(pair, _DOWN)
    opposite = None if across is None else _moved(across, _DOWN)
    others = [
        other
        for other in (opposite, across, down)
        if other is not None and not _overlap(pair.region.box, other.region.box)
    ]
    return next(iter([other for other in others if _is_empty(other)] or others), None)


def _moved(pair: Pair, turn: _Turn) -> Pair | None:
    """Turn question and region; None if one of them does not change, or each run has its own."""
    if pair.question_without is not None:
        return None
    turned, words = turn
    question, box = _swapped(pair.question, words), turned(pair.region.box)
    if question == pair.question or np.allclose(box, pair.region.box, atol=_EDGE):
        return None
    unnamed = Region(",".join(f"{edge:g}" for edge in box), *box)
    named = (one for one in REGIONS.values() if np.allclose(one.box, box, atol=_EDGE))
    return replace(pair, question=question, region=next(named, unnamed))


def _swapped(text: str, words: Mapping[str, str]) -> str:
    """Exchange words, keeping a capital where there is one."""

    def swap(match: re.Match[str]) -> str:
        other = words[match[0].lower()]
        return other.capitalize() if match[0][0].isupper() else other

    latin = "|".join(word for word in words if word.isascii())
    others = "".join(word for word in words if not word.isascii())
    return re.sub(rf"\b(?:{latin})\b|[{others}]", swap, text, flags=re.IGNORECASE)


def _overlap(first: _Box, second: _Box) -> bool:
    across = min(first[2], second[2]) - max(first[0], second[0])
    down = min(first[3], second[3]) - max(first[1], second[1])
    return across > _EDGE and down > _EDGE


def _is_empty(pair: Pair) -> bool:
    """Whether the region's outer part is of one colour in both pictures."""
    left, top, right, bottom = pair.region.box
    (left, right), (top, bottom) = _outer(left, right), _outer(top, bottom)
    for image in pair.images:
        width, height = image.size
        start, end = round(left * width), round(right * width)
        part = image.crop((start, round(top * height), end, round(bottom * height)))
        pixels = np.asarray(part)
        if not (pixels.size > 0 and (pixels == pixels[0, 0]).all()):
            return False
    return True


def _outer(low: float, high: float) -> tuple[float, float]:
    """Cut a span that touches one edge of the image to the outer third: halves reach the middle."""
    if (low < _EDGE) == (high > 1 - _EDGE):
        return low, high
    return (low, min(high, 1 / 3)) if low < _EDGE else (max(low, 1 - 1 / 3), high)
