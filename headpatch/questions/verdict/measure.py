"""Measuring pairs for a verdict: every head, sets of heads, nulls, whole vision layers."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cache, lru_cache
from itertools import compress
from typing import Any, TypeVar

import numpy as np
from jaxtyping import Float

from headpatch.core.baseline_runs import Opener, Survey
from headpatch.core.donors import donors_of
from headpatch.core.effects import FEW, floor_of, intervene, noise_vision, normalized
from headpatch.core.fast_paths import decide, refusals
from headpatch.core.held import Held
from headpatch.core.mean_activations import mean_z
from headpatch.core.pair_units import Keys, Measure, each_unit
from headpatch.core.ranking import differences
from headpatch.core.session import Session, checked, run_both
from headpatch.core.share import ALONE, Share
from headpatch.core.store import Store
from headpatch.core.study.study import Study
from headpatch.engine.attribution import attribute, gradients
from headpatch.engine.attribution import refused as no_gradients
from headpatch.engine.interventions import (
    Direction,
    Intervention,
    base_run,
    refused,
    whole_layers,
)
from headpatch.engine.patching import OnProgress, ZMeans
from headpatch.engine.selfcheck import Checks
from headpatch.heads import Grid, HeadSet
from headpatch.models.spans import Positions
from headpatch.models.vlm import VLM
from headpatch.pairs.manifest import Entry
from headpatch.pairs.pair import Pair
from headpatch.questions.verdict.discovery import Change
from headpatch.questions.verdict.nulls import mirrored, wrong_place
from headpatch.questions.verdict.pair_record import (
    DIRECTIONS,
    SWEEPS,
    Other,
    PairRecord,
    Task,
    resample_kind,
)
from headpatch.questions.verdict.redundant_sets import as_sets, random_members

Found = TypeVar("Found")


class Runner:
    """Measures pairs one after the other, and keeps what is finished; `total`: rows in all."""

    def __init__(
        self,
        study: Study,
        vlm: VLM,
        survey: Survey,
        store: Store | None,
        on_progress: OnProgress | None,
        total: int,
        say: Callable[[str], None] = lambda _: None,
        share: Share = ALONE,
    ) -> None:
        self._study, self._vlm, self._survey = study, vlm, survey
        self._store, self._share, self._keys = store, share, survey.keys or Keys(vlm)
        self._say = say
        self._on_progress, self._done, self._total = on_progress, 0, total
        self._held = survey.open_pairs or Held(vlm.device, study.pairs.hold)
        self._donors: Mapping[str, Entry] = {}
        if study.verdict.source == "other":
            self._donors = donors_of(study, survey.entries, survey.layouts, "--source")
        self._places = {entry.name: place for place, entry in enumerate(survey.entries)}

    def measured(
        self, entries: Sequence[Entry], tasks: Sequence[Task], checks: Checks | None = None
    ) -> Iterator[PairRecord]:
        """Yield what was measured of each pair, in order; `checks` are as `decided` for them all.

        None decides them for these pairs, as soon as one is left to measure.
        """
        wanted = {entry.name: task for entry, task in zip(entries, tasks, strict=True)}
        decided = cache(lambda: checks or self.decided(entries, tasks))

        def run(session: Session, _: OnProgress) -> PairRecord:
            name, means = session.pair.name, self._survey.reference
            rng = np.random.default_rng([self._study.seed % 2**64, self._places[name]])
            count = self._study.ablate.reference
            reference = means.of(session) if means else mean_z(session, reference=count)
            own = self._with_donor(session)
            return measure(own, wanted[name], reference, decided(), rng)

        rows = sum(task.rows(self._vlm.lm.grid) for task in tasks)
        words = [task.words() for task in tasks]
        yield from self._each("Changing every head", entries, words, run, rows)

    def decided(self, entries: Sequence[Entry], tasks: Sequence[Task]) -> Checks:
        """Compare the fast paths for what is run of pairs beside themselves, in their order."""

        def pairs(asked: Sequence[bool]) -> Iterator[Pair]:
            return (entry.pair() for entry in compress(entries, asked))

        otherwise = (
            other
            for pair in pairs([task.nulls for task in tasks])
            for other in (wrong_place(pair), mirrored(pair))
            if other is not None
        )
        study, vlm, where = self._study, self._vlm, self._study.verdict.positions
        checks = decide(study, vlm, otherwise, where, known=self._survey.checks)
        seen = pairs([task.vision and not refused(vlm) for task in tasks])
        checks = decide(study, vlm, seen, None, vision=True, known=checks)
        for words in refusals(checks, self._survey.checks):
            self._say(words)
        return checks

    def changed(
        self, entries: Sequence[Entry], asked: Sequence[Change]
    ) -> Float[np.ndarray, "pairs changes"]:
        """Resample sets of heads on some pairs, which stay open afterwards: as many as fit.

        Returns normalized effects.
        """
        positions = self._study.verdict.positions
        kind, names = resample_kind(self._study), {entry.name for entry in entries}
        changes = [Intervention(one, kind, direction, positions) for one, direction in asked]

        def run(session: Session, _: OnProgress) -> Float[np.ndarray, " changes"]:
            self._held.offer(session, names)
            outcomes = intervene(self._with_donor(session), changes, answers_only=True)
            return normalized(session, outcomes)

        words = {"changed": [f"{direction} {one}" for one, direction in asked]}
        rows = len(asked) * len(entries)
        each = self._each("Changing sets", entries, [words] * len(entries), run, rows)
        return np.stack(list(each))

    def _each(
        self,
        name: str,
        entries: Sequence[Entry],
        asked: Sequence[Mapping[str, Any]],
        run: Measure[Found],
        rows: int,
    ) -> Iterator[Found]:
        """Measure pairs, which takes so many `rows` in all."""
        options, study, before = self._study.verdict, self._study, self._done
        always: dict[str, Any] = {"positions": options.positions, "noise": options.noise}
        always |= {
            "source": options.source,
            "dataset": self._survey.digest,
            "reference": study.ablate.reference,
        }

        def advance(done: int, total: int) -> None:
            self._done = before + rows * done // total
            if self._on_progress:
                self._on_progress(min(self._done, self._total), self._total)

        held, checks = self._held.sessions, self._survey.checks
        opened = Opener(study, self._vlm, options.positions, False, held, checks)
        return each_unit(
            entries, opened, name, lambda: self._keys.of(study, entries, always, asked), run,
            advance, store=self._store, share=self._share, near=held,
        )  # fmt: skip

    def _with_donor(self, session: Session) -> Session:
        """Return a pair with another that gives z, if the study takes it from there."""
        if not self._donors:
            return session
        entry, where = self._donors[session.pair.name], self._study.verdict.positions
        donor = self._survey.donor(self._study, self._vlm, entry, where, vision=False)
        return replace(session, base=replace(session.base, donor=donor))


def measure(
    session: Session, task: Task, means: ZMeans, checks: Checks, rng: np.random.Generator
) -> PairRecord:
    """Sweep every head, both directions, and do what else the task asks.

    The session was opened with the positions of the study's ``verdict``; `rng` draws the heads that
    are patched with their own z.
    """
    options, base, grid = session.study.verdict, session.base, session.vlm.lm.grid
    heads, kind, where = len(grid), resample_kind(session.study), options.positions
    kinds = {"resample": kind, "mean": "mean"}
    asked = [one for name, way in SWEEPS for one in _every_head(grid, kinds[name], way, where)]
    of_heads = task.sets
    if task.drawn is not None:
        of_heads += as_sets(grid, random_members(grid, *task.drawn))
    asked += [Intervention(one, kind, "noising", where) for one in of_heads]
    drawn = rng.choice(heads, size=min(options.noise, heads), replace=False)
    own = [_every_head(grid, "self", way, where)[i] for way in DIRECTIONS for i in drawn]
    outcomes = intervene(session, [*asked, *own], means, answers_only=True)
    nowhere = np.zeros(0), float("nan"), 0.0
    vision, unread, off = _vision(session, checks) if task.vision else nowhere
    effects = normalized(session, outcomes[: len(asked)])
    swept, sets = np.split(effects, [len(SWEEPS) * heads])
    swept = grid.spread(swept.reshape(len(SWEEPS), -1, grid.heads))
    return PairRecord(
        name=session.pair.name,
        ld_with=base.ld_with,
        ld_without=base.ld_without,
        effects={f"{kind}_{way}": swept[i] for i, (kind, way) in enumerate(SWEEPS)},
        floor=max(floor_of(session, outcomes, means, FEW), off),
        nothing=max(session.widened_off, *(abs(one.effect) for one in outcomes[len(asked) :])),
        sets=sets,
        attribution=_attributed(session)
        if task.attribution and not no_gradients(session.vlm)
        else {},
        vision=vision,
        unread=unread,
        wrong_place=_otherwise(session, wrong_place(session.pair), checks) if task.nulls else None,
        mirrored=_otherwise(session, mirrored(session.pair), checks) if task.nulls else None,
    )


@lru_cache(maxsize=8)
def _every_head(
    grid: Grid, kind: str, direction: Direction, positions: Positions
) -> tuple[Intervention, ...]:
    """Change each head alone: the same in every pair, and a good part of a pair's time to make."""
    return tuple(Intervention(HeadSet.of(head), kind, direction, positions) for head in grid)


def _attributed(session: Session) -> dict[str, Float[np.ndarray, "layers heads"]]:
    """Estimate the normalized effect of resampling every head, from one backward pass."""
    pair = gradients(session.vlm, session.prompt, ("lm",))
    gap = session.base.ld_with - session.base.ld_without
    estimates: dict[str, Float[np.ndarray, "layers heads"]] = {}
    for direction, towards in zip(DIRECTIONS, (-gap, gap), strict=True):
        spans = session.base.seen_from(base_run(direction)).prompt.spans
        where = spans.positions(session.study.verdict.positions)
        effect = attribute(pair, "resample", direction)["lm"][..., where].sum(-1)
        estimates[direction] = effect.cpu().numpy().astype(np.float64) / towards
    return estimates


def _vision(
    session: Session, checks: Checks
) -> tuple[Float[np.ndarray, " vision_layers"], float, float]:
    """Noise all heads of each vision layer; the layers beyond the last that is read do nothing.

    Returns
    -------
    Normalized effects; the largest of the layers that are not read; and how far the resumed passes
    that were used lay from whole ones where they were compared. Both in logits.
    """
    if refused(session.vlm):
        return np.zeros(0), float("nan"), 0.0
    outcomes, off = noise_vision(session, whole_layers(session.vlm), checks)
    last = session.vlm.feature_layer
    beyond = [] if last is None else outcomes[last + 1 :]
    unread = max((abs(one.effect) for one in beyond), default=float("nan"))
    return normalized(session, outcomes), unread, off


def _otherwise(session: Session, pair: Pair | None, checks: Checks) -> Other | None:
    """Run the pair asked otherwise, and resample every head."""
    if pair is None:
        return None
    study, grid = session.study, session.vlm.lm.grid
    where = study.verdict.positions
    other = checked(run_both(study, session.vlm, pair, where), checks)
    asked = [one for way in DIRECTIONS for one in _every_head(grid, "resample", way, where)]
    effects = [one.effect for one in intervene(other, asked, answers_only=True)]
    noising, denoising = grid.spread(np.array(effects).reshape(2, -1, grid.heads))
    return Other(other.base.ld_with, other.base.ld_without, differences(other), noising, denoising)
