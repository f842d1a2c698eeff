"""A dataset of pairs: a table with one pair a row, and the pictures that it names.

The columns `with`, `without`, `question` and `region` must be there; `name` (or `pair`) may be, and
every further column is a factor, by which results can be grouped. Paths are relative to the table.
A table is a CSV, or JSON lines. A folder stands for its ``manifest.csv``, or for the ``metadata``
file of a dataset in Hugging Face's ``imagefolder`` layout, whose columns of paths are called
`with_file_name` and `without_file_name`; or for the table of its only folder that holds one, as
``train/metadata.jsonl``.
"""

import csv
import io
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from headpatch.errors import InputError
from headpatch.pairs.pair import Pair, make_pair
from headpatch.pairs.region import Region

NAME = "manifest.csv"
"""The table of a folder of pairs."""
COLUMNS = ("with", "without", "question", "region")
"""Columns that a table must have."""

_TABLES = (NAME, "metadata.csv", "metadata.jsonl")
_ALIASES = {"with_file_name": "with", "without_file_name": "without", "pair": "name"}
_Row = tuple[int, dict[str, str]]  # its line, and its cells by column


@dataclass(frozen=True)
class Entry:
    """One pair of a dataset, not read yet.

    Attributes
    ----------
    name
        What tables call the pair; unique in the dataset.
    with_path, without_path
        The picture with the object, and the one without it.
    question
        Asked of both; its answer flips between them.
    region
        Where the object is.
    line
        Line of the table, for messages.
    factors
        Every further column: what varies between pairs.
    table
        The file that lists the pair, for messages.
    """

    name: str
    with_path: Path
    without_path: Path
    question: str
    region: Region
    line: int
    factors: Mapping[str, str] = field(default_factory=dict, hash=False)
    table: Path = Path(NAME)

    @property
    def where(self) -> str:
        """The pair's place, as messages name it."""
        return f"--pairs {self.table}, line {self.line}"

    def pair(self) -> Pair:
        """Read the two pictures.

        Raises
        ------
        InputError
            If one cannot be read, or they make no pair; it names the table and the line.
        """
        try:
            return make_pair(
                self.with_path, self.without_path, self.question, self.region, self.name
            )
        except InputError as error:
            flags = error.argument.replace("--", "")  # --with is a column here
            raise InputError(
                f"{self.where}, {flags}", error.found, error.expected, error.hint
            ) from None


@dataclass(frozen=True)
class Manifest:
    """A dataset of pairs.

    Attributes
    ----------
    path
        The table.
    entries
        Its pairs, in its order.
    """

    path: Path
    entries: tuple[Entry, ...]

    @classmethod
    def read(cls, path: Path) -> "Manifest":
        """Read a table, or the table of a folder; every picture must be there.

        Raises
        ------
        InputError
            If the table is missing, or several folders hold one; if it is not UTF-8, empty or
            malformed, lacks a column, names a picture that is not there or a region that is none,
            or holds a pair or a name twice. The line is named.
        """
        path = _table(path)
        entries: list[Entry] = []
        for number, (line, row) in enumerate(_rows(path), start=1):
            entries.append(_entry(path, line, number, row))
        if not entries:
            raise InputError("--pairs", f"{path} holds no pair", "one pair a line below the header")
        _refuse_repeats(entries)
        return cls(path, tuple(entries))

    def take(self, limit: int | None, seed: int) -> "Manifest":
        """Return at most `limit` pairs, drawn by the seed, in the table's order.

        Raises
        ------
        InputError
            If the limit is below 1.
        """
        if limit is None:
            return self
        if limit < 1:
            raise InputError("--limit", str(limit), "at least 1 pair")
        if limit >= len(self.entries):
            return self
        rng = np.random.default_rng([seed % 2**64, limit])  # numpy takes no negative seed
        drawn = sorted(rng.choice(len(self.entries), size=limit, replace=False).tolist())
        return Manifest(self.path, tuple(self.entries[index] for index in drawn))

    def need(self, count: int, why: str) -> None:
        """Refuse a dataset of fewer than `count` pairs.

        Raises
        ------
        InputError
            If there are fewer; `why` completes "at least 3 pairs, …".
        """
        found = len(self.entries)
        if found < count:
            raise InputError(
                "--pairs",
                f"{self.path}: {found} {'pair' if found == 1 else 'pairs'} to run",
                f"at least {count}, {why}",
                "Add pairs, or raise --limit; headpatch pairs draws as many as you ask for.",
            )


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
        raise InputError(
            "--pairs",
            f"{len(below)} folders of {path} hold a table: {', '.join(map(str, below))}"[:300],
            "one of them",
        )
    raise InputError(
        "--pairs",
        f"{path} holds no table, nor does a folder in it",
        f"one of {', '.join(_TABLES)} in it",
        "headpatch pairs --n 200 --out DIR draws pairs with one.",
    )


def _table_in(folder: Path) -> Path | None:
    return next((folder / name for name in _TABLES if os.path.isfile(folder / name)), None)


def _rows(path: Path) -> Iterator[_Row]:
    """Yield the table's rows, their columns under the names of `COLUMNS`."""
    text = _text(path)
    yield from _json_rows(path, text) if path.suffix == ".jsonl" else _csv_rows(path, text)


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise InputError(
            "--pairs", f"{path}: {error.strerror}", "a manifest (CSV) of pairs"
        ) from None
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        raise InputError(
            "--pairs", f"{path} is not UTF-8 (line {line})", "a CSV in UTF-8", "Save it as UTF-8."
        ) from None


def _csv_rows(path: Path, text: str) -> Iterator[_Row]:
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    columns: list[str] = []
    line = 1  # of a row's start: quoted cells may run over several
    while True:
        try:
            cells = next(reader, None)
        except csv.Error as error:
            raise InputError(
                f"--pairs {path}, line {line}", f"not CSV ({error})", "cells parted by commas"
            ) from None
        if cells is None:
            break
        start, line = line, reader.line_num + 1
        if not any(cell.strip() for cell in cells):
            continue
        if not columns:
            columns = _columns(path, start, cells)
            continue
        if len(cells) != len(columns):
            raise InputError(
                f"--pairs {path}, line {start}",
                f"{len(cells)} cells",
                f"{len(columns)}, one for each column of the header",
                "Put a cell that holds a comma in double quotes.",
            )
        yield start, {name: cell.strip() for name, cell in zip(columns, cells, strict=True)}
    if not columns:
        raise _empty(path)


def _json_rows(path: Path, text: str) -> Iterator[_Row]:
    seen = False
    for line, content in enumerate(text.split("\n"), start=1):
        if not content.strip():
            continue
        where = f"--pairs {path}, line {line}"
        try:
            row = json.loads(content)
        except ValueError as error:
            raise InputError(where, f"not JSON ({error})", "one JSON object a line") from None
        if not isinstance(row, dict):
            raise InputError(where, content.strip()[:40], "one JSON object a line")
        seen = True
        columns = _columns(path, line, list(row))
        yield (
            line,
            {
                name: value.strip() if isinstance(value, str) else json.dumps(value)
                for name, value in zip(columns, row.values(), strict=True)
            },
        )
    if not seen:
        raise _empty(path)


def _empty(path: Path) -> InputError:
    return InputError(
        "--pairs", f"{path} is empty", f"a table with the columns {', '.join(COLUMNS)}"
    )


def _columns(path: Path, line: int, header: Sequence[str]) -> list[str]:
    columns = [_ALIASES.get(name.strip(), name.strip()) for name in header]
    where = f"--pairs {path}, line {line}"
    if missing := [name for name in COLUMNS if name not in columns]:
        hint = "Parted by commas, not semicolons." if any(";" in name for name in header) else ""
        raise InputError(
            where,
            f"no column {', '.join(missing)} (columns: {', '.join(header)})"[:300],
            f"the columns {', '.join(COLUMNS)}",
            hint,
        )
    for name in columns:
        if columns.count(name) > 1:
            raise InputError(where, f"column {name!r} twice", "each column once")
    return columns


def _entry(path: Path, line: int, number: int, row: dict[str, str]) -> Entry:
    where = f"--pairs {path}, line {line}"
    for column in (*COLUMNS, "name"):
        if row.get(column) == "":
            raise InputError(where, f"an empty {column}", "a value in each of its columns")
    found = {column: path.parent / row[column] for column in ("with", "without")}
    for column, picture in found.items():
        if not os.path.isfile(picture):
            raise InputError(
                f"{where} (row {number})",
                f"{column}: there is no file {picture}",
                "a picture file",
                "Paths are relative to the table's folder.",
            )
    if found["with"] == found["without"]:
        raise InputError(where, "one picture twice", "two pictures that differ in one object")
    return Entry(
        name=row.get("name", f"{number:04d}"),
        with_path=found["with"],
        without_path=found["without"],
        question=row["question"],
        region=Region.parse(row["region"], f"{where}, region"),
        line=line,
        factors={key: value for key, value in row.items() if key not in (*COLUMNS, "name")},
        table=path,
    )


def _refuse_repeats(entries: Sequence[Entry]) -> None:
    names: dict[str, int] = {}
    pairs: dict[tuple[Path, Path, str, Region], int] = {}
    for entry in entries:
        asked = (entry.with_path, entry.without_path, entry.question, entry.region)
        if (line := pairs.setdefault(asked, entry.line)) != entry.line:
            raise InputError(
                entry.where, f"the same pair as line {line}", "each pair once", "Delete one line."
            )
        if (line := names.setdefault(entry.name, entry.line)) != entry.line:
            raise InputError(
                entry.where, f"the name {entry.name!r} of line {line}", "a name of its own"
            )
