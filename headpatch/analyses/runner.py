"""A verdict's pairs, measured one after the other; what is finished is kept."""

import hashlib
from collections.abc import Iterator, Sequence

import numpy as np

from headpatch.analyses.dataset import sessions
from headpatch.analyses.finished import Finished, key
from headpatch.analyses.judged_pair import DIRECTIONS, KINDS, Checks, JudgedPair, Task, measure
from headpatch.analyses.reference import mean_z
from headpatch.analyses.session import Session
from headpatch.analyses.survey import Survey
from headpatch.engine.patching import OnProgress, ZMeans
from headpatch.models.vlm import VLM
from headpatch.pairs.manifest import Entry
from headpatch.study import Study


class Runner:
    """Measures pairs one after the other, and keeps what is finished."""

    def __init__(
        self,
        study: Study,
        vlm: VLM,
        survey: Survey,
        finished: Finished,
        on_progress: OnProgress | None,
    ) -> None:
        self._study = study.model_copy(update={"force": True})  # the survey was the gate
        self._vlm, self._survey, self._finished = vlm, survey, finished
        self._on_progress, self._checks = on_progress, Checks()
        self._done = self._total = 0
        self._dataset = _digest(survey.entries)

    def expect(self, tasks: Sequence[Task], sets: int) -> None:
        """Say what will be done in all: tasks, and so many sets besides."""
        self._total = sum(map(self._rows, tasks)) + sets

    def _rows(self, task: Task) -> int:
        """Rows that a task takes; what is no row counts as about as many."""
        heads = self._vlm.lm.grid.layers * self._vlm.lm.grid.heads
        sweeps = len(KINDS) * len(DIRECTIONS) + task.attribution + 4 * task.nulls + 3 * task.vision
        return sweeps * heads + len(task.sets)

    def measured(self, entries: Sequence[Entry], tasks: Sequence[Task]) -> Iterator[JudgedPair]:
        """Yield what was measured of each pair, in order."""
        keys = {
            entry.name: self._key(entry, task) for entry, task in zip(entries, tasks, strict=True)
        }
        wanted = dict(zip([entry.name for entry in entries], tasks, strict=True))
        known = {name: self._finished.load(one) for name, one in keys.items()}
        left = [entry for entry in entries if known[entry.name] is None]
        positions = self._study.verdict.positions
        opened = sessions(self._study, self._vlm, left, positions)
        for entry in entries:
            saved = known.pop(entry.name)
            if saved is None:
                session = next(opened)
                rng = np.random.default_rng(int(keys[entry.name][:16], 16))
                found = measure(
                    session, wanted[entry.name], self._reference(session), self._checks, rng
                )
                del session  # its caches go before the next pair's are made
                saved = found.to_saved()
                self._finished.save(keys[entry.name], saved)
            self._done += self._rows(wanted[entry.name])
            if self._on_progress:
                self._on_progress(min(self._done, self._total), self._total)
            yield JudgedPair.from_saved(saved)

    def _reference(self, session: Session) -> ZMeans:
        known = self._survey.reference
        if known is not None:
            return known.of(session)
        return mean_z(session, reference=self._study.ablate.reference)

    def _key(self, entry: Entry, task: Task) -> str:
        values = self._study.model_dump(include={"answers", "prompt", "seed"}, mode="json")
        options = self._study.verdict
        asked = values | task.words() | {
            "positions": options.positions,
            "noise": options.noise,
            "dataset": self._dataset,
            "reference": self._study.ablate.reference,
        }  # fmt: skip
        return key(self._vlm, entry.pair(), asked)


def _digest(entries: Sequence[Entry]) -> str:
    """Hash the pairs that are run: mean z, and so the effects of kind mean, depend on all."""
    found = hashlib.sha256()
    for entry in entries:
        for part in (entry.name, entry.question, str(entry.region.box)):
            found.update(part.encode())
        for path in (entry.with_path, entry.without_path):
            found.update(path.read_bytes())
    return found.hexdigest()
