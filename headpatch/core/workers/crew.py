"""The workers of a run, as their driver sees them: it holds no weights, and measures nothing."""

import math
import os
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, Final, TypeAlias
from uuid import uuid4
from weakref import finalize

from headpatch.core.dataset import Found, Pairs
from headpatch.core.labelled_rows import Rows
from headpatch.core.output.staging import taken
from headpatch.core.progress import Stages
from headpatch.core.question import Result
from headpatch.core.store import Scratch, Store
from headpatch.core.study.study import Study
from headpatch.core.workers.cluster import Cluster, cluster
from headpatch.core.workers.coordinator import Coordinator, Standing
from headpatch.core.workers.packing import unpacked
from headpatch.core.workers.worker import Asked, Done, Here, Opening, Worker
from headpatch.disk import reporting_failure
from headpatch.errors import InputError, RunError
from headpatch.models.spans import Positions
from headpatch.models.vlm import VLM
from headpatch.pairs.labelled import Listed

_EVERY: Final = 0.1  # seconds between two looks at how far the workers are
_FRUITLESS: Final = 3  # deaths of each worker, while no unit gets done

Say: TypeAlias = Callable[[str, bool], None]
"""Shows a message of the workers; whether it is a warning."""


class Crew:
    """Workers, each a process with the model; those that die are replaced.

    They end with this object, or with `close`.
    """

    def __init__(self, study: Study, workers: int | None, address: str | None) -> None:
        self.argument = "--workers" if address is None else "--ray"
        if workers is not None and workers < 1:
            raise InputError("--workers", str(workers), "at least 1")
        if study.device.startswith("cuda:"):
            hint = "Each worker is given a GPU of its own."
            given = f"{study.device}, and workers"
            raise InputError("--device", given, "cuda, auto or cpu", hint)
        held = ExitStack()
        self.close = finalize(self, held.close)
        found = held.enter_context(cluster(workers, address))
        self._ray, self._hired = found.ray, 0
        self.count, self._needs, self._here = _shared_out(found, study, workers)
        coordinator = self._ray.remote(Coordinator).options(num_cpus=0).remote()
        held.callback(_dismiss, self._ray, {"coordinator": coordinator})
        self._ask, self._workers = _Asking(coordinator), dict[str, Any]()
        held.callback(_dismiss, self._ray, self._workers)
        for _ in range(self.count):
            self._hire()
        self._opening: Opening | None = None
        self._found: Found | Listed | None = None
        self._at = ""  # where the last worker that died was
        self._there = dict[Path, frozenset[str]]()  # by folder: units from before this crew
        self.standing: Standing | None = None
        self.scratch: Scratch | None = None  # where units go, if nobody names another folder

    def dismiss(self) -> None:
        """End all workers at once: what they may still do is done already."""
        _dismiss(self._ray, self._workers)

    @property
    def names(self) -> tuple[str, ...]:
        """The workers that live."""
        return tuple(self._workers)

    @property
    def actors(self) -> tuple[Any, ...]:
        """The workers, as Ray knows them."""
        return tuple(self._workers.values())

    def open(
        self,
        study: Study,
        found: Found,
        positions: Positions | None,
        vision: bool,
        store: Store,
        stages: Stages,
        say: Say,
        **more: Any,
    ) -> Pairs:
        """Have the workers run pairs, as `headpatch.core.dataset.run_pairs` does.

        The model of what is returned has no weights; whoever asks a question of it asks the crew.
        """
        self._found = found  # pictures that were made for this last as long
        plain = replace(found, entries=_unstored(found.entries), drawn=None)
        self._opening = _opening(study, plain, store, positions, vision, **more)
        done = self._run(None, store, stages, say)
        pairs: Pairs = unpacked(done.content, unpacked(done.model))
        return replace(pairs, drawn=found.drawn, crew=self)

    def ask(
        self,
        verb: str,
        pairs: Pairs,
        store: Store,
        stages: Stages,
        say: Say,
        given: Mapping[str, Any] | None = None,
    ) -> Result:
        """Have the workers answer a question of the pairs that `open` has returned."""
        asked = Asked(verb, pairs.study, given or {}, store.folder)
        done = self._run(asked, store, stages, say)
        found: Result = unpacked(done.content, pairs.vlm)
        return found

    def ask_rows(
        self, verb: str, study: Study, listed: Listed, store: Store, stages: Stages, say: Say
    ) -> tuple[Rows, Result]:
        """Have the workers answer a question of labelled rows; the rows' model has no weights."""
        self._found = listed
        twins = [one.twin and replace(one.twin, stored=None) for one in listed.entries]
        rows = zip(_unstored(listed.entries), twins, strict=True)
        plain = tuple(replace(one, twin=twin) for one, twin in rows), _unstored(listed.of_pairs)
        told = replace(listed, entries=plain[0], of_pairs=plain[1])
        self._opening = _opening(study, told, store)
        done = self._run(Asked(verb, study, {}, store.folder), store, stages, say)
        vlm: VLM = unpacked(done.model)
        return Rows(study, vlm, listed.entries, listed.refused), unpacked(done.content, vlm)

    def _run(self, asked: Asked | None, store: Store, stages: Stages, say: Say) -> Done:
        """Give all workers a task; return what the first to end has: the others have the same."""
        assert self._opening is not None
        number, fruitless, before = self._ask("start", asked is None), 0, 0
        there = self._there.setdefault(store.folder, store.keys)
        with reporting_failure(store.folder, store.argument):
            store.folder.mkdir(parents=True, exist_ok=True)
        with _marked(self._opening), _watched(stages, say) as watch:
            task = number, self._opening, asked
            running = {one.run.remote(*task): name for name, one in self._workers.items()}
            while True:
                ready, _ = self._ray.wait(list(running), timeout=_EVERY)
                self.standing = now = self._ask("standing")
                watch(now)
                for ref in ready:
                    name = running.pop(ref)
                    done = self._ended(name, ref)
                    if done is None:
                        measured = sum(one.measured for one in now.workers.values())
                        fruitless = fruitless + 1 if measured == before else 1
                        before = measured
                        if fruitless >= _FRUITLESS * self.count:
                            raise self._hopeless(fruitless)
                        say(f"{name} died{self._at}; another takes its place", True)
                        new = self._hire()
                        running[self._workers[new].run.remote(*task)] = new
                    elif done.error is not None:
                        done.error.add_note(done.trace)
                        raise done.error
                    elif done.content:
                        # what was measured before a pair was left out may be called otherwise
                        store.note(done.used | (store.keys - there))
                        return done

    def _hire(self) -> str:
        self._hired += 1
        name, remote = f"worker {self._hired}", self._ray.remote(Worker)
        self._workers[name] = remote.options(**self._needs).remote(self._ask, name, self._here)
        return name

    def _ended(self, name: str, ref: Any) -> Done | None:
        """Return what a worker ended with; None if it died: what it had is handed out again."""
        errors = self._ray.exceptions
        try:
            done: Done = self._ray.get(ref)
        except errors.RayActorError as error:
            if "ModuleNotFoundError" in str(error):
                found = "a machine of the cluster has no headpatch"
                raise InputError(self.argument, found, "headpatch on each of them") from error
            del self._workers[name]
            at = self._ask("died", name)
            self._at = f" while it measured pair {at}" if at else ""
            return None
        except errors.RayError as error:
            words = " ".join(str(error).split())[:300]
            raise RunError(f"{self.argument}: {words}") from error
        return done

    def _hopeless(self, deaths: int) -> RunError:
        return RunError(
            f"{self.argument}: {deaths} workers died one after the other, and no pair was measured "
            f"meanwhile; is there memory for {self.count} at a time?"
        )

    @property
    def words(self) -> str:
        """Say what the workers did with their time since the last question was asked."""
        works = [] if self.standing is None else list(self.standing.workers.values())
        if self.standing is None or not works:
            return ""
        seconds = max(self.standing.time - min(one.began for one in works), 1e-9)
        counts = _listed([f"{one.measured:,}" for one in works])
        waits = _listed([f"{one.waited / seconds:.1%}" for one in works])
        peak = max(one.peak for one in works)
        more = f"; at most {peak / 1e9:.1f} GB of a GPU" if peak else ""
        return (
            f"{len(works)} worker{'s' * (len(works) > 1)} measured {counts} units in "
            f"{seconds:.1f} s, and waited {waits} of it for each other{more}"
        )


def opened_by_workers(
    study: Study,
    found: Found,
    positions: Positions | None,
    vision: bool,
    stages: Stages,
    workers: int | None,
    address: str | None,
    keep: Path | None = None,
) -> Pairs:
    """Have workers run pairs for a program; they end with what is returned.

    `keep` is a folder for what is finished of each pair, from which an interrupted call goes on.
    """
    with stages("Starting workers"):
        crew = Crew(study, workers, address)
    how, hold = (study, found, positions, vision), positions is not None or vision
    if keep is None:
        crew.scratch = Scratch()
        store = Store(crew.scratch.path, argument="TMPDIR")
        return crew.open(*how, store, stages, warned, hold=hold)
    with taken(keep.parent, "call"):
        store = Store(keep.resolve(), argument="keep")
        pairs = crew.open(*how, store, stages, warned, hold=hold)
        store.remove()
    return replace(pairs, keep=keep.parent)


def warned(text: str, warns: bool) -> None:
    """Warn, in a program, of what workers warn of."""
    if warns:
        warnings.warn(text, stacklevel=6)


def _opening(
    study: Study,
    found: Found | Listed,
    store: Store,
    positions: Positions | None = None,
    vision: bool = False,
    **more: Any,
) -> Opening:
    mark = f".{uuid4().hex}.seen"
    how = study, found, positions, vision, store.folder, mark, store.argument
    return Opening(*how, **more)


def _unstored(entries: tuple[Any, ...]) -> tuple[Any, ...]:
    """Return pairs or rows without pictures in memory, which lie in files for the workers."""
    return tuple(replace(one, stored=None) for one in entries)


class _Asking:
    """Calls a method of the coordinator, wherever it runs."""

    def __init__(self, coordinator: Any) -> None:
        self._coordinator = coordinator

    def __call__(self, method: str, *given: Any) -> Any:
        import ray

        return ray.get(getattr(self._coordinator, method).remote(*given))


@contextmanager
def _marked(opening: Opening) -> Iterator[None]:
    """Leave a file beside the units while workers begin, by which they know the folder."""
    mark = opening.store / opening.mark
    with reporting_failure(opening.store):
        mark.parent.mkdir(parents=True, exist_ok=True)
        mark.touch()
    try:
        yield
    finally:
        with suppress(OSError):
            mark.unlink()


@contextmanager
def _watched(stages: Stages, say: Say) -> Iterator[Callable[[Standing], None]]:
    """Give what shows people how far the workers are, and what they say."""
    held, said = ExitStack(), set[str]()
    stage, advance = "", held.enter_context(stages("Starting workers"))

    def show(now: Standing) -> None:
        nonlocal stage, advance
        if now.stage != stage:
            held.close()
            stage, advance = now.stage, held.enter_context(stages(now.stage))
        if now.total:
            advance(now.done, now.total)
        left_out = {f"pair {name} is left out: {why}": True for name, why in now.left_out.items()}
        for words, warns in (now.said | left_out).items():
            if words not in said:
                said.add(words)
                say(words, warns)

    with held:
        yield show


def _shared_out(
    found: Cluster, study: Study, workers: int | None
) -> tuple[int, dict[str, Any], Here]:
    """Return how many workers there are, what each needs of Ray, and where it stands."""
    gpus = found.gpus if study.device in ("auto", "cuda") else 0
    count = workers or gpus or len(found.nodes)
    needs: dict[str, Any] = {"num_cpus": 1, "max_restarts": 0}
    if gpus:
        several = gpus // count if study.device_map else 1
        needs["num_gpus"] = several if count <= gpus else 1 / math.ceil(count / gpus)
    threads = None
    if "OMP_NUM_THREADS" not in os.environ:
        cores = sum(one for one, _ in found.nodes)
        threads = max(1, (_own_cores() if found.local else cores) // count)
    return count, needs, Here(Path.cwd(), threads)


def _own_cores() -> int:
    """Return how many cores this process may use."""
    allowed = getattr(os, "sched_getaffinity", None)  # not on every system
    return len(allowed(0)) if allowed else os.cpu_count() or 1


def _dismiss(ray: Any, workers: dict[str, Any]) -> None:
    for one in workers.values():
        with suppress(Exception):  # Python ends, and Ray has ended before
            if ray.is_initialized():  # else it would be started for this
                ray.kill(one)


def _listed(words: list[str]) -> str:
    return " and ".join(filter(None, [", ".join(words[:-1]), words[-1]]))
