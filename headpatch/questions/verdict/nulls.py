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
from headpatch.questions.verdict.pair_record import Other, PairRecord
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


def _verdict(
    null: str, figure: str, value: float, limit: str, fine: bool, pairs: int, note: str = ""
) -> Null:
    return Null(null, figure, value, limit, "passed" if fine else "failed", pairs, note)


def _untested(null: str, figure: str, limit: str, why: str) -> Null:
    return Null(null, figure, float("nan"), limit, "not tested", 0, why)


def _self_patch(nothing: float, pairs: int, rule: Rule) -> Null:
    return _verdict(
        "self-patch",
        "largest normalized effect of patching a head with its own z",
        nothing,
        f"below δ = {rule.delta:g}",
        nothing < rule.delta,
        pairs,
    )


def _wrong_place(
    pairs: Sequence[PairRecord],
    attention: Float[np.ndarray, "pairs layers heads"],
    picked: Sequence[Head],
    rule: Rule,
) -> list[Null]:
    """Ask about a place where the two pictures do not differ: no answer may flip."""
    name = "wrong place"
    figures = {
        "flips": ("share of pairs whose answer flips", f"at most {rule.alpha:.2g}"),
        "heads": ("heads with an effect shown beyond ±δ", "0"),
        "attention": (
            "attention difference there of the heads that attention picks, as a share of theirs",
            f"at most {LEAK:g}",
        ),
    }
    there, others = _asked(pairs, [pair.wrong_place for pair in pairs])
    if len(there) < 2:
        why = "the questions name no side that could be exchanged" if pairs else "no pairs"
        return [_untested(name, *words, why) for words in figures.values()]
    flips = float(np.mean([one.ld_with * one.ld_without < 0 for one in others]))
    gaps = np.array([pairs[index].gap for index in there])[:, None, None, None]
    effects = np.stack([np.stack([-one.noising, one.denoising]) for one in others]) / gaps
    beyond = np.abs(significant_sign(effects, rule)).max(0)
    named = ", ".join(str(Head(int(a), int(b))) for a, b in np.argwhere(beyond)[:5])
    leak = _share(
        _at(np.stack([one.attention for one in others]), picked), _at(attention[there], picked)
    )
    return [
        _verdict(name, *_and(figures["flips"], flips), flips <= rule.alpha, len(there)),
        _verdict(
            name, *_and(figures["heads"], float(beyond.sum())), not beyond.any(), len(there), named
        ),
        _verdict(name, *_and(figures["attention"], leak), leak <= LEAK, len(there)),
    ]


def _mirrored(
    pairs: Sequence[PairRecord],
    attention: Float[np.ndarray, "pairs layers heads"],
    picked: Sequence[Head],
    chosen: Sequence[Head],
    rule: Rule,
) -> list[Null]:
    """Mirror pictures, region and question: the same heads must do the same at the new place."""
    name = "mirrored"
    figures = {
        "flips": ("share of pairs whose answer flips", f"at least {rule.level:.2g}"),
        "effect": ("effect of the chosen heads, as a share of theirs", f"at least {SAME:g}"),
        "attention": (
            "attention difference of the heads that attention picks, as a share of theirs",
            f"at least {SAME:g}",
        ),
    }
    there, others = _asked(pairs, [pair.mirrored for pair in pairs])
    if len(there) < 2:
        why = "the questions and regions have no side to mirror" if pairs else "no pairs"
        return [_untested(name, *words, why) for words in figures.values()]
    flipped = [one.ld_with > 0 > one.ld_without for one in others]
    flips = float(np.mean(flipped))
    looks = _share(
        _at(np.stack([one.attention for one in others]), picked), _at(attention[there], picked)
    )
    found = [
        _verdict(name, *_and(figures["flips"], flips), flips >= rule.level, len(there)),
        _verdict(name, *_and(figures["attention"], looks), looks >= SAME, len(there)),
    ]
    if not chosen:
        why = "no head's effect reached δ where heads are chosen"
        return [*found, _untested(name, *figures["effect"], why)]
    ways = ("noising", "denoising")
    before = np.stack(
        [[pairs[index].effects[f"resample_{way}"] for way in ways] for index in there]
    )
    gaps = np.array([pairs[index].gap for index in there])[:, None, None, None]
    after = np.stack([np.stack([-one.noising, one.denoising]) for one in others]) / gaps
    again = _share(_at(after, chosen), _at(before, chosen))
    return [
        *found,
        _verdict(name, *_and(figures["effect"], again), again >= SAME, len(there)),
    ]


def _unread(pairs: Sequence[PairRecord]) -> Null:
    words = (
        "unread vision layers",
        "largest effect of vision layers that do not reach the language model (logits)",
    )
    found = [pair.unread for pair in pairs if not np.isnan(pair.unread)]
    if not found:
        return _untested(*words, "exactly 0", "every vision layer is read, or none can be changed")
    return _verdict(*words, max(found), "exactly 0", max(found) == 0, len(found))


def _random(
    random_effects: Float[np.ndarray, "sets pairs"],
    chosen_effect: Float[np.ndarray, " pairs"] | None,
    rule: Rule,
) -> Null:
    words = (
        "random heads",
        "p that random heads of the same layers do as much as the chosen heads",
        f"below {rule.alpha:.2g}",
    )
    least = 2 / (len(random_effects) + 1)
    if chosen_effect is None:
        return _untested(*words, "no head's effect reached δ where heads are chosen")
    if least >= rule.alpha:
        why = f"{len(random_effects)} other sets in these layers: too few to tell"
        return _untested(*words, why)
    p = rank_of(float(chosen_effect.mean()), random_effects.mean(1))
    count = len(random_effects)
    note = f"beats all {count} (p = {p:.2g}, the least that {count} can give)" if p <= least else ""
    return _verdict(*words[:2], p, words[2], p < rule.alpha, random_effects.shape[1], note)


def _asked(
    pairs: Sequence[PairRecord], others: Sequence[Other | None]
) -> tuple[list[int], list[Other]]:
    """Places of the pairs that were asked otherwise, and what came of it."""
    there = [index for index, one in enumerate(others) if one is not None]
    return there, [one for one in others if one is not None]


def _and(words: tuple[str, str], value: float) -> tuple[str, float, str]:
    return words[0], value, words[1]


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
