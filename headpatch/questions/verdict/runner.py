"""A verdict's pairs, measured one after the other; what is finished is kept."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Float

from headpatch.core.baseline_runs import Survey
from headpatch.core.finished_pairs import measured
from headpatch.core.mean_activations import mean_z
from headpatch.core.pair_measurements import noise_sets
from headpatch.core.session import Session
from headpatch.core.session_cache import Held
from headpatch.core.store import Store, dataset_digest, unit_key
from headpatch.core.study import Study
from headpatch.engine.patching import OnProgress, ZMeans
from headpatch.engine.selfcheck import Checks
from headpatch.heads import Grid, HeadSet
from headpatch.models.vlm import VLM
from headpatch.pairs.manifest import Entry
from headpatch.questions.verdict.measure import measure
from headpatch.questions.verdict.pair_record import DIRECTIONS, KINDS, PairRecord, Task


class Runner:
    """Measures pairs one after the other, and keeps what is finished."""

    def __init__(
        self,
        study: Study,
        vlm: VLM,
        survey: Survey,
        store: Store,
        on_progress: OnProgress | None,
    ) -> None:
        self._study, self._vlm = study, vlm
        self._survey, self._store = survey, store
        self._on_progress, self._checks = on_progress, Checks()
        self._held = Held(vlm.device)
        self._held.sessions.update(survey.held)
        self._done = self._total = 0
        self._dataset = dataset_digest(survey.entries)
        self._places = {entry.name: place for place, entry in enumerate(survey.entries)}

    def expect(self, total: int) -> None:
        """Say about how many rows will be run in all."""
        self._total = total

    def measured(self, entries: Sequence[Entry], tasks: Sequence[Task]) -> Iterator[PairRecord]:
        """Yield what was measured of each pair, in order."""
        wanted = {entry.name: task for entry, task in zip(entries, tasks, strict=True)}

        def run(session: Session) -> dict[str, Any]:
            task = wanted[session.pair.name]
            seeds = [self._study.seed % 2**64, self._places[session.pair.name]]
            rng = np.random.default_rng(seeds)
            return measure(session, task, self._reference(session), self._checks, rng).to_saved()

        keys = {entry.name: self._key(entry, wanted[entry.name].words()) for entry in entries}
        for entry, saved in self._each(entries, keys, run):
            self._advance(rows(wanted[entry.name], self._vlm.lm.grid))
            yield PairRecord.from_saved(saved)

    def noised(
        self, entries: Sequence[Entry], sets: Sequence[HeadSet]
    ) -> Float[np.ndarray, "pairs sets"]:
        """Noise sets of heads on some pairs, which stay open afterwards as memory allows."""

        def run(session: Session) -> dict[str, Any]:
            if session.pair.name not in self._held.sessions:
                self._held.offer(session)
            return {"sets": torch.from_numpy(noise_sets(session, sets))}

        asked = {"noised": [str(members) for members in sets]}
        keys = {entry.name: self._key(entry, asked) for entry in entries}
        found = []
        for _, saved in self._each(entries, keys, run):
            self._advance(len(sets))
            found.append(saved["sets"].numpy())
        return np.stack(found)

    def _each(
        self,
        entries: Sequence[Entry],
        keys: Mapping[str, str],
        run: Callable[[Session], dict[str, Any]],
    ) -> Iterator[tuple[Entry, dict[str, Any]]]:
        where = self._study.verdict.positions
        more = self._store, run, self._checks, self._held.sessions
        return measured(self._study, self._vlm, entries, keys, where, *more)

    def _advance(self, rows: int) -> None:
        self._done += rows
        if self._on_progress:
            self._on_progress(min(self._done, self._total), self._total)

    def _reference(self, session: Session) -> ZMeans:
        known = self._survey.reference
        if known is not None:
            return known.of(session)
        return mean_z(session, reference=self._study.ablate.reference)

    def _key(self, entry: Entry, what: Mapping[str, Any]) -> str:
        options = self._study.verdict
        asked = {
            **what,
            "positions": options.positions,
            "noise": options.noise,
            "dataset": self._dataset,
            "reference": self._study.ablate.reference,
        }
        return unit_key(self._study, self._vlm, entry.pair(), asked)


def rows(task: Task, grid: Grid) -> int:
    """Return how many rows a task takes; what is no row counts as about as many."""
    sweeps = len(KINDS) * len(DIRECTIONS) + task.attribution + 4 * task.nulls + 3 * task.vision
    return sweeps * grid.layers * grid.heads + len(task.sets)
