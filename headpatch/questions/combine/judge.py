"""What is shown of heads together: what changing two does beyond changing each alone.

What an interaction's sign means, and which words it gets: `headpatch.stats.interactions`.

On one pair nothing is estimated: an interaction is known up to rounding, three times the noise
floor, and says nothing of other pairs. Over many pairs the pair is the unit: intervals over pairs,
and q-values over all combinations that were tried. δ is the study's smallest effect of interest.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float, Int

from headpatch.core.decision_rule import rule
from headpatch.core.study import Study
from headpatch.heads import HeadSet
from headpatch.present.head_columns import with_alpha, with_head_columns
from headpatch.questions.combine.effects import Effects, Plan
from headpatch.questions.combine.view import largest
from headpatch.stats.interactions import interaction_label
from headpatch.stats.intervals import mean_interval
from headpatch.stats.significance import adjusted, equivalence_test, minimum_effect_test
from headpatch.stats.verdicts import significant_sign


@dataclass(frozen=True, eq=False)
class Combinations:
    """What `judge` found.

    Attributes
    ----------
    table
        A row for each set × kind × direction: the columns of ``combinations.csv``.
    noise_floor
        In logits, the largest over all pairs; see `headpatch.core.noise_floor.floor_of`.
    pairs
        Over which effects are averaged.
    """

    table: pd.DataFrame
    noise_floor: float
    pairs: int

    def largest(self, count: int) -> pd.DataFrame:
        """Return, for each way, the pairs of heads with the largest interactions."""
        return largest(self.table, count)

    @property
    def repaired(self) -> tuple[HeadSet, ...]:
        """The sets whose self-repair is of interest: heads alone, each way's first pair, all."""
        roles = self.table["role"]
        names = [
            *self.table.loc[roles == "head", "heads"],
            *self.largest(1)["heads"],
            *self.table.loc[roles == "all", "heads"],
        ]
        return tuple(HeadSet.parse(name) for name in dict.fromkeys(map(str, names)))


def judge(study: Study, plan: Plan, measured: Sequence[Effects]) -> Combinations:
    """Say what is shown of every set, over one pair or many.

    Parameters
    ----------
    measured
        One for each pair of pictures. Those without a difference in LD are left out of what is
        normalized.

    Raises
    ------
    ValueError
        If there is none.
    """
    kept = [one for one in measured if np.isfinite(one.normalized).all()] or list(measured)
    seen = _Seen.of(plan, kept)
    evidence = _one_pair(study, plan, seen, kept[0]) if len(kept) == 1 else _many(study, plan, seen)
    rows = [
        _row(plan, way, index, seen, evidence)
        for way in range(len(plan.ways))
        for index in range(len(plan.sets))
    ]
    table = pd.DataFrame(rows)
    table.insert(4, "positions", study.combine.positions)
    table["pairs"] = len(kept)
    table = with_alpha(table, study.combine.alpha)
    return Combinations(with_head_columns(table), max(one.floor for one in measured), len(kept))


@dataclass(frozen=True, eq=False)
class _Seen:
    """Effects of every set, and what they have beyond the heads' own effects added up."""

    effect: Float[np.ndarray, "pairs ways sets"]
    interaction: Float[np.ndarray, "pairs ways sets"]
    logits: Float[np.ndarray, "pairs ways sets"]
    interaction_logits: Float[np.ndarray, "pairs ways sets"]

    @classmethod
    def of(cls, plan: Plan, measured: Sequence[Effects]) -> "_Seen":
        """Put together what was measured of each pair of pictures."""
        effect = np.stack([one.normalized for one in measured])
        logits = np.stack([one.logits for one in measured])
        singles, members = slice(len(plan.heads)), plan.members.T
        return cls(
            effect,
            effect - effect[..., singles] @ members,
            logits,
            logits - logits[..., singles] @ members,
        )


@dataclass(frozen=True, eq=False)
class _Evidence:
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


def _one_pair(study: Study, plan: Plan, seen: _Seen, one: Effects) -> _Evidence:
    """On one pair everything is known up to rounding."""
    delta, size = study.verdict.delta, plan.members.sum(1)
    rounding = one.floor / abs(one.gap) if one.gap else np.inf
    effect, interaction = seen.effect[0], seen.interaction[0]
    slack = np.where(size > 1, rounding * (1 + size), 0.0)  # n heads make n + 1 effects
    low, high = interaction - slack, interaction + slack
    return _Evidence(
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


def _many(study: Study, plan: Plan, seen: _Seen) -> _Evidence:
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
    return _Evidence(
        effect.low,
        effect.high,
        interaction.low,
        interaction.high,
        significant_sign(seen.effect, by),
        sign.astype(int),
        small.astype(bool),
        q,
    )


def _row(plan: Plan, way: int, index: int, seen: _Seen, evidence: _Evidence) -> dict[str, Any]:
    members, (kind, direction) = plan.sets[index], plan.ways[way]
    effect, interaction = seen.effect[:, way].mean(0), seen.interaction[:, way].mean(0)
    role = "head" if len(members) == 1 else "pair" if len(members) == 2 else "all"
    row = {
        "heads": str(members),
        "role": role,
        "kind": kind,
        "direction": direction,
        "effect": seen.logits[:, way, index].mean(),
        "normalized": effect[index],
        "low": evidence.effect_low[way, index],
        "high": evidence.effect_high[way, index],
        "sum": effect[index] - interaction[index],
    }
    if role == "head":
        return row
    alone = [plan.heads.index(head) for head in members]
    signs = evidence.effect_sign[way, alone]
    return row | {
        "interaction": interaction[index],
        "interaction_low": evidence.low[way, index],
        "interaction_high": evidence.high[way, index],
        "interaction_logits": seen.interaction_logits[:, way, index].mean(),
        "q": evidence.q[way, index],
        "word": interaction_label(
            direction,
            int(evidence.sign[way, index]),
            bool(evidence.small[way, index]),
            against=bool(2 * effect[index] < interaction[index]),
            opposed=role == "pair" and bool(signs.min() * signs.max() < 0),
        ),
    }
