"""How heads act together: what changing two of them does beyond changing each alone.

What its sign means, and which words it gets: `headpatch.stats.interactions`.

δ is the study's smallest effect of interest; what is shown, `headpatch.questions.combine.evidence`
says.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from headpatch.core.study import Study
from headpatch.heads import HeadSet
from headpatch.kinds import kind_label
from headpatch.present.head_columns import with_alpha, with_head_columns
from headpatch.questions.combine.evidence import Evidence, Seen
from headpatch.questions.combine.one import Effects, Plan
from headpatch.stats.interactions import interaction_label, joint_reading


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
            return (
                f"{words} The study is INVALID (its answers are not Yes and No): this says nothing."
            )
        if self.pairs == 1:
            return f"{words} One pair of pictures shows one case, not a rule."
        return f"{words} Means over {self.pairs:,} pairs of pictures."

    def _largest(self, heads: str) -> str:
        """Describe one pair of heads in every way it was changed."""
        rows = self.table[self.table["heads"] == heads].to_dict("records")
        parts = [
            f"{kind_label(row['kind'], row)} {row['direction']} {row['normalized']:+.1%} together, "
            f"{row['sum']:+.1%} alone and added up ({row['word']})"
            for row in rows
        ]
        words = {row["direction"]: row["word"] for row in rows if row["kind"] == rows[0]["kind"]}
        both = joint_reading(words.get("noising", "undecided"), words.get("denoising", "undecided"))
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
    table = with_alpha(table, study.combine.alpha)
    return Combinations(with_head_columns(table), max(one.floor for one in found), len(kept))


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
        "word": interaction_label(
            direction,
            int(shown_as.sign[way, index]),
            bool(shown_as.small[way, index]),
            against=bool(2 * effect[index] < interaction[index]),
            opposed=role == "pair" and bool(signs.min() * signs.max() < 0),
        ),
    }
