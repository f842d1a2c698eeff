r"""Which heads are necessary only together: what is shown of sets of heads over many pairs.

With N(S) the necessity of the heads S noised together, a member h of a set S adds, once the others
are gone,

.. math:: e(h, S) = N(S) - N(S \setminus h) - N(h)

more than it does alone: its *excess*. Of two heads both have the same, N(ab) - N(a) - N(b). A set
does more together than alone, column ``redundant``, if it is shown to be necessary (N(S) above δ)
and *each* of its members is shown to have an excess above δ; a head is redundant only if it is not
necessary alone besides. So no member can be left out: a head that does nothing has no excess in any
set, nor has one whose effect just adds to the others'. All of it must hold, so the largest p
counts (an intersection-union test); q is over all sets that were tested.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from jaxtyping import Float

from headpatch.heads import Head, HeadSet
from headpatch.stats.intervals import mean_interval
from headpatch.stats.rule import Rule
from headpatch.stats.significance import above, adjusted

Joint = Mapping[HeadSet, Float[np.ndarray, " pairs"]]
"""By set of heads: its normalized effect of noising on each pair."""
COLUMNS = ("joint", "joint_low", "joint_high", "excess", "excess_low", "excess_high", "q")


def rests(members: HeadSet) -> tuple[HeadSet, ...]:
    """Return, for each member of a set, the others."""
    return tuple(HeadSet(tuple(other for other in members if other != head)) for head in members)


def necessity_of(
    members: HeadSet, joint: Joint, alone: Float[np.ndarray, "pairs layers heads"]
) -> Float[np.ndarray, " pairs"]:
    """Return the necessity of a set, of one head, or of none.

    Raises
    ------
    KeyError
        If `joint` lacks the set.
    """
    if len(members) > 1:
        return joint[members].astype(np.float64)
    columns = [alone[:, head.layer, head.head].astype(np.float64) for head in members]
    return columns[0] if columns else np.zeros(len(alone))


def excesses(
    members: HeadSet, joint: Joint, alone: Float[np.ndarray, "pairs layers heads"]
) -> Float[np.ndarray, "pairs members"]:
    """Return what each member adds, once the others are gone, beyond what it does alone.

    Parameters
    ----------
    joint
        Holds the set, and what is left of it without each member if that is more than one head.
    alone
        Necessity of every head alone.

    Raises
    ------
    KeyError
        If a set that is needed is missing.
    """
    whole = necessity_of(members, joint, alone)
    columns = [
        whole - necessity_of(rest, joint, alone) - necessity_of(HeadSet.of(head), joint, alone)
        for head, rest in zip(members, rests(members), strict=True)
    ]
    return np.stack(columns, 1)


def judge_sets(
    tested: Sequence[HeadSet],
    joint: Joint,
    necessity: Float[np.ndarray, "pairs layers heads"],
    rule: Rule,
) -> pd.DataFrame:
    """Test whether each set is redundant; see the module.

    Returns
    -------
    A row for each set: ``heads``, its joint necessity with its interval, the excess of the member
    whose interval begins lowest, q, and whether it is ``redundant``.

    Raises
    ------
    ValueError
        If a set holds fewer than two heads, there are fewer than two pairs, or a value is not
        finite.
    KeyError
        As `excesses`.
    """
    if any(len(members) < 2 for members in tested):
        raise ValueError("a set that is tested holds two heads or more")
    if not tested:
        nothing = pd.DataFrame(columns=["heads", *COLUMNS, "redundant"])
        return nothing.astype(dict.fromkeys(COLUMNS, float) | {"redundant": bool})
    values = [
        np.column_stack([joint[members], excesses(members, joint, necessity)]) for members in tested
    ]
    together = np.concatenate(values, 1)
    rng = np.random.default_rng([rule.seed % 2**64, 0])  # every interval resamples the same pairs
    found = mean_interval(together, rule.level, rule.resamples, rng)
    p = above(together, rule.delta)
    rows, start = [], 0
    for members, columns in zip(tested, values, strict=True):
        end = start + columns.shape[1]
        least = start + 1 + int(found.low[start + 1 : end].argmin())
        figures = [
            ends[place] for place in (start, least) for ends in (found.mean, found.low, found.high)
        ]
        rows.append([str(members), *figures, p[start:end].max()])
        start = end
    table = pd.DataFrame(rows, columns=["heads", *COLUMNS])
    table["q"] = adjusted(table["q"].to_numpy(dtype=np.float64))
    shown = (table["q"] < rule.alpha) & (table["joint_low"] > rule.delta)
    table["redundant"] = shown & (table["excess_low"] > rule.delta)
    return table


def partners(sets: pd.DataFrame) -> dict[Head, tuple[HeadSet, ...]]:
    """By head of a redundant set: the others of each, the fewest and most necessary first.

    Parameters
    ----------
    sets
        Of `judge_sets`.
    """
    found: dict[Head, list[HeadSet]] = {}
    kept = sets[sets["redundant"]].sort_values("joint", ascending=False, kind="stable")
    for members in sorted(map(HeadSet.parse, kept["heads"]), key=len):
        for head, rest in zip(members, rests(members), strict=True):
            found.setdefault(head, []).append(rest)
    return {head: tuple(others) for head, others in found.items()}
