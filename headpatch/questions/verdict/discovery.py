"""What a verdict chooses on a part of the pairs: heads, and sets of them, for the others to judge.

And how much of the answer a ranking's first heads carry: keep only them, or take only them away.
Both are measured on the with-run by resampling at the study's positions. At the answer, resampling
every head gives exactly the without-run's LD, so that the share that is left runs from 0 (no head
kept) to 1 (all kept), and back.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import pandas as pd
from jaxtyping import Float, Int

from headpatch.core.baseline_runs import Survey
from headpatch.core.claims_grammar import Claim
from headpatch.core.measures import ranking_name
from headpatch.core.ranking import random_sets
from headpatch.core.study.study import Study
from headpatch.engine.interventions import Direction
from headpatch.heads import Grid, Head, HeadSet
from headpatch.questions.verdict.pair_record import DIRECTIONS, PairRecord, PerPair
from headpatch.questions.verdict.redundant_sets import Search, pool, random_members, scores
from headpatch.stats.circuit_areas import circuit_areas, circuit_sizes
from headpatch.stats.interactions import Joint, leave_one_out
from headpatch.stats.intervals import interval_by
from headpatch.stats.rankings import Ranking, area_under, descending, effect_size, sizes
from headpatch.stats.scenes import by_scene
from headpatch.stats.verdict_labels import Rule

Noised = Callable[[Sequence[int], Sequence[HeadSet]], Float[np.ndarray, "pairs sets"]]
"""Noises sets on some of the pairs that choose, named by their places among them."""
Change: TypeAlias = tuple[HeadSet, Direction]
"""A set of heads, resampled together, in one direction."""
WAYS = ("keep", "remove")
"""keep: all but the first k heads are resampled; remove: the first k are."""


@dataclass(frozen=True, eq=False)
class Choice:
    """What was chosen on a part of the pairs."""

    picked: tuple[Head, ...]
    """The first heads of the study's ranking."""
    looking: tuple[Head, ...]
    """The heads with the largest mean attention differences."""
    together: Mapping[str, HeadSet]
    """By ranking, those that the study asks for and ``effect``: its first heads, to be judged as
    one set. By effect those whose mean reaches δ in size in either direction, at most as many; left
    out if none."""
    random: Mapping[str, tuple[HeadSet, ...]]  # of each: other heads of the same layers
    partners: tuple[HeadSet, ...]  # tested for redundancy
    rankings: Mapping[str, Sequence[Ranking]]
    """Of every head, by name, for the faithfulness curves; random ones are averaged."""
    changes: tuple[Change, ...]  # all that the other pairs are to measure, each once

    @property
    def chosen(self) -> tuple[Head, ...]:
        """By effect."""
        return self.together["effect"].heads if "effect" in self.together else ()


def choose(
    study: Study,
    grid: Grid,
    survey: Survey,
    records: Sequence[PairRecord],
    places: Sequence[int],
    noised: Noised,
) -> Choice:
    """Choose heads and sets by what some pairs show; `places`: theirs among all of the survey."""
    options, heads = study.verdict, list(grid)
    necessity, sufficiency = (
        np.stack([pair.effects[f"resample_{way}"] for pair in records]) for way in DIRECTIONS
    )
    size = grid.there(effect_size(necessity.mean(0), sufficiency.mean(0)))
    by_effect = descending(size)
    asked = {ranking_name(by): grid.among(survey.ranking(by, places)) for by in study.rankings}
    rankings = {**{name: [one] for name, one in asked.items()}, "effect": [by_effect]}
    if estimated := [pair.attribution for pair in records if pair.attribution]:
        estimate = [np.mean([one[way] for one in estimated], axis=0) for way in DIRECTIONS]
        rankings["attribution"] = [descending(grid.there(effect_size(*estimate)))]
    score = None  # what each head adds once others are gone, if random sets were noised
    if options.groups:
        drawn = [random_members(grid, options.groups, study.seed, place) for place in places]
        score = scores(drawn, [pair.sets for pair in records], grid.there(necessity))
        rankings["context"] = [descending(score)]
    rng = np.random.default_rng([study.seed % 2**64, 3])
    rankings["random"] = [rng.permutation(len(heads)) for _ in range(options.random)]
    among = pool(grid, options.partners, size, score)
    partners = _sought(study, among, necessity, noised)
    first = {
        **{name: [heads[i] for i in one[: options.top]] for name, one in asked.items()},
        "effect": [heads[i] for i in by_effect[: options.top] if size.flat[i] >= options.delta],
    }
    together = {name: HeadSet(tuple(members)) for name, members in first.items() if members}
    random = {
        name: tuple(random_sets(members, options.controls, study.seed, grid))
        for name, members in together.items()
    }
    noise = [
        *with_parts([*claimed(study), *partners]),
        *(
            members
            for draws in rankings.values()
            for ranking in draws
            for way in WAYS
            for k in curve_sizes(len(heads), way)
            if (members := _resampled(heads, ranking, way, k)) is not None
        ),
    ]
    both = [one for name, members in together.items() for one in (members, *random[name])]
    changes: list[Change] = [(one, "noising") for one in (*noise, *both)]
    changes += [(one, "denoising") for one in both]
    picked = together[ranking_name(study.rank.by)]
    by_diff = grid.among(survey.ranking("diff", places))
    looking = HeadSet(tuple(heads[i] for i in by_diff[: options.top]))
    chosen = together, random, partners, rankings, tuple(dict.fromkeys(changes))
    return Choice(picked.heads, looking.heads, *chosen)


def with_parts(sets: Sequence[HeadSet]) -> list[HeadSet]:
    """Return sets, and what is left of each without each of its heads."""
    parts = [rest for one in sets for rest in leave_one_out(one) if len(rest) > 1]
    return [*sets, *parts]


def set_counts(study: Study, grid: Grid) -> tuple[int, int]:
    """Return about how many sets are noised on a pair that seeks partners, and to judge them."""
    options = study.verdict
    asked = 1 + len(study.rankings)  # and by effect
    rankings = asked + (options.attribution > 0) + (options.groups > 0) + options.random
    curved = rankings * sum(len(curve_sizes(len(grid), way)) for way in WAYS)
    seeking = options.partners * (options.partners + 4) // 2
    of_claims = len(with_parts(claimed(study)))
    together = 2 * asked * (1 + options.controls)  # in both directions
    return seeking, together + 2 * options.partners + of_claims + curved


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


def claimed(study: Study) -> list[HeadSet]:
    """Return the sets that the study's own claims say something of as a whole."""
    sets = (Claim.parse(text).tested_set for text in study.claims)
    return list(dict.fromkeys(one for one in sets if one is not None))


def _resampled(heads: Sequence[Head], ranking: Ranking, way: str, k: int) -> HeadSet | None:
    """Return the set that is resampled at one point of a curve; None where that is no head."""
    changed = ranking[k:] if way == "keep" else ranking[:k]
    return HeadSet(tuple(heads[i] for i in changed)) if len(changed) else None


def curve_sizes(heads: int, way: str) -> list[int]:
    """Return how many heads are kept, or removed, at the points of a curve: fewest first.

    Those of both areas where heads are kept; where they are removed, of the first alone.
    """
    return sorted({*sizes(heads), *(circuit_sizes(heads) if way == "keep" else ())})


Part: TypeAlias = tuple[Mapping[str, Sequence[Ranking]], Joint]
"""The rankings that some pairs have chosen, and the necessity of sets on those that judge."""


def curves(
    grid: Grid,
    parts: Sequence[Part],
    gaps: Float[np.ndarray, " judges"],
    rule: Rule,
    scenes: Int[np.ndarray, " judges"] | None = None,
) -> pd.DataFrame:
    """Return each curve's points and areas, with intervals over pairs: ``faithfulness.csv``.

    Each pair is judged by the ranking that other pairs have chosen; `gaps` are the LD differences,
    in logits, and `scenes` the scenes of the pairs of all parts, one after the other. What is left
    of the LD difference, ``share``, is 1 minus the necessity of the set that is resampled; ``area``
    is that under the whole curve (`area_under`; for ``keep`` more is better, for ``remove`` less).
    Where heads are kept, ``cpr`` and ``cmd`` are those of `headpatch.stats.circuit_areas`.
    """
    heads = list(grid)

    def left(necessity: Joint, ranking: Ranking, way: str, k: int) -> Float[np.ndarray, " pairs"]:
        changed, pairs = _resampled(heads, ranking, way, k), len(next(iter(necessity.values())))
        return np.ones(pairs) if changed is None else 1 - necessity[changed]

    def shares(
        name: str, way: str, counts: Sequence[int]
    ) -> Float[np.ndarray, "draws judges points"]:
        each = [
            [np.stack([left(joint, one, way, k) for k in counts], 1) for one in rankings[name]]
            for rankings, joint in parts
        ]
        return np.concatenate(each, axis=1)

    tables = []
    for name in parts[0][0]:
        for way in WAYS:
            counts = curve_sizes(len(heads), way)
            at = [counts.index(k) for k in sizes(len(heads))]
            draws = shares(name, way, counts)
            mean = np.mean(draws, axis=0)
            both = np.column_stack([mean, area_under(sizes(len(heads)), mean[:, at])])
            found = interval_by(by_scene(both, scenes), rule, stream=2)
            columns: dict[str, Any] = {"ranking": name, "way": way, "k": counts}
            columns |= {end: values[:-1] for end, values in found.columns("share").items()}
            columns |= {end: values[-1] for end, values in found.columns("area").items()}
            if way == "keep":
                grown = [counts.index(k) for k in circuit_sizes(len(heads))]
                columns |= _circuit(draws[..., grown], draws[0][:, 0], gaps, scenes, rule)
            tables.append(pd.DataFrame({**columns, "draws": len(draws), "pairs": len(gaps)}))
    return pd.concat(tables, ignore_index=True)


def _circuit(
    kept: Float[np.ndarray, "draws pairs points"],
    empty: Float[np.ndarray, " pairs"],
    gaps: Float[np.ndarray, " pairs"],
    scenes: Int[np.ndarray, " pairs"] | None,
    rule: Rule,
) -> dict[str, float]:
    """Return CPR and CMD with their intervals; of a scene the LDs of its pairs are averaged."""
    of_scene = by_scene(gaps, scenes)
    shares = [by_scene(one * gaps[:, None], scenes) / of_scene[:, None] for one in kept]
    none = by_scene(empty * gaps, scenes) / of_scene
    figures = circuit_areas(shares, none, of_scene, rule.level)
    found = zip(("cpr", "cmd"), figures, strict=True)
    return {
        f"{name}{end}": value
        for name, one in found
        for end, value in (("", one.value), ("_low", one.low), ("_high", one.high))
    }
