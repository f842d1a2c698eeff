"""What is shown of effects and interactions of heads, over one pair of pictures or many.

On one pair nothing is estimated: an interaction is known up to rounding, three times the noise
floor, and says nothing of other pairs. Over many pairs the pair is the unit: intervals over pairs,
and q-values over all combinations that were tried.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int

from headpatch.core.decision_rule import rule
from headpatch.core.study import Study
from headpatch.questions.combine.one import Effects, Plan
from headpatch.stats.intervals import mean_interval
from headpatch.stats.significance import adjusted, equivalence_test, minimum_effect_test
from headpatch.stats.verdicts import significant_sign


@dataclass(frozen=True, eq=False)
class Seen:
    """Effects of every set, and what they have beyond the heads' own effects added up."""

    effect: Float[np.ndarray, "pairs ways sets"]
    interaction: Float[np.ndarray, "pairs ways sets"]
    logits: Float[np.ndarray, "pairs ways sets"]
    interaction_logits: Float[np.ndarray, "pairs ways sets"]

    @classmethod
    def of(cls, plan: Plan, found: Sequence[Effects]) -> "Seen":
        """Put together what was measured of each pair of pictures."""
        effect = np.stack([one.normalized for one in found])
        logits = np.stack([one.logits for one in found])
        singles, members = slice(len(plan.heads)), plan.members.T
        return cls(
            effect,
            effect - effect[..., singles] @ members,
            logits,
            logits - logits[..., singles] @ members,
        )


@dataclass(frozen=True, eq=False)
class Evidence:
    """What is shown of effects and interactions: intervals, and signs.

    Attributes
    ----------
    effect_sign
        Of an effect that is shown to lie beyond ±δ.
    sign, small
        Of an interaction that is shown to lie beyond ±δ; and whether one is shown to lie within.
    q
        Of the interaction's difference from 0; NaN on one pair.
    """

    effect_low: Float[np.ndarray, "ways sets"]
    effect_high: Float[np.ndarray, "ways sets"]
    low: Float[np.ndarray, "ways sets"]
    high: Float[np.ndarray, "ways sets"]
    effect_sign: Int[np.ndarray, "ways sets"]
    sign: Int[np.ndarray, "ways sets"]
    small: Bool[np.ndarray, "ways sets"]
    q: Float[np.ndarray, "ways sets"]

    @classmethod
    def of(cls, study: Study, plan: Plan, seen: Seen, found: Sequence[Effects]) -> "Evidence":
        """Say what is shown, over one pair of pictures or many."""
        if len(found) == 1:
            return _one_pair(study, plan, seen, found[0])
        return _many(study, plan, seen)


def _one_pair(study: Study, plan: Plan, seen: Seen, one: Effects) -> Evidence:
    """On one pair everything is known up to rounding."""
    delta, size = study.verdict.delta, plan.members.sum(1)
    rounding = one.floor / abs(one.gap) if one.gap else np.inf
    effect, interaction = seen.effect[0], seen.interaction[0]
    slack = np.where(size > 1, rounding * (1 + size), 0.0)  # n heads make n + 1 effects
    low, high = interaction - slack, interaction + slack
    return Evidence(
        effect - rounding,
        effect + rounding,
        low,
        high,
        _side(effect - rounding, effect + rounding, delta),
        _side(low, high, delta),
        np.maximum(-low, high) < delta,
        np.full_like(effect, np.nan),
    )


def _side(
    low: Float[np.ndarray, "*shape"], high: Float[np.ndarray, "*shape"], delta: float
) -> Int[np.ndarray, "*shape"]:
    return np.asarray((low > delta).astype(int) - (high < -delta).astype(int))


def _many(study: Study, plan: Plan, seen: Seen) -> Evidence:
    """Over pairs: intervals, and tests that are corrected over all sets and ways together."""
    options, by = study.pairs, rule(study)
    effect, interaction = (
        mean_interval(
            values, options.level, options.resamples, np.random.default_rng(study.seed % 2**64)
        )  # numpy takes no negative seed
        for values in (seen.effect, seen.interaction)
    )
    together = seen.interaction[..., len(plan.heads) :]  # a head alone does not interact
    sign, small, q = np.zeros((3, len(plan.ways), len(plan.sets)))
    there = slice(len(plan.heads), None)
    sign[:, there] = significant_sign(together, by)
    small[:, there] = adjusted(equivalence_test(together, by.delta)) < by.alpha
    q[:, there] = adjusted(minimum_effect_test(together))
    return Evidence(
        effect.low,
        effect.high,
        interaction.low,
        interaction.high,
        significant_sign(seen.effect, by),
        sign.astype(int),
        small.astype(bool),
        q,
    )
