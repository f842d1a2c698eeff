"""What a folder of results holds: which runs, and which of them one report speaks of.

A run is a record of a ``run.yaml``, and the files that it names. A report takes the named folder
and the folders directly in it, so that several verbs may share one folder or have one each. Runs of
other weights, or of another pair or question, are left out, and the page says so: one report speaks
of one study.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from headpatch.core.output.files import read_table, read_tensors, reading
from headpatch.core.output.records import FIGURES, WRITTEN, Records, verbs_in
from headpatch.core.output.staging import settle
from headpatch.core.study.record import RUN, Record
from headpatch.errors import InputError

if TYPE_CHECKING:
    import pandas

SHOWN = sorted({name for names in WRITTEN.values() for name in names if not name.endswith(FIGURES)})
"""Files that sections are made of; a folder without any of them holds no results."""


@dataclass(frozen=True)
class Part:
    """One run of the folder that its files are in."""

    folder: Path
    name: str
    """The run, as seen from the report's folder: empty for that folder itself, and with its verb
    where several runs share a folder."""
    record: Record
    own: frozenset[str]  # files that it wrote and that are there
    changed: tuple[str, ...] = ()  # those that are no longer as it wrote them, or ``run.yaml``

    @property
    def study(self) -> Mapping[str, Any]:
        """The study as it was run."""
        return self.record.study

    @property
    def run(self) -> Mapping[str, Any]:
        """What ran it."""
        return self.record.run

    @property
    def many(self) -> bool:
        """Whether it ran a dataset of pairs rather than the study's own pair."""
        return "pairs" in self.run

    @property
    def verbs(self) -> tuple[str, ...]:
        """The verb that was run; all whose files are there, if an earlier version kept no name."""
        if self.record.verb:
            return (self.record.verb,)
        found = verbs_in(self.folder)
        return found if self.study.get("claims") else tuple(v for v in found if v != "claims")

    def has(self, name: str) -> bool:
        """Whether it wrote a file that is there."""
        return name in self.own

    def files(self) -> list[str]:
        """Name its files that sections are made of."""
        return [name for name in SHOWN if self.has(name)]


def written_in(folder: Path, argument: str) -> Records:
    """Read the records of a folder that a verb wrote; an `InputError` if it holds none."""
    settle(folder)
    records = Records.read(folder)
    if not records.every:
        hint = f"`headpatch rank --out {folder}` writes one."
        raise InputError(argument, f"{folder} holds no {RUN}", "a folder that a verb wrote", hint)
    return records


def read(part: Part, name: str, needed: Mapping[str, str]) -> "pandas.DataFrame":
    """Read a table of a run; see `headpatch.core.output.files.read_table`."""
    return read_table(part.folder / name, needed)


def load(part: Part, name: str, needed: Mapping[str, int]) -> dict[str, Any]:
    """Read the tensors of a run, as arrays; see `headpatch.core.output.files.read_tensors`."""
    return {key: _arrays(one) for key, one in read_tensors(part.folder / name, needed).items()}


def reading_of(part: Part, name: str) -> AbstractContextManager[None]:
    """Turn whatever a damaged file of a run raises into one line, as `files.reading` does.

    It names `name`, unless that is as the run wrote it and another file of the run is not.
    """
    others = sorted(part.changed, key=RUN.__eq__)  # a table rather than the record
    blamed = name if name in others or not others else others[0]
    return reading(part.folder / blamed)


def _arrays(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _arrays(one) for key, one in value.items()}
    return value.numpy() if hasattr(value, "numpy") else value


@dataclass(frozen=True)
class LeftOut:
    """A run, or a file, that the report does not speak of, and why."""

    name: str
    why: str


@dataclass(frozen=True)
class Results:
    """The saved results that one report speaks of."""

    root: Path
    parts: tuple[Part, ...]  # the first one says what the study is
    left_out: tuple[LeftOut, ...]

    @property
    def main(self) -> Part:
        """The run that says what the study is."""
        return self.parts[0]

    @property
    def valid(self) -> bool:
        """Whether no run says that its study was forced."""
        return all(part.run.get("valid", True) is not False for part in self.parts)

    @property
    def changed(self) -> list[str]:
        """Name the files that are no longer as the run wrote them."""
        files = [part.folder / name for part in self.parts for name in part.changed]
        return sorted(str(file.relative_to(self.root)) for file in files)

    def reading(self) -> AbstractContextManager[None]:
        """Blame a file that was changed for whatever goes wrong meanwhile; nothing if none was."""
        part = next((part for part in self.parts if part.changed), None)
        return nullcontext() if part is None else reading_of(part, "")

    def having(self, name: str) -> list[Part]:
        """Return the runs that hold a file."""
        return [part for part in self.parts if part.has(name)]

    def first(self, name: str) -> Part | None:
        """Return the first run that holds a file."""
        return next(iter(self.having(name)), None)

    def table(self, name: str, needed: Mapping[str, str]) -> "pandas.DataFrame | None":
        """Read a table of the first run that has it; see `read`."""
        part = self.first(name)
        return None if part is None else read(part, name, needed)

    def tensors(self, name: str, needed: Mapping[str, int]) -> dict[str, Any] | None:
        """Read the tensors of the first run that has them; see `load`."""
        part = self.first(name)
        return None if part is None else load(part, name, needed)

    @cached_property
    def pictures(self) -> "tuple[dict[str, Any], dict[str, Any]] | None":
        """What `rank` kept of both runs: pictures, answers, LD, and the rows of attention."""
        needed = {"lm_rows": 3, "image_positions": 1, "boxes": 2, "region_box": 1, "ld": 0}
        present = self.tensors("attention_with_triangle.pt", needed)
        absent = self.tensors("attention_without_triangle.pt", needed)
        return None if present is None or absent is None else (present, absent)


def find(root: Path) -> Results:
    """Find the runs in a folder and directly below it; none, or a damaged record, is an error."""
    if not root.is_dir():
        found = "a file" if root.exists() else "no such folder"
        hint = f"`headpatch rank --out {root}` makes one."
        raise InputError("DIR", f"{root}: {found}", "a folder with results", hint)
    with reading(root):
        below = sorted(one for one in root.iterdir() if one.is_dir() and one.name[0] != ".")
    every: list[Part] = []
    loose: list[LeftOut] = []
    for folder in (root, *below):
        settle(folder)
        if runs := list(parts_of(Records.read(folder), root)):
            every += runs
            loose += _loose(runs, root)
    parts = [part for part in every if part.files()]
    if not parts:
        lying = [name for name in SHOWN if (root / name).is_file()]
        found = f"{lying[0]} without the {RUN} of its run" if lying else "no results"
        expected = f"the files of a run, {RUN} among them"
        hint = f"`headpatch rank --out {root}` writes them."
        raise InputError("DIR", f"{root} holds {found}", expected, hint)
    main = min(parts, key=lambda part: _importance(part, root))
    rest = [part for part in parts if part is not main]
    others = {part.name: why for part in rest if (why := _differs(part, main))}
    kept = tuple(part for part in rest if part.name not in others)
    left_out = (*(LeftOut(*one) for one in others.items()), *loose)
    return Results(root, (main, *kept), left_out)


def parts_of(records: Records, root: Path) -> Iterator[Part]:
    """Give the runs of a folder, each with the files that it wrote."""
    folder = records.folder
    place = "" if folder == root else folder.name
    with reading(folder):
        names = [file.name for file in folder.iterdir() if file.is_file()]
    wrote = {name: records.wrote(name) for name in names}
    for record in records.every:
        own = frozenset(name for name in names if record in wrote[name])
        shared = len(records.every) > 1
        name = f"{place or 'this folder'} ({record.verb})" if shared else place
        read = [RUN, *(name for name in record.files or () if not name.endswith(FIGURES))]
        yield Part(folder, name, record, own, tuple(records.changed(record, read)))


def _loose(parts: list[Part], root: Path) -> Iterator[LeftOut]:
    """Name files of results that no run has written."""
    folder, known = parts[0].folder, {name for part in parts for name in part.own}
    for name in SHOWN:
        if name not in known and (folder / name).is_file():
            place = str((folder / name).relative_to(root))
            yield LeftOut(place, f"which no run of {RUN} has written")


def _importance(part: Part, root: Path) -> tuple[bool, bool, bool]:
    """Sort the run that says most about the study first; the folder's own before those in it."""
    return not part.has("verdicts.csv"), part.folder != root, not part.has("heads.csv")


def _differs(part: Part, main: Part) -> str:
    """Say why a run is not of the same study; empty if it is."""
    why = _difference(part, main)
    return f"{why}, and its {RUN} was changed after the run" if why and RUN in part.changed else why


_OF_STUDY: Final = (
    "with", "without", "question", "region", "answers", "prompt", "system", "context_images",
    "sum_variants",
)  # fmt: skip
"""Keys that differ between runs of several studies."""


def _difference(part: Part, main: Part) -> str:
    if part.run.get("weights") != main.run.get("weights"):
        model = part.run.get("model")
        same = model == main.run.get("model")
        return f"of other weights of {model}" if same else f"of another model ({model})"
    if part.many or main.many:
        return ""
    for key in _OF_STUDY:
        own, other = part.study.get(key), main.study.get(key)
        if own != other and (own or other):  # a flag that is off may be left out
            return f"of another study (its {key} differs)"
    return ""


_READERS: Final[Mapping[str, Callable[[Path], Any]]] = {".csv": read_table, ".pt": read_tensors}


class Saved(Mapping[str, Any]):
    """Tables (``.csv``, DataFrames) and tensors (``.pt``, dicts) of a folder, by file name."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._read: dict[str, Any] = {}

    def __getitem__(self, name: str) -> Any:
        if name not in self:
            raise KeyError(f"{self.folder} holds no {name}; it holds {', '.join(self)}")
        if name not in self._read:
            path = self.folder / name
            self._read[name] = _READERS[path.suffix](path)
        return self._read[name]

    def __contains__(self, name: object) -> bool:
        path = self.folder / str(name)
        return path.suffix in _READERS and path.is_file()

    def __iter__(self) -> Iterator[str]:
        return iter(sorted(one.name for one in self.folder.iterdir() if one.name in self))

    def __len__(self) -> int:
        return sum(1 for _ in self)
