r"""What heads do together beyond what each does alone: interactions of two, redundant sets.

**Two heads.** With Δ(S) the normalized effect of changing the heads S together,

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

The two directions together tell more: redundancy in both, either would do; synergy in both, both
are needed; redundancy noising and synergy denoising, a threshold that neither crosses alone;
synergy noising and redundancy denoising, in series (one reads what the other writes) or two copies
of one thing. Where heads work against the answer (Δ < 0), the signs turn round.

**Sets.** With N(S) the necessity of the heads S noised together, a member h of a set S adds, once
the others are gone,

.. math:: e(h, S) = N(S) - N(S \setminus h) - N(h)

more than it does alone: its *excess*. Of two heads both have the same, N(ab) - N(a) - N(b). A set
does more together than alone, column ``redundant``, if it is shown to be necessary (N(S) above δ)
and *each* of its members is shown to have an excess above δ; a head is redundant only if it is not
necessary alone besides. So no member can be left out: a head that does nothing has no excess in any
set, nor has one whose effect just adds to the others'. All of it must hold, so the largest p
counts (an intersection-union test); q is over all sets that were tested.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import numpy as np
import pandas as pd
from jaxtyping import Float, Int

from headpatch.heads import Head, HeadSet
from headpatch.stats.intervals import interval_by
from headpatch.stats.scenes import by_scene
from headpatch.stats.significance import adjusted, one_sided_test
from headpatch.stats.verdict_labels import Rule

Alone = Float[np.ndarray, "pairs layers heads"]
Necessity = Float[np.ndarray, " pairs"]
Word = Literal["redundancy", "synergy", "opposed", "independence", "undecided"]
_Direction: TypeAlias = Literal["noising", "denoising"]
Joint = Mapping[HeadSet, Necessity]
"""By set of heads: its normalized effect of noising on each pair."""
COLUMNS = ("joint", "joint_low", "joint_high", "excess", "excess_low", "excess_high", "q")


@dataclass(frozen=True, eq=False)
class HeldOutSets:
    """Sets to test for redundancy, on pairs that did not choose them.

    `joint` holds the sets, and what is left of them without each of their heads; `alone` what each
    head does alone on the same pairs.
    """

    sets: Sequence[HeadSet]
    joint: Joint
    alone: Alone
    scenes: Int[np.ndarray, " pairs"] | None = None  # None: each pair is its own
    part: int = 0  # of the pairs: which one chose the sets, from 1; 0: none


def interaction_label(
    direction: _Direction, sign: int, small: bool, against: bool, opposed: bool
) -> Word:
    """Name an interaction; see the module.

    `sign` is that of an interaction shown to lie beyond ±δ, else 0; `small`, whether it is shown to
    lie within. `against`: the heads work against the answer (Δ together plus Δ alone is negative);
    `opposed`: they are shown to work in opposite directions.
    """
    if sign == 0:
        return "independence" if small else "undecided"
    if opposed:
        return "opposed"
    redundant = sign * _EITHER[direction] * (-1 if against else 1)
    return "redundancy" if redundant > 0 else "synergy"


def joint_reading(noising: Word, denoising: Word) -> str:
    """Say in words what the two directions show of a pair of heads; empty if nothing together."""
    return _TOGETHER.get((noising, denoising), "")


_TOGETHER: Mapping[tuple[Word, Word], str] = {
    ("redundancy", "redundancy"): "either would do",
    ("synergy", "synergy"): "both are needed",
    ("redundancy", "synergy"): "a threshold: the answer turns only when both are changed",
    ("synergy", "redundancy"): "in series, or the same thing twice",
    ("independence", "independence"): "independent",
}
_EITHER: Mapping[_Direction, int] = {"noising": 1, "denoising": -1}  # sign of I if either would do


def leave_one_out(members: HeadSet) -> tuple[HeadSet, ...]:
    """Return, for each member of a set, the others."""
    return tuple(HeadSet(tuple(other for other in members if other != head)) for head in members)


def necessity_of(members: HeadSet, joint: Joint, alone: Alone) -> Necessity:
    """Return the necessity of a set, of one head, or of none."""
    if len(members) > 1:
        return joint[members].astype(np.float64)
    columns = [alone[:, head.layer, head.head].astype(np.float64) for head in members]
    return columns[0] if columns else np.zeros(len(alone))


def excesses(members: HeadSet, joint: Joint, alone: Alone) -> Float[np.ndarray, "pairs members"]:
    """Return what each member adds, once the others are gone, beyond what it does alone.

    `joint` holds the set, and what is left of it without each member if that is more than one head.
    """
    whole = necessity_of(members, joint, alone)
    columns = [
        whole - necessity_of(rest, joint, alone) - necessity_of(HeadSet.of(head), joint, alone)
        for head, rest in zip(members, leave_one_out(members), strict=True)
    ]
    return np.stack(columns, 1)


def judge_sets(parts: Sequence[HeldOutSets], rule: Rule) -> pd.DataFrame:
    """Test whether each set of two heads or more is redundant; see the module.

    A row for each set of each part: ``heads``, its joint necessity with its interval, the excess of
    the member whose interval begins lowest, q over all rows, whether it is ``redundant``, which
    ``part`` of the pairs chose it, and on how many others it was judged.
    """
    rows = [[*row, one.part] for one in parts for row in _tested(one, rule)]
    if not rows:
        nothing = pd.DataFrame(columns=["heads", *COLUMNS, "redundant", "part", "pairs"])
        types = dict.fromkeys(COLUMNS, float) | {"redundant": bool, "part": int, "pairs": int}
        return nothing.astype(types)
    table = pd.DataFrame(rows, columns=["heads", *COLUMNS, "pairs", "part"])
    table["q"] = adjusted(table["q"].to_numpy(dtype=np.float64))
    shown = (table["q"] < rule.alpha) & (table["joint_low"] > rule.delta)
    table["redundant"] = shown & (table["excess_low"] > rule.delta)
    return table[["heads", *COLUMNS, "redundant", "part", "pairs"]]


def _tested(one: HeldOutSets, rule: Rule) -> Iterator[list[Any]]:
    """Give each set's figures, with p in the place of q."""
    if any(len(members) < 2 for members in one.sets):
        raise ValueError("a set that is tested holds two heads or more")
    if not one.sets:
        return
    values = [
        np.column_stack([one.joint[members], excesses(members, one.joint, one.alone)])
        for members in one.sets
    ]
    joined = by_scene(np.concatenate(values, 1), one.scenes)
    found = interval_by(joined, rule)
    p = one_sided_test(joined, rule.delta)
    start = 0
    for members, columns in zip(one.sets, values, strict=True):
        end = start + columns.shape[1]
        least = start + 1 + int(found.low[start + 1 : end].argmin())
        figures = [
            ends[place] for place in (start, least) for ends in (found.mean, found.low, found.high)
        ]
        yield [str(members), *figures, p[start:end].max(), len(columns)]
        start = end


def partners(sets: pd.DataFrame) -> dict[Head, tuple[HeadSet, ...]]:
    """By head of a redundant set: the others of each, the fewest and most necessary first."""
    found: dict[Head, dict[HeadSet, None]] = {}
    kept = sets[sets["redundant"]].sort_values("joint", ascending=False, kind="stable")
    for members in sorted(map(HeadSet.parse, kept["heads"]), key=len):
        for head, rest in zip(members, leave_one_out(members), strict=True):
            found.setdefault(head, {})[rest] = None
    return {head: tuple(others) for head, others in found.items()}
