"""How much of the answer a ranking's first heads carry: keep only them, or take only them away.

Both are measured on the with-run by resampling at the study's positions. At the answer, resampling
every head gives exactly the without-run's LD, so that the share that is left runs from 0 (no head
kept) to 1 (all kept), and back.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import pandas as pd
from jaxtyping import Float

from headpatch.heads import Grid, HeadSet
from headpatch.stats.intervals import mean_interval
from headpatch.stats.rankings import Ranking, area_under, sizes
from headpatch.stats.verdict_labels import Rule

Way = Literal["keep", "remove"]
"""keep: all but the first k are resampled; remove: the first k are."""
RANDOM = "random"
"""Name of the random rankings; several of that name are averaged."""


@dataclass(frozen=True)
class Point:
    """One point of one curve: the set that is resampled, None where that is no head."""

    ranking: str
    draw: int
    way: Way
    k: int
    changed: HeadSet | None


def points(grid: Grid, rankings: Mapping[str, Sequence[Ranking]]) -> list[Point]:
    """List every point of the curves of some rankings (by name, several draws each)."""
    heads = list(grid)
    known: dict[tuple[int, ...], HeadSet] = {}

    def members(flat: Ranking) -> HeadSet | None:
        if not len(flat):
            return None
        chosen = tuple(sorted(flat.tolist()))
        if chosen not in known:
            known[chosen] = HeadSet(tuple(heads[index] for index in chosen))
        return known[chosen]

    def each() -> Iterator[Point]:
        for name, draws in rankings.items():
            for draw, ranking in enumerate(draws):
                for k in sizes(len(heads)):
                    yield Point(name, draw, "keep", k, members(ranking[k:]))
                    yield Point(name, draw, "remove", k, members(ranking[:k]))

    return list(each())


def curves(
    listed: Sequence[Point], necessity: Mapping[HeadSet, Float[np.ndarray, " pairs"]], rule: Rule
) -> pd.DataFrame:
    """Return each curve's points and areas, with intervals over pairs.

    Parameters
    ----------
    necessity
        Normalized effect of noising each set: what is left is 1 minus it.

    Returns
    -------
    A row for each ranking, way and k: ``share`` of the LD difference that is left, and ``area``
    under its whole curve (`area_under`; for ``keep`` more is better, for ``remove`` less).
    """
    pairs = len(next(iter(necessity.values())))
    counts = sorted({one.k for one in listed})
    rows = []
    for name in dict.fromkeys(one.ranking for one in listed):
        for way in get_args(Way):
            draws: dict[int, list[Float[np.ndarray, " pairs"]]] = {}
            for one in listed:
                if (one.ranking, one.way) == (name, way):
                    left = np.ones(pairs) if one.changed is None else 1 - necessity[one.changed]
                    draws.setdefault(one.draw, []).append(left)
            shares = np.mean([np.stack(curve, 1) for curve in draws.values()], axis=0)
            both = np.column_stack([shares, area_under(counts, shares)])
            rng = np.random.default_rng([rule.seed % 2**64, 2])
            found = mean_interval(both, rule.level, rule.resamples, rng)
            for index, k in enumerate(counts):
                rows.append(
                    {
                        "ranking": name,
                        "way": way,
                        "k": k,
                        "share": found.mean[index],
                        "share_low": found.low[index],
                        "share_high": found.high[index],
                        "area": found.mean[-1],
                        "area_low": found.low[-1],
                        "area_high": found.high[-1],
                        "draws": len(draws),
                        "pairs": pairs,
                    }
                )
    return pd.DataFrame(rows)
