"""What must come out as nothing, or as the same again, if a verdict is to be believed.

A null that fails marks the whole report: the model answers another question than the one that the
study asks, or the figures are not above rounding.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np
import pandas as pd
from jaxtyping import Float

from headpatch.heads import Head
from headpatch.questions.verdict.pair_record import DIRECTIONS, Other, PairRecord
from headpatch.stats.effects import rank_of
from headpatch.stats.verdict_labels import Rule
from headpatch.stats.verdicts import significant_sign

SAME = 0.5
"""Least share of the chosen heads' effect, and of their attention, found again when mirrored."""
LEAK = 0.25
"""Largest share of the picked heads' attention difference at a place where nothing differs."""


@dataclass(frozen=True)
class Null:
    """One figure of a null, and whether it is as it must be.

    Attributes
    ----------
    null, figure
        Which null, and what is measured.
    value
        NaN where it could not be.
    limit
        In words, what the value must be.
    outcome
        ``passed``, ``failed`` or ``not tested``.
    pairs
        It was measured on.
    note
        Why it was not tested; which heads failed it; what the value cannot say.
    """

    null: str
    figure: str
    value: float
    limit: str
    outcome: str
    pairs: int
    note: str = ""


def table(found: Sequence[Null]) -> pd.DataFrame:
    """Return the columns of ``nulls.csv``."""
    return pd.DataFrame([asdict(one) for one in found])


def failed(found: Sequence[Null]) -> list[str]:
    """Name the nulls that failed."""
    return list(dict.fromkeys(one.null for one in found if one.outcome == "failed"))


def judge_nulls(
    pairs: Sequence[PairRecord],
    attention: Float[np.ndarray, "pairs layers heads"],
    picked: Sequence[Head],
    chosen: Sequence[Head],
    random_effects: Float[np.ndarray, "sets pairs"],
    chosen_effect: Float[np.ndarray, " pairs"] | None,
    nothing: float,
    rule: Rule,
) -> list[Null]:
    """Judge every null.

    Parameters
    ----------
    pairs, attention
        Those that the heads are judged on, and their attention differences.
    picked, chosen
        Heads picked by attention, and by effect, on the other pairs.
    random_effects, chosen_effect
        Joint necessity of random heads of the chosen heads' layers, and of the chosen heads, if
        any.
    nothing
        Largest effect of patching a head with its own z, or difference of the fast path from the
        plain one in its self-check, as a share of its pair's LD difference.
    """
    return [
        _self_patch(nothing, len(pairs), rule),
        *_wrong_place(pairs, attention, picked, rule),
        *_mirrored(pairs, attention, picked, chosen, rule),
        _unread(pairs),
        _random(random_effects, chosen_effect, rule),
    ]


@dataclass(frozen=True)
class _Figure:
    """A figure of a null, not yet measured."""

    null: str
    figure: str
    limit: str

    def judged(self, value: float, fine: bool, pairs: int, note: str = "") -> Null:
        outcome = "passed" if fine else "failed"
        return Null(self.null, self.figure, value, self.limit, outcome, pairs, note)

    def untested(self, why: str) -> Null:
        return Null(self.null, self.figure, float("nan"), self.limit, "not tested", 0, why)


def _self_patch(nothing: float, pairs: int, rule: Rule) -> Null:
    figure = "largest normalized effect of patching a head with its own z"
    limit = f"below δ = {rule.delta:g}"
    return _Figure("self-patch", figure, limit).judged(nothing, nothing < rule.delta, pairs)


def _wrong_place(
    pairs: Sequence[PairRecord],
    attention: Float[np.ndarray, "pairs layers heads"],
    picked: Sequence[Head],
    rule: Rule,
) -> list[Null]:
    """Ask about a place where the two pictures do not differ: no answer may flip."""
    name = "wrong place"
    flips = _Figure(name, "share of pairs whose answer flips", f"at most {rule.alpha:.2g}")
    acting = _Figure(name, "heads with an effect shown beyond ±δ", "0")
    words = "attention difference there of the heads that attention picks, as a share of theirs"
    looks = _Figure(name, words, f"at most {LEAK:g}")
    there, others = _asked([pair.wrong_place for pair in pairs])
    count = len(there)
    if count < 2:
        why = "the questions name no side that could be exchanged" if pairs else "no pairs"
        return [figure.untested(why) for figure in (flips, acting, looks)]
    flipped = float(np.mean([other.ld_with * other.ld_without < 0 for other in others]))
    effects = _effects(others, [pairs[index].gap for index in there])
    beyond = np.abs(significant_sign(effects, rule)).max(0)
    named = ", ".join(str(Head(int(a), int(b))) for a, b in np.argwhere(beyond)[:5])
    leak = _attention_again(others, attention[there], picked)
    return [
        flips.judged(flipped, flipped <= rule.alpha, count),
        acting.judged(float(beyond.sum()), not beyond.any(), count, named),
        looks.judged(leak, leak <= LEAK, count),
    ]


def _mirrored(
    pairs: Sequence[PairRecord],
    attention: Float[np.ndarray, "pairs layers heads"],
    picked: Sequence[Head],
    chosen: Sequence[Head],
    rule: Rule,
) -> list[Null]:
    """Mirror pictures, region and question: the same heads must do the same at the new place."""
    name, half = "mirrored", f"at least {SAME:g}"
    flips = _Figure(name, "share of pairs whose answer flips", f"at least {rule.level:.2g}")
    acting = _Figure(name, "effect of the chosen heads, as a share of theirs", half)
    words = "attention difference of the heads that attention picks, as a share of theirs"
    looks = _Figure(name, words, half)
    there, others = _asked([pair.mirrored for pair in pairs])
    count = len(there)
    if count < 2:
        why = "the questions and regions have no side to mirror" if pairs else "no pairs"
        return [figure.untested(why) for figure in (flips, acting, looks)]
    flipped = float(np.mean([other.ld_with > 0 > other.ld_without for other in others]))
    again = _attention_again(others, attention[there], picked)
    judged = [
        flips.judged(flipped, flipped >= rule.level, count),
        looks.judged(again, again >= SAME, count),
    ]
    if not chosen:
        return [*judged, acting.untested("no head's effect reached δ where heads are chosen")]
    ways = [f"resample_{way}" for way in DIRECTIONS]
    before = np.stack([[pairs[index].effects[way] for way in ways] for index in there])
    after = _effects(others, [pairs[index].gap for index in there])
    kept = _share(_at(after, chosen), _at(before, chosen))
    return [*judged, acting.judged(kept, kept >= SAME, count)]


def _unread(pairs: Sequence[PairRecord]) -> Null:
    words = "largest effect of vision layers that do not reach the language model (logits)"
    figure = _Figure("unread vision layers", words, "exactly 0")
    effects = [pair.unread for pair in pairs if not np.isnan(pair.unread)]
    if not effects:
        return figure.untested("every vision layer is read, or none can be changed")
    return figure.judged(max(effects), max(effects) == 0, len(effects))


def _random(
    random_effects: Float[np.ndarray, "sets pairs"],
    chosen_effect: Float[np.ndarray, " pairs"] | None,
    rule: Rule,
) -> Null:
    words = "p that random heads of the same layers do as much as the chosen heads"
    figure = _Figure("random heads", words, f"below {rule.alpha:.2g}")
    count = len(random_effects)
    least = 2 / (count + 1)
    if chosen_effect is None:
        return figure.untested("no head's effect reached δ where heads are chosen")
    if least >= rule.alpha:
        return figure.untested(f"{count} other sets in these layers: too few to tell")
    p = rank_of(float(chosen_effect.mean()), random_effects.mean(1))
    note = f"beats all {count} (p = {p:.2g}, the least that {count} can give)" if p <= least else ""
    return figure.judged(p, p < rule.alpha, random_effects.shape[1], note)


def _asked(
    others: Sequence[Other | None],
) -> tuple[list[int], list[Other]]:
    """Places of the pairs that were asked otherwise, and what came of it."""
    there = [index for index, other in enumerate(others) if other is not None]
    return there, [other for other in others if other is not None]


def _effects(
    others: Sequence[Other], gaps: Sequence[float]
) -> Float[np.ndarray, "pairs ways layers heads"]:
    """Normalized effects of pairs asked otherwise; `gaps`: LD differences as first asked."""
    effects = np.stack([np.stack([-other.noising, other.denoising]) for other in others])
    return np.asarray(effects / np.array(gaps)[:, None, None, None])


def _attention_again(
    others: Sequence[Other],
    before: Float[np.ndarray, "pairs layers heads"],
    picked: Sequence[Head],
) -> float:
    """How much of the picked heads' attention difference is there, asked otherwise."""
    after = np.stack([other.attention for other in others])
    return _share(_at(after, picked), _at(before, picked))


def _at(
    values: Float[np.ndarray, "pairs *ways layers heads"], heads: Sequence[Head]
) -> Float[np.ndarray, "*ways some"]:
    """Means over pairs at some heads."""
    layer, head = [one.layer for one in heads], [one.head for one in heads]
    return np.asarray(values.mean(0)[..., layer, head])


def _share(again: Float[np.ndarray, "*shape"], before: Float[np.ndarray, "*shape"]) -> float:
    """How much of the values' size is found again with the same signs."""
    whole = float(np.abs(before).sum())
    return float((np.sign(before) * again).sum() / whole) if whole > 0 else float("nan")
