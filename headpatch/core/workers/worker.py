"""A worker: loads the model once, opens the pairs, and answers questions of them with others."""

import logging
import os
import socket
import time
import traceback
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final, Literal

import torch

from headpatch import __version__
from headpatch.core.ask import ready
from headpatch.core.baseline_runs import survey
from headpatch.core.dataset import Found, Pairs
from headpatch.core.labelled_rows import Rows
from headpatch.core.outlook import Stage, price_words
from headpatch.core.question import Call, Question, Result, verbs
from headpatch.core.session import model_of
from headpatch.core.share import ALONE
from headpatch.core.store import Store
from headpatch.core.study.study import Study
from headpatch.core.workers.handed import Again, Handed
from headpatch.core.workers.packing import packed, without_weights
from headpatch.engine.patching import OnProgress
from headpatch.engine.replay import recorded
from headpatch.errors import HeadpatchError, InputError, RunError
from headpatch.models.spans import Positions
from headpatch.models.vlm import VLM
from headpatch.pairs.labelled import Listed, Refused
from headpatch.pairs.manifest import usable

_PATIENCE: Final = 10.0  # seconds until a file of another machine must be seen


@dataclass(frozen=True)
class Here:
    """Where a worker stands, as its driver knows it."""

    folder: Path  # from which relative paths go
    threads: int | None  # None: as many as the worker's environment says
    host: str = field(default_factory=socket.gethostname)
    version: str = __version__


@dataclass(frozen=True)
class Opening:
    """Which pairs are opened, how, or which labelled rows, and where their units go."""

    study: Study
    found: Found | Listed
    positions: Positions | None
    vision: bool
    store: Path
    mark: str  # a file beside the units, by which a worker knows that they go where all see them
    argument: str  # that named their folder
    means: bool = True  # whether mean z is needed
    hold: bool = True  # whether pairs stay open
    count: Literal[0, 1] = 0  # as what a unit of them counts


@dataclass(frozen=True)
class Asked:
    """A question: its verb, the study with its options, and what is given in memory."""

    verb: str
    study: Study
    given: Mapping[str, Any]
    store: Path


@dataclass(frozen=True)
class Done:
    """What a worker ended a task with: pickled pairs or a result, or an error.

    `model` is that of pairs, without weights. `used`: the units that were read. `trace` is the
    error's traceback.
    """

    content: bytes = b""
    model: bytes = b""
    used: frozenset[str] = frozenset()
    error: HeadpatchError | None = None
    trace: str = ""


class Worker:
    """Holds a model and open pairs; what it measures, a coordinator hands to it.

    `ask` calls a method of a `Coordinator` by its name.
    """

    def __init__(self, ask: Callable[..., Any], name: str, here: Here) -> None:
        self._ask, self._name, self._here = ask, name, here
        self._vlm: VLM | None = None
        self._shell = b""  # the model without weights
        self._pairs: Pairs | None = None
        self._of: tuple[Opening, Mapping[str, str]] | None = None  # what is open
        self._stores: dict[Path, Store] = {}

    def run(self, run: int, opening: Opening, asked: Asked | None) -> Done:
        """Open the pairs, unless they are, and answer what is asked, if anything is.

        A question is asked again where a pair is left out meanwhile. An error is returned: what
        Ray would make of it is longer than a line.
        """
        try:
            self._settle(run, opening)
            with _telling(self._warn):
                while (state := self._ask("epoch", run)) is not None:
                    share = Handed(self._ask, self._name, *state)
                    with suppress(Again):
                        content = self._content(opening, asked, share)
                        stores = (self._store(one.store) for one in (opening, asked) if one)
                        opens = asked is None or isinstance(opening.found, Listed)
                        model = self._shell if opens else b""
                        return Done(content, model, frozenset().union(*(x.used for x in stores)))
        except HeadpatchError as error:
            return Done(error=error, trace=traceback.format_exc())
        except Exception as error:  # a bug, or a fault of the machine
            words = RunError(f"{type(error).__name__}: {error}")
            return Done(error=words, trace=traceback.format_exc())
        return Done()  # others have answered it

    def _settle(self, run: int, opening: Opening) -> None:
        """Stand where the driver does, and see what it sees."""
        if self._here.version != __version__:
            found = f"headpatch {__version__} on a machine of the cluster"
            raise InputError("--ray", found, f"{self._here.version}, as here")
        with suppress(OSError):  # another machine may not have the folder: nor need it
            os.chdir(self._here.folder)
        if self._here.threads is not None:
            torch.set_num_threads(self._here.threads)
        patience = time.monotonic() + _PATIENCE
        while not (opening.store / opening.mark).exists():  # a shared file system may be slow
            if self._ask("epoch", run) is None:  # others were done before this one began
                return
            if time.monotonic() > patience:
                found = f"{opening.store} on {socket.gethostname()} is not the folder of that name"
                found += f" on {self._here.host}"
                raise InputError(
                    opening.argument, found, "a folder that all machines of the cluster share"
                )
            time.sleep(0.1)

    def _content(self, opening: Opening, asked: Asked | None, share: Handed) -> bytes:
        vlm = self._loaded(opening.study)
        with recorded(vlm, opening.study.pairs.record):
            return self._found(vlm, opening, asked, share)

    def _found(self, vlm: VLM, opening: Opening, asked: Asked | None, share: Handed) -> bytes:
        if asked is not None:
            _question(asked).check_model(asked.study, vlm)
        if asked is not None and isinstance(opening.found, Listed):
            return packed(self._answered(_rows(opening.found, asked, vlm, share), asked), vlm)
        pairs = replace(self._opened(opening, vlm, share), share=share)
        if asked is None:
            shown = replace(pairs.survey, reference=None, open_pairs=None)
            return packed(replace(pairs, survey=shown, drawn=None, share=ALONE), vlm)
        return packed(self._answered(pairs, asked), vlm)

    def _loaded(self, study: Study) -> VLM:
        """Load the model, unless it is."""
        if self._vlm is None:
            with self._stages("Loading the model"):
                self._vlm = model_of(study)
            self._shell = without_weights(self._vlm)  # before it runs, after which it is not plain
        return self._vlm

    def _opened(self, opening: Opening, vlm: VLM, share: Handed) -> Pairs:
        """Run the pairs with the other workers, unless they are open."""
        assert isinstance(opening.found, Found)
        of = opening, share.left_out
        if self._pairs is None or self._of != of:
            self._pairs = None  # its memory goes before others take it
            study = opening.study.override({"pairs.manifest": opening.found.manifest})
            where = opening.positions, opening.vision
            seen = survey(
                study, vlm, opening.found.entries, where[0], None, where[1], opening.hold,
                means=opening.means, store=self._store(opening.store), share=share,
                count=opening.count,
            )  # fmt: skip
            self._pairs, self._of = Pairs(study, vlm, seen, *where), of
        return self._pairs

    def _answered(self, opened: Pairs | Rows, asked: Asked) -> Result:
        question, study, store = _question(asked), asked.study, self._store(asked.store)
        call = Call(self._stages, self._say, self._price, store, given=asked.given)
        opened = replace(opened, study=study)
        if isinstance(opened, Pairs):
            entries = [one.entry for one in opened.survey.gated]
            if question.verb.keyed:
                units = question.units(study, opened.vlm, entries, asked.given)
                call = replace(call, units=units)
            entries = list(usable(entries))
            call.announce(question.price(study, opened.vlm, entries), len(entries))
        target: Any = ready(opened, question.needs(study), self._stages, store)
        found: Result = question.answer(target, call)
        return found

    def _store(self, folder: Path) -> Store:
        return self._stores.setdefault(folder, Store(folder, make=False))

    def _say(self, text: str) -> None:
        self._ask("say", text, False)

    def _price(self, stages: Sequence[Stage], pairs: int) -> None:
        if stages:
            self._say(price_words(stages, pairs))

    def _warn(self, text: str) -> None:
        self._ask("say", text, True)

    @contextmanager
    def _stages(self, what: str) -> Iterator[OnProgress]:
        """Begin a stage, as `headpatch.core.progress.Stages`: how far it is, units say."""
        self._ask("stage", what)
        yield lambda _done, _total: None


def _question(asked: Asked) -> Question[Any]:
    (verb,) = (one for one in verbs() if one.name == asked.verb)
    return verb.question()


def _rows(listed: Listed, asked: Asked, vlm: VLM, share: Handed) -> Rows:
    """Open labelled rows, but for those that ended workers."""
    rows, why = _question(asked).rows(asked.study, vlm, listed, share), share.left_out
    gone = [one for one in rows.entries if one.name in why]
    refused = (*rows.refused, *(Refused(one.name, one.line, why[one.name]) for one in gone))
    entries = tuple(one for one in rows.entries if one.name not in why)
    return replace(rows, entries=entries, refused=refused)


@contextmanager
def _telling(say: Callable[[str], None]) -> Iterator[None]:
    """Tell the driver what Python and headpatch warn of: nobody reads a worker's stderr."""

    class Told(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            say(record.getMessage().removeprefix("headpatch: "))

    def shown(message: Warning | str, *_: Any, **__: Any) -> None:
        say(str(message))

    handler, logger = Told(logging.WARNING), logging.getLogger("headpatch")
    logger.addHandler(handler)
    try:
        with warnings.catch_warnings():
            warnings.showwarning = shown
            yield
    finally:
        logger.removeHandler(handler)
