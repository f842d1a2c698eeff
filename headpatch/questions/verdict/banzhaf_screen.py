r"""What each head adds once others are gone: random sets of heads, noised together.

A head that others stand in for does little alone, so no ranking of effects alone need show it. Here
random sets are noised, half or a quarter of all heads, other ones in each pair. With N(S) the
normalized effect of noising the heads S together, the excess of a set is N(S) less the sum of its
heads' own effects, and a head's *score* is the mean excess of the sets with it, less that of the
sets without it: what it adds on average, once others are gone, beyond what it does alone (its
Banzhaf value less its own effect; J. F. Banzhaf, Weighted voting doesn't work, Rutgers Law Review
19, 1965). A head whose effect just adds to the others' scores 0; each of k heads of which one would
do scores N(S) / 2^(k-1) among the halves.
"""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Float

from headpatch.heads import Grid, HeadSet

SHARES = (1 / 2, 1 / 4)
"""Of all heads, in a random set: they take turns."""
Members = Bool[np.ndarray, "sets every_head"]
"""Which heads belong to which set."""


def random_members(grid: Grid, count: int, seed: int, place: int) -> Members:
    """Draw the random sets of a pair; none is empty.

    Parameters
    ----------
    place
        Of the pair among those that choose: each has sets of its own.
    """
    rng = np.random.default_rng([seed % 2**64, 4, place])  # numpy takes no negative seed
    heads = grid.layers * grid.heads
    members = rng.random((count, heads)) < np.resize(SHARES, count)[:, None]
    empty = ~members.any(1)
    members[empty, rng.integers(heads, size=empty.sum())] = True
    return members


def as_sets(grid: Grid, members: Members) -> tuple[HeadSet, ...]:
    """Return the sets by the names of their heads."""
    heads = list(grid)
    return tuple(HeadSet(tuple(heads[index] for index in np.flatnonzero(row))) for row in members)


def scores(
    members: Sequence[Members],
    effects: Sequence[Float[np.ndarray, " sets"]],
    alone: Float[np.ndarray, "pairs layers heads"],
) -> Float[np.ndarray, "layers heads"]:
    """Score every head; see the module.

    Parameters
    ----------
    members, effects
        Of each pair: its random sets, as `random_members` drew them, and what noising each did.
    alone
        What noising each head alone did.

    Returns
    -------
    The larger of the scores among the halves and among the quarters; normalized units.
    """
    own = alone.reshape(len(alone), -1)
    found = []
    for turn, share in enumerate(SHARES):
        together, count = np.zeros(own.shape[1]), 0
        for drawn, noised, single in zip(members, effects, own, strict=True):
            here = drawn[turn :: len(SHARES)].astype(np.float64)
            if len(here):
                excess = noised[turn :: len(SHARES)] - here @ single
                together += (excess - excess.mean()) @ here  # pairs differ in their mean excess
                count += len(here)
        found.append(together / (max(count, 1) * share * (1 - share)))
    return np.asarray(np.max(found, axis=0)).reshape(alone.shape[1:])
