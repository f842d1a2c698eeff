"""Effects by the levels of a dataset's factors: a head may act for circles and not for squares.

For each head and direction, the pairs of a factor's levels are compared by the Kruskal-Wallis test
(W. H. Kruskal and W. A. Wallis, JASA 47, 1952), which asks nothing of the distribution, and q is
taken over all heads, directions and factors (Benjamini-Hochberg). An effect *depends on a factor*
if q < α and the means of two levels are shown to differ by more than δ: their intervals, at the
level 1 - α over the number of levels, lie so far apart.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy.stats import chi2, rankdata

from headpatch.stats.intervals import Interval, interval_by
from headpatch.stats.resampling import by_columns
from headpatch.stats.scenes import by_scene
from headpatch.stats.significance import adjusted
from headpatch.stats.verdict_labels import Rule

Values = Float[np.ndarray, "pairs *rest"]
FEWEST = 5
"""Pairs that a level needs to be compared; levels with fewer are left out."""
MOST = 12
"""Levels; a column with more is a name or a number, not a factor."""


@dataclass(frozen=True, eq=False)
class Level:
    """The pairs of one level of a factor, and the intervals of their means."""

    name: str
    pairs: int
    effect: Interval


@dataclass(frozen=True, eq=False)
class Dependence:
    """How effects depend on one factor."""

    factor: str
    levels: tuple[Level, ...]
    q: Float[np.ndarray, "*rest"]
    shown: Bool[np.ndarray, "*rest"]


def factor_levels(cells: Sequence[str]) -> dict[str, Int[np.ndarray, " some"]]:
    """Return the places of each level's pairs; none where the column is no factor to compare by."""
    names = sorted(set(cells))
    if len(names) > MOST:
        return {}
    column = np.asarray(cells, dtype=object)
    places = {name: np.flatnonzero(column == name) for name in names}
    kept = {name: at for name, at in places.items() if len(at) >= FEWEST}
    return kept if len(kept) > 1 else {}


def dependences(
    values: Values,
    factors: Mapping[str, Sequence[str]],
    rule: Rule,
    scenes: Int[np.ndarray, " pairs"] | None = None,
) -> tuple[Dependence, ...]:
    """Compare the means of each factor's levels; see the module."""

    def of_level(
        at: Int[np.ndarray, " level"], some: Values = values
    ) -> Float[np.ndarray, "units *rest"]:
        return by_scene(some[at], None if scenes is None else scenes[at])

    by_factor = {
        name: levels for name, cells in factors.items() if (levels := factor_levels(cells))
    }
    if not by_factor:
        return ()
    shared = scenes is not None and len(np.unique(scenes)) < len(scenes)

    def ps(some: Values) -> Float[np.ndarray, "factors *rest"]:
        ranks = None if shared else rankdata(some, axis=0)  # of all pairs, which most factors have
        return np.stack([p_of(levels, some, ranks) for levels in by_factor.values()])

    def p_of(
        levels: Mapping[str, Int[np.ndarray, " level"]], some: Values, ranks: Values | None
    ) -> Float[np.ndarray, "*rest"]:
        if ranks is not None and sum(map(len, levels.values())) == len(ranks):
            return _p([ranks[at] for at in levels.values()])
        groups = [of_level(at, some) for at in levels.values()]
        ranks = rankdata(np.concatenate(groups), axis=0)
        return _p(np.split(ranks, np.cumsum([len(one) for one in groups])[:-1]))

    p = by_columns(ps, values)
    found = []
    for (name, levels), q in zip(by_factor.items(), adjusted(p), strict=True):
        means = [of_level(at).mean(0) for at in levels.values()]
        # the bootstrap of all heads takes seconds, and few can be shown to depend on the factor
        asked = (q < rule.alpha) & (np.max(means, axis=0) - np.min(means, axis=0) > rule.delta)
        named = tuple(
            _level(level, of_level(at), len(levels), rule, asked) for level, at in levels.items()
        )
        highest, lowest = (
            np.max([one.effect.low for one in named], axis=0),
            np.min([one.effect.high for one in named], axis=0),
        )
        shown = asked & (highest - lowest > rule.delta)
        found.append(Dependence(name, named, q, shown))
    return tuple(found)


def _p(ranks: Sequence[Float[np.ndarray, "_ *rest"]]) -> Float[np.ndarray, "*rest"]:
    """P that the levels' values, given by their ranks, are alike; 1 where all are the same."""
    count = sum(map(len, ranks))
    of_level = [one - (count + 1) / 2 for one in ranks]  # from their mean
    between = sum(len(one) * one.mean(0) ** 2 for one in of_level)
    # of ranks with ties as their mean: H is corrected for ties
    total = np.sum([(one**2).sum(0) for one in of_level], axis=0)
    h = (count - 1) * np.divide(between, total, out=np.zeros_like(total), where=total > 0)
    return np.asarray(np.where(total > 0, chi2.sf(h, len(ranks) - 1), 1.0))


def _level(
    name: str, values: Values, levels: int, rule: Rule, asked: Bool[np.ndarray, "*rest"]
) -> Level:
    """Return a level's means and, where they are asked for, their intervals; NaN elsewhere."""
    mean, low, high = np.full((3, *values.shape[1:]), np.nan)
    if asked.any():
        own = replace(rule, level=1 - rule.alpha / levels)
        mean[asked], low[asked], high[asked] = interval_by(values[:, asked], own, stream=6).ends
    return Level(name, len(values), Interval(mean, low, high))
