"""Combinations of heads and self-repair over a dataset of pairs of pictures.

Heads that rankings pick are picked on one half of the pairs and judged on the other, so that an
effect is not also what selected its head. Named heads are judged on every pair.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from headpatch.analyses.combine import judge as combine_judge
from headpatch.analyses.combine import one as combine
from headpatch.analyses.combine import selfrepair
from headpatch.analyses.dataset.sessions import sessions
from headpatch.analyses.dataset.survey import LEAST, Survey
from headpatch.analyses.few_heads import Singles, choose, single_effects
from headpatch.analyses.reference import mean_z
from headpatch.analyses.session import Session
from headpatch.engine.patching import OnProgress, ZMeans
from headpatch.errors import InputError
from headpatch.heads import Head, HeadSet, Selection
from headpatch.models.vlm import VLM
from headpatch.pairs.manifest import Entry
from headpatch.study import Study


@dataclass(frozen=True, eq=False)
class Chosen:
    """Heads, and the pairs of pictures on which they are judged."""

    heads: tuple[Head, ...]
    entries: tuple[Entry, ...]
    chosen_on: int


def choose_heads(
    study: Study, vlm: VLM, survey: Survey, on_progress: OnProgress | None = None
) -> Chosen:
    """Pick the study's heads; those of rankings by their means over one half of the pairs.

    Raises
    ------
    InputError
        If there are too few pairs to pick on some and judge on others.
    """
    options, entries = study.combine, survey.entries
    if options.heads is not None and not Selection.parse(options.heads).needs_ranking:
        return Chosen(Selection.parse(options.heads).resolve(vlm.lm.grid), entries, 0)
    if len(entries) < 2 * LEAST:
        raise InputError(
            "--pairs",
            f"{len(entries)} pairs that pass the gate",
            f"at least {2 * LEAST}: heads are picked on one half of them and judged on the other",
            "Add pairs, or name the heads by --heads.",
        )
    drawn = np.random.default_rng(study.seed % 2**64).permutation(len(entries))
    first, second = (sorted(half.tolist()) for half in np.array_split(drawn, 2))
    picking = tuple(entries[index] for index in first)

    def effects() -> Singles:
        found = []
        for session in _walk(study, vlm, picking):
            found.append(single_effects(session, options.positions))
            if on_progress:
                on_progress(len(found), len(picking))
            del session
        return np.asarray(np.nanmean(found, 0))

    masses = {name: values[first] for name, values in survey.masses.items()}
    heads = choose(vlm.lm.grid, options, effects, replace(survey, masses=masses).order)
    return Chosen(heads, tuple(entries[index] for index in second), len(first))


def run(
    study: Study,
    vlm: VLM,
    survey: Survey,
    chosen: Chosen,
    on_progress: OnProgress | None = None,
) -> combine_judge.Combinations:
    """Change every head, every two and all together, on every pair of pictures.

    Raises
    ------
    InputError
        If there are fewer than two heads.
    """
    plan, found = combine.Plan.of(study, chosen.heads), []
    for session, means in _with_means(study, vlm, survey, chosen.entries):
        found.append(combine.measure(session, plan, means))
        if on_progress:
            on_progress(len(found), len(chosen.entries))
        del session
    return combine_judge.judge(study, plan, found)


def repair(
    study: Study,
    vlm: VLM,
    survey: Survey,
    chosen: Chosen,
    sets: Sequence[HeadSet],
    on_progress: OnProgress | None = None,
) -> selfrepair.SelfRepair:
    """Measure the self-repair of `sets` on every pair of pictures.

    Raises
    ------
    RunError
        If LD cannot be attributed to this model's parts.
    """
    asked, found = selfrepair.plan(study, sets), []
    for session, means in _with_means(study, vlm, survey, chosen.entries):
        found.append(selfrepair.measure(session, asked, means))
        if on_progress:
            on_progress(len(found), len(chosen.entries))
        del session
    return selfrepair.judge(study, found)


def _walk(study: Study, vlm: VLM, entries: Sequence[Entry]) -> Iterator[Session]:
    judged = study.model_copy(update={"force": True})  # the survey was the gate
    yield from sessions(judged, vlm, entries, study.combine.positions)


def _with_means(
    study: Study, vlm: VLM, survey: Survey, entries: Sequence[Entry]
) -> Iterator[tuple[Session, ZMeans | None]]:
    """Open pairs of pictures, each with the mean z that the study's kinds need."""
    options, known = study.combine, survey.reference
    for session in _walk(study, vlm, entries):
        means = None
        if "mean" in options.kinds:
            means = known.of(session) if known else mean_z(session, reference=options.reference)
        yield session, means
        del session
