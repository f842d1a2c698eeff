r"""How heads act together: what changing two of them does beyond changing each alone.

With Δ(S) the normalized effect of changing the heads S together,

.. math:: I(a, b) = Δ(a, b) - Δ(a) - Δ(b).

What its sign means depends on the direction. Noising (is it necessary?): I > 0 if each stands in
for the other, so that neither is missed alone (either-or); I < 0 if losing one is already losing
both (both needed, or in series). Denoising (is it sufficient?): I > 0 if only both together bring
the answer (both needed); I < 0 if one brings what the other would (either-or, or in series). So:

- ``redundancy``: either would do. I > 0 noising, I < 0 denoising.
- ``synergy``: both are needed. I < 0 noising, I > 0 denoising.
- ``opposed``: of two that interact, one is shown to carry the answer (Δ > δ) and the other to work
  against it (Δ < -δ): neither word fits.
- ``independence``: I is *shown* to lie within ±δ.
- ``undecided``: neither is shown.

The two directions together tell more (`together`): redundancy in both, either would do; synergy in
both, both are needed; redundancy noising and synergy denoising, a threshold that neither crosses
alone; synergy noising and redundancy denoising, in series (one reads what the other writes) or two
copies of one thing. Where heads work against the answer (Δ < 0), the signs turn round.

δ is the study's smallest effect of interest; what is shown, `headpatch.analyses.combine.evidence`
says.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pandas as pd

from headpatch.analyses.combine.evidence import Evidence, Seen
from headpatch.analyses.combine.one import Effects, Plan
from headpatch.engine.interventions import Direction
from headpatch.heads import HeadSet
from headpatch.study import Study

Word = Literal["redundancy", "synergy", "opposed", "independence", "undecided"]


@dataclass(frozen=True, eq=False)
class Combinations:
    """What `judge` found.

    Attributes
    ----------
    table
        A row for each set × kind × direction: the columns of ``combinations.csv``.
    noise_floor
        In logits, the largest over all pairs.
    pairs
        Over which effects are averaged.
    """

    table: pd.DataFrame
    noise_floor: float
    pairs: int

    def largest(self, count: int) -> pd.DataFrame:
        """Return, for each way, the pairs of heads with the largest interactions."""
        two = self.table[self.table["role"] == "pair"]
        size = two["interaction"].abs().sort_values(ascending=False, kind="stable")
        return two.loc[size.index].groupby(["kind", "direction"], sort=False).head(count)

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

    def summary(self, valid: bool = True) -> str:
        """Say what the largest interaction is, and no more than is shown."""
        two = self.table[self.table["role"] == "pair"]
        counts = two.groupby(["direction", "word"], sort=False).size()
        listed = "; ".join(
            f"{direction} "
            + ", ".join(f"{count} {word}" for word, count in counts[direction].items())
            for direction in dict.fromkeys(two["direction"])
        )
        size = two["interaction"].abs()
        words = f"{two['heads'].nunique()} pairs of heads: {listed}."
        if size.notna().any():
            largest = two["heads"].iloc[int(np.nanargmax(size.to_numpy(dtype=np.float64)))]
            words += f" {self._largest(str(largest))}"
        if not valid:
            return f"{words} The study is INVALID (the answers do not flip): this says nothing."
        if self.pairs == 1:
            return f"{words} One pair of pictures shows one case, not a rule."
        return f"{words} Means over {self.pairs:,} pairs of pictures."

    def _largest(self, heads: str) -> str:
        """Describe one pair of heads in every way it was changed."""
        rows = self.table[self.table["heads"] == heads].to_dict("records")
        parts = [
            f"{row['kind']} {row['direction']} {row['normalized']:+.1%} together, "
            f"{row['sum']:+.1%} alone and added up ({row['word']})"
            for row in rows
        ]
        words = {row["direction"]: row["word"] for row in rows if row["kind"] == rows[0]["kind"]}
        both = together(words.get("noising", "undecided"), words.get("denoising", "undecided"))
        return f"The largest interaction, {heads}: {'; '.join(parts)}{f': {both}' if both else ''}."


def judge(study: Study, plan: Plan, found: Sequence[Effects]) -> Combinations:
    """Say what is shown of every set, over one pair or many.

    Parameters
    ----------
    found
        One for each pair of pictures. Those without a difference in LD are left out of what is
        normalized.

    Raises
    ------
    ValueError
        If there is none.
    """
    kept = [one for one in found if np.isfinite(one.normalized).all()] or list(found)
    seen = Seen.of(plan, kept)
    evidence = Evidence.of(study, plan, seen, kept)
    rows = [
        _row(plan, way, index, seen, evidence)
        for way in range(len(plan.ways))
        for index in range(len(plan.sets))
    ]
    table = pd.DataFrame(rows)
    table.insert(4, "positions", study.combine.positions)
    table["pairs"] = len(kept)
    return Combinations(table, max(one.floor for one in found), len(kept))


def _row(plan: Plan, way: int, index: int, seen: Seen, shown_as: Evidence) -> dict[str, Any]:
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
        "low": shown_as.effect_low[way, index],
        "high": shown_as.effect_high[way, index],
        "sum": effect[index] - interaction[index],
    }
    if role == "head":
        return row
    alone = [plan.heads.index(head) for head in members]
    signs = shown_as.effect_sign[way, alone]
    return row | {
        "interaction": interaction[index],
        "interaction_low": shown_as.low[way, index],
        "interaction_high": shown_as.high[way, index],
        "interaction_logits": seen.interaction_logits[:, way, index].mean(),
        "q": shown_as.q[way, index],
        "word": word(
            direction,
            int(shown_as.sign[way, index]),
            bool(shown_as.small[way, index]),
            against=bool(2 * effect[index] < interaction[index]),
            opposed=role == "pair" and bool(signs.min() * signs.max() < 0),
        ),
    }


def word(direction: Direction, sign: int, small: bool, against: bool, opposed: bool) -> Word:
    """Name an interaction; see the module.

    Parameters
    ----------
    sign
        Of an interaction that is shown to lie beyond ±δ; 0 if neither is shown.
    small
        Whether it is shown to lie within ±δ.
    against
        Whether the heads work against the answer: Δ together plus Δ alone is negative.
    opposed
        Whether they are shown to work in opposite directions.
    """
    if sign == 0:
        return "independence" if small else "undecided"
    if opposed:
        return "opposed"
    either = sign * _EITHER[direction] * (-1 if against else 1)
    return "redundancy" if either > 0 else "synergy"


def together(noising: Word, denoising: Word) -> str:
    """Say in words what the two directions show of a pair of heads; empty if nothing together."""
    return _TOGETHER.get((noising, denoising), "")


_TOGETHER: Mapping[tuple[Word, Word], str] = {
    ("redundancy", "redundancy"): "either would do",
    ("synergy", "synergy"): "both are needed",
    ("redundancy", "synergy"): "a threshold: the answer turns only when both are changed",
    ("synergy", "redundancy"): "in series, or the same thing twice",
    ("independence", "independence"): "independent",
}
_EITHER: Mapping[Direction, int] = {"noising": 1, "denoising": -1}  # sign of I if either would do
