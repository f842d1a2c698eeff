"""Finished units of a long run, one file each: the one way in which an interrupted run goes on.

A unit is what was measured of one pair for one task. Its key is a hash of all that its numbers
depend on, so that it is found again only by a run that would measure the same. A file names the
unit that it is, and holds a checksum: what does not fit, however it came about, counts as not
finished and is measured anew.
"""

import hashlib
import io
import json
import shutil
import warnings
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable
from weakref import finalize

import torch
from PIL import Image

from headpatch import __version__
from headpatch.core.output.lock import scratch_folder
from headpatch.core.output.shards import shards_in
from headpatch.core.output.staging import taken
from headpatch.core.study.study import Study
from headpatch.disk import UNFINISHED, reporting_failure, tensor_bytes, write_whole
from headpatch.errors import InputError, RowError
from headpatch.models.vlm import VLM
from headpatch.models.wording import prompt_text
from headpatch.pairs.manifest import Entry, usable
from headpatch.pairs.pair import Pair
from headpatch.text import user_path

_FORMAT = "headpatch unit 4"
_SUFFIX = ".unit"
_OLDER = f"{'[0-9a-f]' * 64}*.pt"  # as files were called that did not say what they are


def _picture(image: Image.Image) -> str:
    return hashlib.sha256(f"{image.size}".encode() + image.tobytes()).hexdigest()


def unit_key(study: Study, vlm: VLM, pair: Pair, asked: Mapping[str, Any]) -> str:
    """Name what is measured of a pair, and how (`asked`): whatever its numbers depend on, hashed.

    Where the model runs is left out but for the kind of device: units that several devices of one
    kind have measured belong together.
    """
    pictures: Any = vlm.processor
    framing = study.of_pair(pair).framing
    other = pair.question_without and prompt_text(vlm, pair.question_without, framing)
    around = framing.pictures
    content = {
        "format": _FORMAT,
        "headpatch": __version__,
        "asked": asked,
        "study": study.model_dump(include={"answers", "seed", "quantize"}, mode="json"),
        **({"sum_variants": True} if study.sum_variants else {}),
        "name": pair.name,
        "question": pair.question,
        "prompt": prompt_text(vlm, pair.question, framing),
        **({"asked without": other} if other else {}),
        **({"own answers": pair.answers} if pair.answers else {}),
        **({"context": [_picture(one) for one in around]} if around else {}),
        "region": (pair.region.name, pair.region.box),
        "pictures": [_picture(image) for image in pair.images],
        "taken in by": pictures.image_processor.to_dict(),
        "device": vlm.device.type,
        **vlm.identity,
    }
    text = json.dumps(content, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()


@runtime_checkable
class Unit(Protocol):
    """What a loop goes over: a pair of a dataset, or a row of single pictures."""

    @property
    def name(self) -> str:
        """What tables call it; unique."""

    def pair(self) -> Pair:
        """Read its pictures."""


def key_of(study: Study, vlm: VLM, entry: Unit, asked: Mapping[str, Any]) -> str:
    """Do what `unit_key` does for a pair of a dataset; of one that cannot be run, hash why."""
    try:
        return unit_key(study, vlm, entry.pair(), asked)
    except InputError as error:
        if not isinstance(error, RowError) and error.argument != "--question":
            raise
        return hashlib.sha256(f"{_FORMAT} {entry.name} {error}".encode()).hexdigest()


def dataset_digest(entries: Iterable[Entry]) -> str:
    """Hash pairs on which a unit depends beside its own: what a mean over them is made of."""
    found = hashlib.sha256()
    for entry in usable(entries):
        own = [str(entry.answers)] * bool(entry.answers) + [entry.question_without or ""]
        for part in (entry.name, entry.question, str(entry.region.box), *own):
            found.update(part.encode())
        for path in (entry.with_path, entry.without_path, *entry.context):
            found.update(path.read_bytes())
    return found.hexdigest()


@dataclass(frozen=True)
class _Unit:
    """What a file holds, once it is known to be whole and the unit that it is called."""

    count: int
    payload: bytes

    @classmethod
    def read(cls, path: Path) -> "_Unit | None":
        """Read a file; None if it is not there, or does not fit."""
        try:
            head, _, payload = path.read_bytes().partition(b"\n")
            count, _ = head.removeprefix(_FORMAT.encode()).split()
            unit = cls(int(count), payload)
        except (OSError, ValueError):
            return None
        return unit if head == unit.head(path.stem) else None

    def head(self, key: str) -> bytes:
        """Return a file's first line: its format, what it counts as, and its checksum."""
        said = f"{_FORMAT} {self.count}"
        digest = hashlib.sha256(f"{said} {key} ".encode() + self.payload).hexdigest()
        return f"{said} {digest}".encode()


class Store:
    """A folder of finished units, each whole or not there; there only from the first to `remove`.

    Safe with many writers on a shared file system: a unit is written under a name of its own and
    renamed, and whoever writes one writes the same. For messages, `what` is counted (pairs, rows)
    and `argument` names the folder. `unfit` files are damaged, or under another unit's name. What
    does not `make` the folder writes nothing after another process has removed it.
    """

    def __init__(
        self, folder: Path, what: str = "pairs", argument: str = "--out", make: bool = True
    ) -> None:
        self.folder, self.what, self.argument, self._make = folder, what, argument, make
        self.unfit = 0
        self._counts: dict[str, int] = {}  # by key: of this run's units, as far as is known
        self._used: set[str] = set()

    @property
    def count(self) -> int:
        """How much is finished: what was found when the run began, and what came since."""
        return sum(self._counts.values())

    @property
    def unfit_words(self) -> str:
        """Say that so many files do not fit."""
        why = "damaged, of an older headpatch or not what they are called"
        files = f"{self.unfit:,} of the files in {self.folder} are {why}"
        return f"{files}; what they were to hold is measured anew"

    def open(self, resume: bool | None, run: str, keys: Collection[str] | None = None) -> None:
        """Look at what an earlier run of this kind has left.

        `resume`: True goes on from it, False discards it, None refuses to decide. `keys` are of all
        units of this run (up to a dash), if they are known yet: others are not counted, and nothing
        but others is an error. What counts as nothing is used without a word.
        """
        if resume is False:
            self._remove(self._files())
            return
        units = {path.stem: _Unit.read(path) for path in self._files()}
        self.unfit = sum(unit is None for unit in units.values())
        counts = {key: unit.count for key, unit in units.items() if unit and unit.count}
        self._counts = {
            key: counts[key] for key in counts if keys is None or key.partition("-")[0] in keys
        }
        left = f"{self.folder} holds {{:,}} finished {self.what} of an interrupted {run}"
        if counts and not self._counts:
            found = left.format(sum(counts.values()))
            hint = "Finish that one first, use another --out, or discard it with --no-resume."
            found += " of another study, other pictures or another model"
            raise InputError(self.argument, found, "this study's", hint)
        if self._counts and resume is None:
            found = left.format(self.count) + ("" if keys is None else " of this study")
            hint = (
                "Use --resume to go on from there or --no-resume to start over; "
                f"{self.what} of another study, model or dataset are not used."
            )
            raise InputError(self.argument, found, "to be told what to do with them", hint)

    def get(self, key: str) -> dict[str, Any] | None:
        """Return what was put under a key, bit for bit; None if nothing was, or it does not fit."""
        unit = _Unit.read(self._path(key))
        if unit is None:
            return None
        try:
            found: dict[str, Any] = torch.load(io.BytesIO(unit.payload), weights_only=True)
        except Exception:  # whole, but of a torch that this one does not understand
            return None
        self._used.add(key)
        self._counts[key] = unit.count
        return found

    def holds(self, key: str) -> bool:
        """Whether something is there under a key, whole or not."""
        return self._path(key).exists()

    def put(self, key: str, content: Mapping[str, object], count: int = 1) -> None:
        """Write plain tensors, numbers and texts, which count as so much; whole or not at all."""
        self._write(key, content, count)

    def put_aside(self, key: str, content: Mapping[str, object]) -> None:
        """Write what counts as nothing: whoever goes on uses it without a word."""
        self._write(key, content, 0)

    def _write(self, key: str, content: Mapping[str, object], count: int) -> None:
        unit = _Unit(count, tensor_bytes(content))
        with reporting_failure(self.folder, self.argument):
            write_whole(self._path(key), unit.head(key) + b"\n" + unit.payload, self._make)
        self._used.add(key)
        self._counts[key] = count

    def recount(self) -> None:
        """Count what is finished anew: other processes write here, too."""
        units = {path.stem: _Unit.read(path) for path in self._files()}
        self._counts = {key: unit.count for key, unit in units.items() if unit is not None}

    @property
    def keys(self) -> frozenset[str]:
        """Keys of all files that are there, whole or not."""
        return frozenset(path.stem for path in self._files())

    @property
    def used(self) -> frozenset[str]:
        """Keys of the units that were put or read."""
        return frozenset(self._used)

    def note(self, keys: Collection[str]) -> None:
        """Take note of units that other processes have put here."""
        self._used |= set(keys)

    def discard(self, key: str) -> None:
        """Delete a unit, if there is one."""
        with reporting_failure(self.folder, self.argument):
            self._path(key).unlink(missing_ok=True)
        self._counts.pop(key, None)

    def remove(self) -> None:
        """Delete this run's units, what does not fit, and the folder if it is empty then."""
        mine = (path for path in self._files() if path.stem in self._used or not _Unit.read(path))
        self._remove(list(mine))

    def _remove(self, files: Sequence[Path]) -> None:
        with reporting_failure(self.folder, self.argument):
            for path in (*files, *self.folder.glob(f"*{UNFINISHED}")):
                path.unlink(missing_ok=True)
            for place in shards_in(self.folder).values():
                shutil.rmtree(place)
            if self.folder.is_dir() and not any(self.folder.iterdir()):
                with suppress(OSError):  # a worker that ends late may write at this very moment
                    self.folder.rmdir()
        self._counts = {}

    def _files(self) -> Sequence[Path]:
        names = (f"*{_SUFFIX}", _OLDER)
        return [path for name in names for path in sorted(self.folder.glob(name))]

    def _path(self, key: str) -> Path:
        return self.folder / f"{key}{_SUFFIX}"


class Scratch:
    """A new folder that is deleted together with this object, or when Python ends."""

    def __init__(self) -> None:
        held = ExitStack()
        self.path = held.enter_context(scratch_folder())
        finalize(self, held.close)


@contextmanager
def store_in(
    keep: str | Path | None,
    what: str,
    run: str,
    keys: Collection[str] | None = None,
    alone: bool = True,
) -> Iterator[Store]:
    """Give a place for what is finished; it is emptied if the block ends well.

    `keep` is a folder from which an interrupted call goes on; None keeps nothing beyond the block.
    `what` is counted, for messages: pairs, rows. `run` and `keys` are as in `Store.open`. Where
    this process is not `alone` the folder is everybody's, and is not emptied.
    """
    if keep is None:
        with scratch_folder() as folder:
            yield Store(folder, what)
        return
    place = user_path(keep, "keep")
    if not alone:
        store = Store(place, what, "keep")
        store.open(True, run, keys)
        yield store
        return
    with taken(place, "call"):
        store = Store(place, what, "keep")
        store.open(True, run, keys)
        if store.unfit:
            warnings.warn(store.unfit_words, stacklevel=4)
        yield store
        store.remove()
    with suppress(OSError):  # something else is in it
        place.rmdir()
