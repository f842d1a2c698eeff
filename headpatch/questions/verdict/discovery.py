"""What a verdict chooses on its discovery pairs: heads, and sets of them, for others to judge."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from headpatch.core.claims_grammar import Claim
from headpatch.core.controls import random_sets
from headpatch.core.study import Study
from headpatch.heads import Grid, Head, HeadSet
from headpatch.questions.verdict.banzhaf_screen import random_members, scores
from headpatch.questions.verdict.faithfulness import RANDOM, Point, points
from headpatch.questions.verdict.pair_record import DIRECTIONS, PairRecord, PerHead
from headpatch.questions.verdict.redundant_sets import Search, pool
from headpatch.stats.interactions import leave_one_out
from headpatch.stats.rankings import Ranking, descending, effect_size, sizes

Noised = Callable[[Sequence[int], Sequence[HeadSet]], Float[np.ndarray, "pairs sets"]]
"""Noises sets on some discovery pairs, named by their places."""


@dataclass(frozen=True, eq=False)
class Discovery:
    """What was chosen on the discovery pairs.

    Attributes
    ----------
    picked
        By attention: the largest mean differences.
    chosen
        By effect: those whose mean reaches δ in size in either direction, at most as many as are
        picked.
    partners
        Sets that are tested for redundancy.
    random
        Sets of other heads of the chosen heads' layers.
    rankings
        Of every head, by name, for the faithfulness curves.
    points
        Of those curves.
    sets
        Every set that the confirmation pairs noise, each once.
    """

    picked: tuple[Head, ...]
    chosen: tuple[Head, ...]
    partners: tuple[HeadSet, ...]
    random: tuple[HeadSet, ...]
    rankings: Mapping[str, Sequence[Ranking]]
    points: tuple[Point, ...]
    sets: tuple[HeadSet, ...]


def choose(
    study: Study,
    grid: Grid,
    attention: Float[np.ndarray, "pairs layers heads"],
    discovery: Sequence[PairRecord],
    noised: Noised,
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
    score = _score(study, grid, discovery, necessity)
    if score is not None:
        rankings["context"] = [descending(score)]
    rng = np.random.default_rng([study.seed % 2**64, 3])
    rankings[RANDOM] = [rng.permutation(len(heads)) for _ in range(options.random)]
    picked = tuple(heads[i] for i in by_attention[: options.top])
    large = [i for i in by_effect[: options.top] if size.flat[i] >= options.delta]
    chosen = tuple(heads[i] for i in large)
    among = pool(grid, options.partners, size, score)
    partners = tuple(dict.fromkeys([*_claimed(study), *_sought(study, among, necessity, noised)]))
    random: tuple[HeadSet, ...] = ()
    if chosen:
        random = tuple(random_sets(HeadSet(chosen), options.controls, study.seed, grid))
    listed = tuple(points(grid, rankings))
    named = [HeadSet(chosen)] if chosen else []
    parts = [rest for one in partners for rest in leave_one_out(one) if len(rest) > 1]
    curved = [one.changed for one in listed if one.changed is not None]
    sets = tuple(dict.fromkeys([*partners, *parts, *named, *random, *curved]))
    return Discovery(picked, chosen, partners, random, rankings, listed, sets)


def set_counts(study: Study, grid: Grid) -> tuple[int, int]:
    """Return about how many sets are noised on a pair that seeks partners, and to judge them."""
    options = study.verdict
    rankings = 2 + (options.attribution > 0) + (options.groups > 0) + options.random
    curved = 2 * rankings * len(sizes(grid.layers * grid.heads))
    seeking = options.partners * (options.partners + 4) // 2
    claimed = sum(1 + len(one) for one in _claimed(study))
    return seeking, options.controls + 2 * options.partners + claimed + curved


def _score(
    study: Study,
    grid: Grid,
    discovery: Sequence[PairRecord],
    necessity: Float[np.ndarray, "pairs layers heads"],
) -> PerHead | None:
    """What each head adds once others are gone; None if random sets were not noised."""
    count = study.verdict.groups
    if not count:
        return None
    drawn = [random_members(grid, count, study.seed, place) for place in range(len(discovery))]
    return scores(drawn, [pair.sets for pair in discovery], necessity)


def _sought(
    study: Study,
    among: Sequence[Head],
    necessity: Float[np.ndarray, "pairs layers heads"],
    noised: Noised,
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
