"""A dataset of pairs: a table with one pair a row, and the pictures that it names.

The columns `with` and `question` must be there. `without` is the other picture; it may be left out
where `question_without` asks the one picture something else. `region` says where the object is (see
`headpatch.pairs.region`); without one that is where the pictures differ. `answers` are the right
answers of the two runs, that of `with` first: ``No,Yes``, or a JSON list of two texts.
`context_images` are further pictures, shown before the one in question in both runs. `name` (or
`pair`) and `scene` may be there: pairs of one `scene` count as one in every statistic; without that
column scenes are found by the pictures (`headpatch.pairs.same_scene`). Every further column is a
factor, by which results can be grouped. Paths are relative to the table. A table is a CSV, JSON
lines, or Parquet (with pyarrow), which may hold the pictures itself, as Hugging Face stores them. A
folder stands for its ``manifest.csv``, or for the ``metadata`` file of a dataset in Hugging Face's
``imagefolder`` layout, whose columns of paths are called `with_file_name` and
`without_file_name`, its only Parquet file (all parts of it), or a dataset that was saved to disk;
or for the table of its only folder that holds one, as ``train/metadata.jsonl`` and
``data/train-00000-of-00001.parquet`` are.

A row with which something is wrong is kept with its reason: the others run. What is wrong with the
table as a whole is an error, and so is a table without a row that can be run.

A program may hold the rows in memory: a table of pandas, a list of dicts, a dataset of Hugging
Face's. Their pictures are files, or pictures of Pillow, arrays or bytes.
"""

import hashlib
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from headpatch.errors import InputError, RowError
from headpatch.pairs.columnar import only_table
from headpatch.pairs.pair import Pair, make_pair
from headpatch.pairs.region import UNNAMED, Region
from headpatch.pairs.rows import (
    CONTEXT,
    KNOWN,
    MEMORY,
    Row,
    StoredPictures,
    Table,
    in_memory,
    place_of,
    table_of,
    text_of,
)
from headpatch.text import checked_text

NAME = "manifest.csv"
"""The table of a folder of pairs."""
_PICTURES = ("with", "without")
_NEVER_EMPTY = ("question", "name", "scene")  # where there is such a column
_NAMED = 3  # refused rows
_TABLES = (NAME, "metadata.csv", "metadata.jsonl", "metadata.parquet")


@dataclass(frozen=True)
class Entry:
    """One pair of a dataset, not read yet."""

    name: str  # what tables call the pair; unique in the dataset
    with_path: Path
    without_path: Path
    question: str
    region: Region
    line: int  # of the table, for messages; its number from 1 if it is no line of text
    factors: Mapping[str, str] = field(default_factory=dict, hash=False)  # every further column
    table: Path = Path(NAME)  # that lists the pair, for messages
    scene: str = field(default="", compare=False)
    """What the table calls the scene that it shows, or `headpatch.pairs.same_scene.with_scenes`
    does; empty if neither has."""
    stored: StoredPictures | None = field(default=None, compare=False, repr=False)
    """Keeps pictures that were no files; None if both were."""
    question_without: str | None = None  # asked in the run without the object, if something else
    answers: tuple[str, str] | None = None  # right ones, with and without; None: the study's
    context: tuple[Path, ...] = ()  # shown before either picture; none: the study's
    problem: RowError | None = field(default=None, compare=False, repr=False)
    """What is wrong with the row; None if it can be run, as far as its text says."""

    @property
    def where(self) -> str:
        """The pair's place, as messages name it."""
        return place_of(self.table, self.line)

    @property
    def questions(self) -> tuple[str, str]:
        """What each run is asked."""
        return self.question, self.question_without or self.question

    def pair(self) -> Pair:
        """Read the two pictures; a `RowError` names the table and the line."""
        if self.problem is not None:
            raise self.problem.again()
        other = None if self.with_path == self.without_path else self.without_path
        asked = self.question, self.region, self.name, self.question_without, self.answers
        try:
            pair = make_pair(self.with_path, other, *asked)
            return replace(pair, context=tuple(map(str, self.context)))
        except InputError as error:
            raise self.refused(error) from None

    def refused(self, error: InputError) -> RowError:
        """Say of the row what is wrong with its pair."""
        where = f"{self.where}, {error.argument.replace('--', '')}"  # --with is a column here
        return RowError(where, error.found, error.expected, error.hint)


@dataclass(frozen=True)
class Manifest:
    """A dataset of pairs, in the table's order.

    `path` is the table; of one in memory, ``memory:`` and the hash of what it says, pictures
    included.
    """

    path: Path
    entries: tuple[Entry, ...]

    @classmethod
    def read(cls, path: Path) -> "Manifest":
        """Read a table, or the table of a folder.

        Raises
        ------
        InputError
            If there is no table, or several; if it is malformed, lacks a column, holds a pair or a
            name twice, or no row that can be run. The line is named.
        """
        table = table_of(path, found=_table)
        return cls(table.path, _entries(table))

    @classmethod
    def of(cls, table: Any) -> "Manifest":
        """Read rows that a program holds in memory; what is wrong, as `read`, names the row from 1.

        Parameters
        ----------
        table
            A table of pandas, a list of dicts by column, or a dataset of Hugging Face's. A picture
            is a path (relative to where the program runs) or what else `headpatch.make_pair`
            takes; one that is no file is written to a temporary folder, which lasts as long as its
            pair. Or entries of another dataset.
        """
        rows = in_memory(table)
        if rows and all(isinstance(one, Entry) for one in rows):
            entries = tuple(one for one in rows if isinstance(one, Entry))
            names = [entry.name for entry in entries]
            if twice := [name for name in names if names.count(name) > 1]:
                found = f"the name {twice[0]!r} twice"
                raise InputError("pairs", found, "a name of its own for each")
        else:
            entries = _entries(table_of(rows))
        return cls(Path(f"{MEMORY}sha256:{digest(entries)[:16]}"), entries)

    def take(self, limit: int | None, seed: int) -> "Manifest":
        """Return at most `limit` pairs (an `InputError` below 1) by the seed, in their order."""
        if limit is not None and limit < 1:
            raise InputError("--limit", str(limit), "at least 1 pair")
        if limit is None or limit >= len(self.entries):
            return self
        rng = np.random.default_rng([seed % 2**64, limit])  # numpy takes no negative seed
        drawn = sorted(rng.choice(len(self.entries), size=limit, replace=False).tolist())
        return Manifest(self.path, tuple(self.entries[index] for index in drawn))

    def need(self, count: int, why: str) -> None:
        """Refuse a dataset of fewer than `count` pairs; `why` completes "at least 3 pairs, …"."""
        found = len(usable(self.entries))
        if found < count:
            words = f"{self.path}: {found} {'pair' if found == 1 else 'pairs'} to run"
            words += f", {len(self.entries) - found} refused" * (found < len(self.entries))
            hint = "Add pairs, or raise --limit; headpatch pairs draws as many as you ask for."
            hint = first_reasons([one.problem for one in self.entries if one.problem]) or hint
            raise InputError("--pairs", words, f"at least {count}, {why}", hint)


def usable(entries: Iterable[Entry]) -> tuple[Entry, ...]:
    """Return the pairs with whose rows nothing is wrong."""
    return tuple(entry for entry in entries if entry.problem is None)


def first_reasons(problems: Sequence[InputError]) -> str:
    """Say what is wrong with the first rows that are refused; nothing if none is."""
    if not problems:
        return ""
    said = [f"{one.argument}: {one.found}" for one in problems[:_NAMED]]
    more = f", and {len(problems) - _NAMED} more" if len(problems) > _NAMED else ""
    return f"Refused: {'; '.join(said)}{more}."


def _table(path: Path) -> Path:
    """Return a folder's table, or that of its only folder that has one (a split of a dataset)."""
    if not path.is_dir():
        return path
    if table := _table_in(path):
        return table
    folders = sorted(one for one in path.iterdir() if one.is_dir())
    below = {folder: table for folder in folders if (table := _table_in(folder))}
    if len(below) == 1:
        return next(iter(below.values()))
    if below:
        found = f"{len(below)} folders of {path} hold a table: {', '.join(map(str, below))}"
        raise InputError("--pairs", found[:300], "one of them")
    found, expected = f"{path} holds no table, nor does a folder in it", ", ".join(_TABLES)
    hint = "headpatch pairs --n 200 --out DIR draws pairs with one."
    raise InputError("--pairs", found, f"one of {expected} in it", hint)


def _table_in(folder: Path) -> Path | None:
    named = (folder / name for name in _TABLES if os.path.isfile(folder / name))
    return next(named, None) or only_table(folder)


def digest(entries: Iterable[Entry]) -> str:
    """Hash all that pairs say, their pictures included."""
    found = hashlib.sha256()
    for one in entries:
        pictures = [_digest_of(path) for path in (one.with_path, one.without_path)]
        said = [one.name, one.question, one.region.box, dict(one.factors), pictures]
        said += [one.scene] * bool(one.scene)
        own: list[Any] = [one.question_without, one.answers]
        said += own * any(own)
        said += [[_digest_of(path) for path in one.context]] * bool(one.context)
        found.update(json.dumps(said, sort_keys=True).encode())
    return found.hexdigest()


def _digest_of(picture: Path) -> str:
    try:
        return hashlib.sha256(picture.read_bytes()).hexdigest()
    except OSError:
        return "none"  # whoever reads it says so


def _entries(table: Table) -> tuple[Entry, ...]:
    """Read every row as a pair."""
    path, base, rows = table
    stored, numbered = StoredPictures(), enumerate(rows, start=1)
    entries = tuple(_entry(path, base, row, number, stored) for number, row in numbered)
    if not entries:
        found = "no row" if path.name == MEMORY else f"{path} holds no pair"
        raise InputError("--pairs", found, "one pair a row, below the header of a file")
    _refuse_repeats(entries)
    problems = [entry.problem for entry in entries if entry.problem is not None]
    if len(problems) == len(entries):
        raise problems[0].adding(first_reasons(problems[1:])) if problems[1:] else problems[0]
    return entries


def _entry(path: Path, base: Path, row: Row, number: int, stored: StoredPictures) -> Entry:
    """Read a row; what is wrong with it is kept, so that the others can run."""
    where = place_of(path, row.line)
    cells = {name: _text(name, one) for name, one in row.cells.items()
             if name not in (*_PICTURES, CONTEXT)}  # fmt: skip
    for text in (part for pair in cells.items() for part in pair):
        checked_text(text, where)
    entry = Entry(
        name=cells.get("name") or f"{number:04d}",
        with_path=Path(),
        without_path=Path(),
        question=cells.get("question", ""),
        region=UNNAMED,
        line=row.line,
        factors={name: one for name, one in cells.items() if name not in KNOWN},
        table=path,
        scene=cells.get("scene", ""),
        stored=stored,
        question_without=cells.get("question_without") or None,
    )
    try:
        if empty := [name for name in _NEVER_EMPTY if cells.get(name) == ""]:
            raise InputError(where, f"an empty {empty[0]}", "a value in each of its columns")
        counted = where if number == row.line else f"{where} (row {number})"
        present, absent = _pictures_of(entry, row, base, counted)
        return replace(
            entry,
            with_path=present,
            without_path=absent,
            region=Region.parse(cells.get("region") or UNNAMED.name, f"{where}, region"),
            answers=_answers(cells.get("answers", ""), f"{where}, answers"),
            context=stored.files_of(row.cells.get(CONTEXT), base, f"{counted}, {CONTEXT}"),
        )
    except InputError as error:
        parts = error.argument, error.found, error.expected, error.hint
        return replace(entry, problem=RowError(*parts))


def _text(column: str, cell: Any) -> str:
    """Write a cell as text; a list stays one where it is not read as what it holds."""
    listed = isinstance(cell, list | tuple | np.ndarray)
    if listed and column == "answers":
        return json.dumps([text_of(one) for one in cell])
    return f"[{text_of(cell)}]" if listed and column == "region" else text_of(cell)


def _pictures_of(entry: Entry, row: Row, base: Path, counted: str) -> tuple[Path, Path]:
    """Return the files of both pictures, the same where one picture is asked two questions."""
    found = list[Path]()
    for column in _PICTURES:
        cell = row.cells.get(column)
        empty = cell is None or (isinstance(cell, str | float) and not text_of(cell))
        if empty and found and entry.question_without:
            found.append(found[0])
        elif empty:
            raise InputError(entry.where, f"an empty {column}", "a value in each of its columns")
        else:
            assert entry.stored is not None
            found.append(entry.stored.file_of(cell, base, f"{counted}, {column}"))
    present, absent = found
    if present == absent and not entry.question_without:
        raise InputError(entry.where, "one picture twice", "two pictures that differ in one object")
    return present, absent


def _answers(text: str, where: str) -> tuple[str, str] | None:
    """Read two texts, parted by a comma or in a JSON list; None if there are none."""
    if not text:
        return None
    try:
        listed = json.loads(text) if text.startswith("[") else text.split(",")
    except ValueError:
        listed = []
    words = [text_of(one) for one in listed]
    if len(words) != 2 or not all(words) or words[0] == words[1]:
        hint = "The first is right with the object, the second without it."
        expected = 'two different texts, such as No,Yes or ["(a)", "(b)"]'
        raise InputError(where, repr(text), expected, hint)
    return words[0], words[1]


def _refuse_repeats(entries: Sequence[Entry]) -> None:
    names: dict[str, int] = {}
    pairs: dict[object, int] = {}
    for entry in entries:
        kind = entry.where.split()[-2]  # line or row
        asked = (
            *(entry.with_path, entry.without_path, entry.question, entry.region),
            *(entry.question_without, entry.answers, entry.problem and entry.line, entry.context),
        )
        if (line := pairs.setdefault(asked, entry.line)) != entry.line:
            found, hint = f"the same pair as {kind} {line}", f"Delete one {kind}."
            raise InputError(entry.where, found, "each pair once", hint)
        if (line := names.setdefault(entry.name, entry.line)) != entry.line:
            found = f"the name {entry.name!r} of {kind} {line}"
            raise InputError(entry.where, found, "a name of its own")
