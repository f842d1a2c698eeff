"""What a verdict chooses on its discovery pairs: heads, and sets of them, for others to judge.

And how much of the answer a ranking's first heads carry: keep only them, or take only them away.
Both are measured on the with-run by resampling at the study's positions. At the answer, resampling
every head gives exactly the without-run's LD, so that the share that is left runs from 0 (no head
kept) to 1 (all kept), and back.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float

from headpatch.core.claims_grammar import Claim
from headpatch.core.ranking import random_sets
from headpatch.core.study.study import Study
from headpatch.heads import Grid, Head, HeadSet
from headpatch.questions.verdict.pair_record import DIRECTIONS, PairRecord, PerPair
from headpatch.questions.verdict.redundant_sets import Search, pool, random_members, scores
from headpatch.stats.circuit_areas import circuit_areas, circuit_sizes
from headpatch.stats.interactions import Joint, leave_one_out
from headpatch.stats.intervals import mean_interval
from headpatch.stats.rankings import Ranking, area_under, descending, effect_size, sizes
from headpatch.stats.verdict_labels import Rule

Noised = Callable[[Sequence[int], Sequence[HeadSet]], Float[np.ndarray, "pairs sets"]]
"""Noises sets on some discovery pairs, named by their places."""
WAYS = ("keep", "remove")
"""keep: all but the first k heads are resampled; remove: the first k are."""


@dataclass(frozen=True, eq=False)
class Discovery:
    """What was chosen on the discovery pairs."""

    picked: tuple[Head, ...]  # by attention: the largest mean differences
    chosen: tuple[Head, ...]
    """By effect: those whose mean reaches δ in size in either direction, at most as many as are
    picked."""
    partners: tuple[HeadSet, ...]  # tested for redundancy
    random: tuple[HeadSet, ...]  # of other heads of the chosen heads' layers
    rankings: Mapping[str, Sequence[Ranking]]
    """Of every head, by name, for the faithfulness curves; random ones are averaged."""
    sets: tuple[HeadSet, ...]  # every set that the confirmation pairs noise, each once


def choose(
    study: Study, grid: Grid, attention: PerPair, discovery: Sequence[PairRecord], noised: Noised
) -> Discovery:
    """Choose heads and sets by what the discovery pairs show."""
    options, heads = study.verdict, list(grid)
    necessity, sufficiency = (
        np.stack([pair.effects[f"resample_{way}"] for pair in discovery]) for way in DIRECTIONS
    )
    size = effect_size(necessity.mean(0), sufficiency.mean(0))
    by_attention, by_effect = descending(attention.mean(0)), descending(size)
    rankings = {"attention": [by_attention], "effect": [by_effect]}
    if estimated := [pair.attribution for pair in discovery if pair.attribution]:
        estimate = [np.mean([one[way] for one in estimated], axis=0) for way in DIRECTIONS]
        rankings["attribution"] = [descending(effect_size(*estimate))]
    score = None  # what each head adds once others are gone, if random sets were noised
    if options.groups:
        places = range(len(discovery))
        drawn = [random_members(grid, options.groups, study.seed, place) for place in places]
        score = scores(drawn, [pair.sets for pair in discovery], necessity)
        rankings["context"] = [descending(score)]
    rng = np.random.default_rng([study.seed % 2**64, 3])
    rankings["random"] = [rng.permutation(len(heads)) for _ in range(options.random)]
    picked = tuple(heads[i] for i in by_attention[: options.top])
    chosen = tuple(heads[i] for i in by_effect[: options.top] if size.flat[i] >= options.delta)
    among = pool(grid, options.partners, size, score)
    partners = tuple(dict.fromkeys([*_claimed(study), *_sought(study, among, necessity, noised)]))
    own = [HeadSet(chosen)] if chosen else []
    random = [
        members for one in own for members in random_sets(one, options.controls, study.seed, grid)
    ]
    parts = [rest for one in partners for rest in leave_one_out(one) if len(rest) > 1]
    curved = [
        members
        for draws in rankings.values()
        for ranking in draws
        for way in WAYS
        for k in curve_sizes(len(heads), way)
        if (members := _resampled(heads, ranking, way, k)) is not None
    ]
    sets = tuple(dict.fromkeys([*partners, *parts, *own, *random, *curved]))
    return Discovery(picked, chosen, partners, tuple(random), rankings, sets)


def set_counts(study: Study, grid: Grid) -> tuple[int, int]:
    """Return about how many sets are noised on a pair that seeks partners, and to judge them."""
    options = study.verdict
    rankings = 2 + (options.attribution > 0) + (options.groups > 0) + options.random
    curved = rankings * sum(len(curve_sizes(grid.layers * grid.heads, way)) for way in WAYS)
    seeking = options.partners * (options.partners + 4) // 2
    claimed = sum(1 + len(one) for one in _claimed(study))
    return seeking, options.controls + 2 * options.partners + claimed + curved


def _sought(
    study: Study, among: Sequence[Head], necessity: PerPair, noised: Noised
) -> tuple[HeadSet, ...]:
    """Seek sets of redundant heads on some of the discovery pairs."""
    options, rng = study.verdict, np.random.default_rng([study.seed % 2**64, 5])
    places = sorted(rng.permutation(len(necessity))[: options.search].tolist())
    if len(places) < 2:
        return ()
    search = Search(lambda sets: noised(places, sets), necessity[places], options.delta)
    return search.sets(among, options.partners)


def _claimed(study: Study) -> list[HeadSet]:
    """Return the sets that the study's own claims say something of as a whole."""
    sets = (Claim.parse(text).tested_set for text in study.claims)
    return [one for one in sets if one is not None]


def _resampled(heads: Sequence[Head], ranking: Ranking, way: str, k: int) -> HeadSet | None:
    """Return the set that is resampled at one point of a curve; None where that is no head."""
    changed = ranking[k:] if way == "keep" else ranking[:k]
    return HeadSet(tuple(heads[i] for i in changed)) if len(changed) else None


def curve_sizes(heads: int, way: str) -> list[int]:
    """Return how many heads are kept, or removed, at the points of a curve: fewest first.

    Those of both areas where heads are kept; where they are removed, of the first alone.
    """
    return sorted({*sizes(heads), *(circuit_sizes(heads) if way == "keep" else ())})


def curves(
    grid: Grid,
    rankings: Mapping[str, Sequence[Ranking]],
    necessity: Joint,
    gaps: Float[np.ndarray, " pairs"],
    rule: Rule,
) -> pd.DataFrame:
    """Return each curve's points and areas, with intervals over pairs: ``faithfulness.csv``.

    What is left of the LD difference, ``share``, is 1 minus the necessity of the set that is
    resampled; ``area`` is that under the whole curve (`area_under`; for ``keep`` more is better,
    for ``remove`` less). Where heads are kept, ``cpr`` and ``cmd`` are those of
    `headpatch.stats.circuit_areas`, for which `gaps` are the pairs' LD differences, in logits.
    """
    heads = list(grid)

    def left(ranking: Ranking, way: str, k: int) -> Float[np.ndarray, " pairs"]:
        changed = _resampled(heads, ranking, way, k)
        return np.ones(len(gaps)) if changed is None else 1 - necessity[changed]

    tables = []
    for name, draws in rankings.items():
        for way in WAYS:
            counts = curve_sizes(len(heads), way)
            at = [counts.index(k) for k in sizes(len(heads))]
            each = [np.stack([left(ranking, way, k) for k in counts], 1) for ranking in draws]
            shares = np.mean(each, axis=0)
            both = np.column_stack([shares, area_under(sizes(len(heads)), shares[:, at])])
            rng = np.random.default_rng([rule.seed % 2**64, 2])
            interval = mean_interval(both, rule.level, rule.resamples, rng)
            ends = {"": interval.mean, "_low": interval.low, "_high": interval.high}
            columns: dict[str, Any] = {"ranking": name, "way": way, "k": counts}
            columns |= {f"share{end}": values[:-1] for end, values in ends.items()}
            columns |= {f"area{end}": values[-1] for end, values in ends.items()}
            if way == "keep":
                grown = [counts.index(k) for k in circuit_sizes(len(heads))]
                kept = [shares_of_draw[:, grown] for shares_of_draw in each]
                figures = circuit_areas(kept, shares[:, 0], gaps, rule.level)
                for figure, found in zip(("cpr", "cmd"), figures, strict=True):
                    columns |= {figure: found.value, f"{figure}_low": found.low}
                    columns[f"{figure}_high"] = found.high
            tables.append(pd.DataFrame({**columns, "draws": len(draws), "pairs": len(gaps)}))
    return pd.concat(tables, ignore_index=True)
