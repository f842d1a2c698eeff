r"""Heads that stand in for one another: sets of them, sought on the pairs that choose.

A set is worth judging if each of its heads is needed: its excess N(S) - N(S \\ h) - N(h), what it
adds once the others are gone beyond what it does alone, lies above δ (N: the normalized effect of
noising heads together). Where three heads stand in for one another no two of them show any. So it
goes from many to few:

- *Pool.* The heads that add most once others are gone (`scores`), and those with the largest
  effects alone. Every two of them are noised together.
- *Shrink.* The pool is noised together, and without each of its heads. Of the heads whose excess
  is not clearly above δ the half with the lowest scores leaves, and so on, until each that is left
  is needed.
- *Take apart.* Heads a and b of what is left act together if N(S) - N(S \\ a) - N(S \\ b) +
  N(S \\ ab) clearly differs from 0 by more than δ. Parts between which no two heads do, and whose
  necessities add up to N(S), are sets of their own.

Of what is found, the heads that are needed most surely make a further set: one weak member fails a
whole set where it is judged. Then what is left of the pool is searched again. Nothing of this is a
test: what is found is judged on other pairs (`headpatch.stats.interactions`).
"""

from collections.abc import Callable, Iterator, Sequence
from itertools import combinations, compress

import numpy as np
from jaxtyping import Bool, Float
from scipy.sparse.csgraph import connected_components

from headpatch.heads import Grid, Head, HeadSet
from headpatch.questions.verdict.pair_record import PerHead, PerPair
from headpatch.stats.interactions import excesses, leave_one_out, necessity_of
from headpatch.stats.rankings import descending

_PASSES = 3  # over what is left of the pool
_SURER = 2.0  # standard errors; a set of which each head is needed by so many is judged as well
SHARES = (1 / 2, 1 / 4)
"""Of all heads, in a random set: they take turns."""
Members = Bool[np.ndarray, "sets every_head"]
"""Which heads belong to which set."""
Noise = Callable[[Sequence[HeadSet]], Float[np.ndarray, "pairs sets"]]
"""Noises sets of two heads or more, on the same pairs each time."""


def random_members(grid: Grid, count: int, seed: int, place: int) -> Members:
    """Draw the random sets of the pair at a place among those that choose; none is empty."""
    rng = np.random.default_rng([seed % 2**64, 4, place])  # numpy takes no negative seed
    heads = len(grid)
    members = rng.random((count, heads)) < np.resize(SHARES, count)[:, None]
    empty = ~members.any(1)
    members[empty, rng.integers(heads, size=empty.sum())] = True
    return members


def as_sets(grid: Grid, members: Members) -> tuple[HeadSet, ...]:
    """Return the sets by the names of their heads."""
    heads = list(grid)
    return tuple(HeadSet(tuple(compress(heads, row))) for row in members.tolist())


def scores(
    members: Sequence[Members], effects: Sequence[Float[np.ndarray, " sets"]], alone: PerPair
) -> PerHead:
    """Score every head: what it adds on average, once others are gone, beyond what it does alone.

    A head that others stand in for does little alone, so no ranking of effects alone need show it.
    Here random sets are noised, half or a quarter of all heads, other ones in each pair. With N(S)
    the normalized effect of noising the heads S together, the excess of a set is N(S) less the sum
    of its heads' own effects (`alone`), and a head's *score* is the mean excess of the sets with
    it, less that of the sets without it (its Banzhaf value less its own effect; J. F. Banzhaf,
    Weighted voting doesn't work, Rutgers Law Review 19, 1965). A head whose effect just adds to the
    others' scores 0; each of k heads of which one would do scores N(S) / 2^(k-1) among the halves.

    Returns
    -------
    The larger of the scores among the halves and among the quarters; normalized units.
    """
    own = alone.reshape(len(alone), -1)
    by_share = []
    for turn, share in enumerate(SHARES):
        together, count = np.zeros(own.shape[1]), 0
        for drawn, noised, single in zip(members, effects, own, strict=True):
            sets = drawn[turn :: len(SHARES)].astype(np.float64)
            if len(sets):
                excess = noised[turn :: len(SHARES)] - sets @ single
                together += (excess - excess.mean()) @ sets  # pairs differ in their mean excess
                count += len(sets)
        by_share.append(together / (max(count, 1) * share * (1 - share)))
    return np.asarray(np.max(by_share, axis=0)).reshape(alone.shape[1:])


def pool(grid: Grid, count: int, size: PerHead, score: PerHead | None) -> tuple[Head, ...]:
    """Return the heads among which sets are sought, the highest scores first.

    Half of them by score (`scores`; all without it), half by the size of their effect alone.
    """
    heads = list(grid)
    alone = descending(size)
    if score is None:
        return tuple(heads[index] for index in alone[:count])
    first = descending(score)[: (count + 1) // 2]
    chosen = dict.fromkeys([*first.tolist(), *alone[: count // 2].tolist()])
    return tuple(heads[index] for index in sorted(chosen, key=lambda index: -score.flat[index]))


class Search:
    """Seeks sets of heads that are redundant, where noising them alone does what `alone` holds."""

    def __init__(self, noise: Noise, alone: PerPair, delta: float) -> None:
        self._noise, self._alone, self._delta = noise, alone, delta
        self._joint: dict[HeadSet, Float[np.ndarray, " pairs"]] = {}

    def sets(self, among: Sequence[Head], pairs: int) -> tuple[HeadSet, ...]:
        """Return sets of heads of the pool of which every head is needed, then pairs of heads.

        Of these at most so many: those with the largest excess, where it is above half of δ.
        """
        if len(among) < 2:
            return ()
        every = [HeadSet.of(*two) for two in combinations(among, 2)]
        self._need(every)  # with one visit to the pairs
        larger = dict.fromkeys(self._from_many(among))
        excess = {one: float(self._excess(one)[:, 0].mean()) for one in every}
        two = [one for one in sorted(every, key=lambda one: -excess[one]) if one not in larger]
        return (*larger, *(one for one in two[:pairs] if excess[one] > self._delta / 2))

    def _from_many(self, among: Sequence[Head]) -> Iterator[HeadSet]:
        left = list(among)
        for _ in range(_PASSES):
            needed = self._shrink(left)
            if len(needed) < 2:
                return
            for members in self._apart(needed):
                yield members
                surer = self._shrink([head for head in left if head in members.heads], _SURER)
                if len(surer) > 1:
                    yield HeadSet(tuple(surer))
            left = [head for head in left if head not in needed]

    def _shrink(self, among: Sequence[Head], errors: float = 1.0) -> list[Head]:
        """Let heads leave, the last first, until each that is left is needed.

        By so many standard errors an excess must lie above δ.
        """
        left = list(among)
        while len(left) > 1:
            members = HeadSet(tuple(left))
            low = _low(self._excess(members), errors)
            clearly = dict(zip(members, low, strict=True))
            weak = [head for head in left if clearly[head] <= self._delta]
            if not weak:
                return left
            leaving = weak[len(weak) // 2 :]
            left = [head for head in left if head not in leaving]
        return []

    def _apart(self, needed: Sequence[Head]) -> Iterator[HeadSet]:
        """Take a set apart into those of its heads that act together."""
        members = HeadSet(tuple(needed))
        parts = self._parts(members)
        self._need(parts)
        beyond = self._necessity(members) - sum(map(self._necessity, parts))
        if len(parts) == 1 or abs(beyond.mean()) > self._delta:
            yield members
            return
        for part in parts:
            again = self._shrink([head for head in needed if head in part.heads])
            if len(again) > 1:
                yield HeadSet(tuple(again))

    def _parts(self, members: HeadSet) -> list[HeadSet]:
        """Return the parts of a set between which no two heads act together."""
        heads, whole = members.heads, self._necessity(members)
        two = list(combinations(heads, 2))
        without = {ends: _without(members, *ends) for ends in two}
        self._need([*leave_one_out(members), *without.values()])
        joined = np.zeros((len(heads), len(heads)), dtype=bool)
        for (a, b), rest in without.items():
            lost = self._necessity(_without(members, a)) + self._necessity(_without(members, b))
            interaction = whole - lost + self._necessity(rest)
            size = np.sign(interaction.mean()) * interaction
            joined[heads.index(a), heads.index(b)] = _low(size[:, None])[0] > self._delta
        _, number = connected_components(joined, directed=False)
        parts: dict[int, list[Head]] = {}
        for head, part in zip(heads, number.tolist(), strict=True):
            parts.setdefault(part, []).append(head)
        return [HeadSet(tuple(part)) for part in parts.values()]

    def _necessity(self, members: HeadSet) -> Float[np.ndarray, " pairs"]:
        return necessity_of(members, self._joint, self._alone)

    def _excess(self, members: HeadSet) -> Float[np.ndarray, "pairs members"]:
        self._need([members, *leave_one_out(members)])
        return excesses(members, self._joint, self._alone)

    def _need(self, sets: Sequence[HeadSet]) -> None:
        """Noise what was not noised before."""
        new = [one for one in dict.fromkeys(sets) if len(one) > 1 and one not in self._joint]
        if new:
            self._joint.update(zip(new, self._noise(new).T, strict=True))


def _without(members: HeadSet, *some: Head) -> HeadSet:
    return HeadSet(tuple(head for head in members if head not in some))


def _low(
    values: Float[np.ndarray, "pairs columns"], errors: float = 1.0
) -> Float[np.ndarray, " columns"]:
    """Means over pairs, less so many standard errors: what they clearly are."""
    error = values.std(0, ddof=1) / np.sqrt(len(values))
    return np.asarray(values.mean(0) - errors * error)
