"""The ``run.yaml`` of a folder: a record of every verb whose files lie there."""

import csv
import hashlib
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace
from functools import cache, cached_property
from pathlib import Path
from typing import Any, Final

from headpatch.core.output.files import reading
from headpatch.core.question import verbs
from headpatch.core.study.record import EDITED, RUN, Record, read_record, records_in
from headpatch.errors import InputError

FIGURES: Final = (".png", ".pdf", ".svg", "_data.csv")
"""How the files of a figure end: as it may be drawn, and its data."""


def _every_format(files: tuple[str, ...]) -> tuple[str, ...]:
    """Return files of a verb, and what its figures are called in other formats."""
    figures = (name.removesuffix(".png") for name in files if name.endswith(".png"))
    return (*files, *(f"{name}{ending}" for name in figures for ending in FIGURES[1:]))


WRITTEN: Final[Mapping[str, tuple[str, ...]]] = {
    verb.name: _every_format(verb.files) for verb in verbs() if verb.files
}
"""By verb; the first is always written. A run deletes what an earlier one of its verb left."""
SHARED: Final = frozenset({"gate.csv"})
"""Files of several verbs, one of which does not displace the other."""
UPON: Final[Mapping[str, tuple[str, ...]]] = {"verdict": ("claims",)}
"""Verbs whose results are about those of another, and go when that is run again."""


def verbs_in(folder: Path) -> tuple[str, ...]:
    """Name the verbs whose files lie in a folder, by the names of the files alone."""
    there = {verb for verb, (first, *_) in WRITTEN.items() if (folder / first).is_file()}
    if effects_by(folder) != "ablate":  # sweep writes a table of this name as well
        there.discard("ablate")
    return tuple(verb for verb in WRITTEN if verb in there)


def effects_by(folder: Path) -> str | None:
    """Return who wrote the ``effects.csv`` in a folder, `ablate` or `sweep`; None if neither."""
    try:
        with (folder / "effects.csv").open(encoding="utf-8", newline="") as stream:
            columns = next(csv.reader(stream), [])
    except (OSError, ValueError, csv.Error):
        return None
    marks = {"control_n": "ablate", "attention_rank": "sweep"}
    return next((verb for mark, verb in marks.items() if mark in columns), None)


@dataclass(frozen=True)
class Records:
    """What is known of the runs of a folder."""

    folder: Path
    every: tuple[Record, ...]  # the latest first

    @classmethod
    def read(cls, folder: Path) -> "Records":
        """Read a folder's ``run.yaml``: none if there is no such file, or an `InputError`."""
        path = folder / RUN
        if not path.is_file():
            return cls(folder, ())
        with reading(path):
            found = tuple(records_in(read_record(path)))
            if not found or not found[0].run:
                raise ValueError("it lacks `study:` and `run:`")
        return cls(folder, found)

    def of(self, verb: str) -> Record | None:
        """Return a verb's record; of an earlier version's folder, that of its latest run."""
        return next((one for one in self.every if one.verb in (verb, "")), None)

    def wrote(self, name: str) -> tuple[Record, ...]:
        """Return the records of the runs that wrote a file as it is; none if nothing says which."""
        named = [one for one in self.every if name in (one.files or ())]
        if len(named) > 1:  # the same for both, or the later run's
            fits = [one for one in named if self._digest(name) == (one.files or {})[name]]
            named = fits or named[:1]
        silent = [one for one in self.every if one.files is None]
        by_name = [one for one in silent if not one.verb or name in WRITTEN.get(one.verb, ())]
        return tuple(named or by_name[:1])

    def changed(self, record: Record, names: Collection[str]) -> list[str]:
        """Say which of `names` are no longer as a run wrote them; `RUN` is the record itself.

        Files that have gone are left out.
        """
        files = record.files or {}
        there = [name for name in names if name in files and (self.folder / name).is_file()]
        found = [name for name in there if self._digest(name) != files[name]]
        return [RUN, *found] if RUN in names and record.changed else found

    def refuse_changed(self, argument: str, record: Record, names: Collection[str]) -> None:
        """Refuse files that are no longer as a run wrote them, where an outcome hangs on them."""
        for name in self.changed(record, names):
            hint = "Put the file back, or run the verb that wrote it again."
            if name == RUN:
                hint += f" If you meant to change {record.verb}'s record: `checksum: {EDITED}`."
            found = f"{self.folder / name} was changed after the run"
            raise InputError(argument, found, "the file as the run wrote it", hint)

    @cached_property
    def _digest(self) -> Callable[[str], str]:
        @cache
        def of(name: str) -> str:
            try:
                return digest(self.folder / name)
            except OSError:
                return ""

        return of


def digest(path: Path) -> str:
    """Return the SHA-256 of a file; of a table whatever way its lines end (git changes that)."""
    if path.suffix == ".csv":
        return hashlib.sha256(path.read_bytes().replace(b"\r\n", b"\n")).hexdigest()
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def merged(
    folder: Path, verb: str, own: Mapping[str, Any], files: Mapping[str, str]
) -> tuple[dict[str, Any], set[str]]:
    """Put a run's record (`own`: ``study`` and ``run``) before those that are there.

    `files` is what it wrote, with their SHA-256. Returns what ``run.yaml`` holds then, and the
    files that are deleted: left by an earlier run of the verb, or by another verb whose table this
    run replaces.
    """
    assert set(files) <= set(WRITTEN.get(verb, files)), f"{verb} writes what WRITTEN does not name"
    run = {"verb": verb, **own["run"], "files": dict(files)}
    latest = Record(verb, own["study"], run).signed()
    others, upon = [one for one in _known(folder, verb) if one.verb != verb], UPON.get(verb, ())
    displaced = [one for one in others if one.verb in upon or _names(one) & set(files) - SHARED]
    kept = [one for one in others if one not in displaced]
    stale = {name for one in (verb, *upon) for name in WRITTEN.get(one, ())}
    # Of a verb whose effects.csv is replaced no record need say so.
    nameless = effects_by(folder) if "effects.csv" in files else None
    for one in (*others, *([Record(nameless, {}, {})] if nameless else [])):
        stale |= set(() if one in kept else _names(one))
    gone = stale - set(files) - {name for one in kept for name in _names(one)}
    content = latest.content
    if kept:
        content["earlier"] = {one.verb: one.content for one in kept}
    return content, gone


def _known(folder: Path, verb: str) -> list[Record]:
    """The records that are there; a nameless one gets its name, if only one verb can have it."""
    try:
        found = Records.read(folder).every
    except ValueError:  # damaged: of what it said nothing is left
        return []
    there = verbs_in(folder)
    only = there[0] if len(there) == 1 else ""
    named = [one if one.verb else replace(one, verb=only) for one in found]
    return [one for one in named if one.verb in WRITTEN]


def _names(record: Record) -> set[str]:
    """What a run wrote, as far as its verb may have: a record can be edited, and files go by it."""
    possible = set(WRITTEN.get(record.verb, ()))
    return possible if record.files is None else possible & set(record.files)
