"""Rows of a dataset's table: a CSV, JSON lines, Parquet, or what a program holds in memory.

Every source gives the same: a row's number and its cells by column. What a row says as a pair,
`headpatch.pairs.manifest` reads. Pictures that a table holds itself become files: whatever reads
pairs takes files.
"""

import csv
import hashlib
import io
import json
import math
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from shutil import rmtree
from tempfile import mkdtemp
from typing import Any, NamedTuple
from weakref import finalize

import numpy as np
from PIL import Image

from headpatch.errors import InputError
from headpatch.pairs.columnar import SAVED, by_column, frame_of
from headpatch.pairs.pair import IS_PICTURE, read_image
from headpatch.text import user_path

COLUMNS = ("with", "question")
"""Columns that a table must have; and `without` or `question_without`."""
CONTEXT = "context_images"
"""A column of further pictures, shown before the one in question."""
KNOWN = (*COLUMNS, "without", "question_without", "region", "answers", "name", "scene", CONTEXT)
"""Columns that say what a pair is; every other one is a factor."""
_EXPECTED = "the columns with, without (or question_without), question"
MEMORY = "memory:"
"""Begins the name of a table that was no file."""

_ALIASES = {"with_file_name": "with", "without_file_name": "without", "pair": "name"}
_ROWS = "rows: a table of pandas, a list of dicts, a datasets.Dataset, or the path of a table"
_UNPACK = "Unpack it first."
_SAVE = "Save the table as CSV (UTF-8), JSON lines or Parquet."
_PARQUET = b"PAR1"
_BINARY = {
    b"PK\x03\x04": ("a zip archive", _UNPACK),
    b"\x1f\x8b": ("compressed by gzip", _UNPACK),
    b"BZh": ("compressed by bzip2", _UNPACK),
    b"\xfd7zXZ": ("compressed by xz", _UNPACK),
    b"\x28\xb5\x2f\xfd": ("compressed by zstd", _UNPACK),
    b"ARROW1": ("a Feather (Arrow) file", _SAVE),
    b"FEA1": ("a Feather file", _SAVE),
    b"\xd0\xcf\x11\xe0": ("an Excel workbook", _SAVE),
    b"\x89HDF": ("an HDF5 file", _SAVE),
    b"SQLite format 3": ("an SQLite database", _SAVE),
}
"""What files begin with that are no text, what they are, and the way out."""
_SPREADSHEETS = (".xlsx", ".xlsm", ".ods")  # zip archives, too


@dataclass(frozen=True)
class Row:
    """A row of a table, its columns under the names of `COLUMNS`."""

    line: int  # in a file of text; elsewhere its number, from 1
    cells: Mapping[str, Any]


def place_of(table: Path, line: int) -> str:
    """Name a row in messages."""
    if table.name.startswith(MEMORY):
        return f"--pairs, row {line}"
    return f"--pairs {table}, {'row' if by_column(table) else 'line'} {line}"


def rows_of_file(path: Path, needed: Sequence[str] = COLUMNS) -> Iterator[Row]:
    """Yield a file's rows; an `InputError` if it cannot be read, or lacks a `needed` column."""
    if path.name.startswith(MEMORY):
        hint = "Save the table and name the file, or hand it to headpatch.open_pairs again."
        found = f"{path.name} was a table in memory"
        raise InputError("--pairs", found, "a file of pairs", hint)
    try:
        with path.open("rb") as stream:
            start = stream.read(16)
        if start.startswith(_PARQUET) or path.name == SAVED:
            return _frame_rows(path, needed)
        _refuse_binary(path, start)
        text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        expected = "a manifest (CSV) of pairs"
        raise InputError("--pairs", f"{path}: {error.strerror}", expected) from None
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        found = f"{path} is not UTF-8 (line {line})"
        raise InputError("--pairs", found, "a CSV in UTF-8", "Save it as UTF-8.") from None
    read = _json_rows if path.suffix in (".jsonl", ".json") else _csv_rows
    return read(path, text, needed)


def _refuse_binary(path: Path, start: bytes) -> None:
    kind = next((kind for mark, kind in _BINARY.items() if start.startswith(mark)), None)
    if kind is not None:
        spreadsheet = path.suffix.lower() in _SPREADSHEETS
        what, way_out = ("a spreadsheet", _SAVE) if spreadsheet else kind
        expected = "a table as CSV, JSON lines or Parquet"
        raise InputError("--pairs", f"{path} is {what}", expected, way_out)


def in_memory(table: Any) -> Sequence[object]:
    """Return the rows of a table of pandas, a list of dicts, or a dataset of Hugging Face's."""
    if isinstance(table, Mapping):
        splits = [str(name) for name, one in table.items() if hasattr(one, "features")]
        found = f"a dict of splits: {', '.join(splits)}" if splits else "a dict"
        hint = f"Hand over one of them, such as pairs[{splits[0]!r}]." if splits else ""
        raise InputError("pairs", found, _ROWS, hint)
    if hasattr(table, "columns") and hasattr(table, "to_dict"):  # pandas
        return list(table.to_dict("records"))
    features = getattr(table, "features", None)
    if features and hasattr(table, "cast_column"):  # datasets.Dataset
        for name, feature in features.items():
            if type(feature).__name__ == "Image":  # its pictures stay as they are stored
                table = table.cast_column(name, type(feature)(decode=False))
        return list(table.with_format(None))
    if not isinstance(table, Iterable) or isinstance(table, str | bytes):
        raise InputError("pairs", f"a {type(table).__name__}", _ROWS)
    return list(table)


class Table(NamedTuple):
    """Rows, the table's path (`MEMORY` if it is none), and the folder its paths are relative to."""

    path: Path
    base: Path
    rows: Iterator[Row]


def table_of(
    table: Any,
    needed: Sequence[str] = COLUMNS,
    argument: str = "--pairs",
    found: Callable[[Path], Path] = Path,
) -> Table:
    """Read a table, of a file or in memory; `found` gives the file of a folder."""
    if isinstance(table, str | Path):
        path = found(user_path(table, argument))
        return Table(path, path.parent, rows_of_file(path, needed))
    return Table(Path(MEMORY), Path.cwd(), rows_in_memory(in_memory(table), needed))


def rows_in_memory(rows: Iterable[object], needed: Sequence[str] = COLUMNS) -> Iterator[Row]:
    """Yield rows of `in_memory`; an `InputError` if one is no dict, or lacks a column."""
    path = Path(MEMORY)
    for line, row in enumerate(rows, start=1):
        if not isinstance(row, Mapping):
            raise InputError(place_of(path, line), f"a {type(row).__name__}", "a dict of cells")
        columns = _columns(path, line, [str(name) for name in row], needed)
        yield Row(line, dict(zip(columns, row.values(), strict=True)))


def text_of(value: Any) -> str:
    """Write a cell as text; nothing if it is missing."""
    if isinstance(value, np.generic):
        value = value.item()
    missing = value is None or type(value).__name__ in ("NAType", "NaTType")
    if missing or (isinstance(value, float) and math.isnan(value)):
        return ""
    if isinstance(value, str):
        return value.strip()
    if isinstance(value, bool | int | float):
        return json.dumps(value)
    if isinstance(value, list | tuple | np.ndarray):  # a box of a region, say
        return ",".join(map(text_of, value))
    return str(value)


def _expected(needed: Sequence[str]) -> str:
    return _EXPECTED if needed == COLUMNS else f"the columns {', '.join(needed)}"


def _empty(path: Path, needed: Sequence[str]) -> InputError:
    return InputError("--pairs", f"{path} is empty", f"a table with {_expected(needed)}")


def _frame_rows(path: Path, needed: Sequence[str]) -> Iterator[Row]:
    table = frame_of(path)
    columns = _columns(path, 1, [str(name) for name in table.columns], needed)
    for line, row in enumerate(table.itertuples(index=False, name=None), start=1):
        yield Row(line, dict(zip(columns, row, strict=True)))


def _csv_rows(path: Path, text: str, needed: Sequence[str]) -> Iterator[Row]:
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    columns: list[str] = []
    line = 1  # of a row's start: quoted cells may run over several
    while True:
        try:
            cells = next(reader, None)
        except csv.Error as error:
            where, expected = f"--pairs {path}, line {line}", "cells parted by commas"
            raise InputError(where, f"not CSV ({error})", expected) from None
        if cells is None:
            break
        start, line = line, reader.line_num + 1
        if not any(cell.strip() for cell in cells):
            continue
        if not columns:
            columns = _columns(path, start, cells, needed)
            continue
        if len(cells) != len(columns):
            where, found = f"--pairs {path}, line {start}", f"{len(cells)} cells"
            expected = f"{len(columns)}, one for each column of the header"
            hint = "Put a cell that holds a comma in double quotes."
            raise InputError(where, found, expected, hint)
        yield Row(start, dict(zip(columns, cells, strict=True)))
    if not columns:
        raise _empty(path, needed)


def _json_rows(path: Path, text: str, needed: Sequence[str]) -> Iterator[Row]:
    lines = [(line, one) for line, one in enumerate(text.split("\n"), start=1) if one.strip()]
    if not lines:
        raise _empty(path, needed)
    for line, content in lines:
        where = f"--pairs {path}, line {line}"
        try:
            row = json.loads(content)
        except (ValueError, RecursionError) as error:
            raise InputError(where, f"not JSON ({error})", "one JSON object a line") from None
        if not isinstance(row, dict):
            raise InputError(where, content.strip()[:40], "one JSON object a line")
        columns = _columns(path, line, list(row), needed)
        cells = {
            name: one if isinstance(one, str) else json.dumps(one)
            for name, one in zip(columns, row.values(), strict=True)
            if one is not None or name not in KNOWN
        }
        yield Row(line, cells)


def _columns(path: Path, line: int, header: Sequence[str], needed: Sequence[str]) -> list[str]:
    columns = [_ALIASES.get(name.strip(), name.strip()) for name in header]
    where = place_of(path, line)
    missing = [name for name in needed if name not in columns]
    if needed == COLUMNS and not {"without", "question_without"} & set(columns):
        missing.insert(1, "without")
    if missing:
        hint = "Parted by commas, not semicolons." if any(";" in name for name in header) else ""
        found = f"no column {', '.join(missing)} (columns: {', '.join(header)})"
        raise InputError(where, found[:300], _expected(needed), hint)
    for name in columns:
        if columns.count(name) > 1:
            raise InputError(where, f"column {name!r} twice", "each column once")
    return columns


class StoredPictures:
    """A folder of pictures, each under the hash of its content.

    It is made for the first picture, and deleted together with this object or when Python ends:
    every pair that has one of its pictures holds it.
    """

    def __init__(self) -> None:
        self._folder: Path | None = None

    def file_of(self, cell: object, base: Path, where: str) -> Path:
        """Return the file of a cell that holds a picture; one that is no file yet is written.

        Paths are relative to `base`. No picture, or no such file, is an `InputError`.
        """
        content: Any = cell
        if isinstance(content, Mapping):
            content = content.get("bytes") or content.get("path") or cell
        if isinstance(content, str | Path):
            path = base / user_path(str(content).strip(), where)
            if not os.path.isfile(path):  # also of a path that the system refuses
                hint = f"Paths are relative to {base.resolve()}."
                raise InputError(where, f"there is no file {path}", "a picture file", hint)
            return path
        if isinstance(content, bytes):
            path = self._place_of(content)
            if not path.exists():
                path.write_bytes(content)
            return path
        if isinstance(content, Mapping):
            raise InputError(where, "neither bytes nor a path", IS_PICTURE)
        if not hasattr(content, "__array__") and not isinstance(content, Image.Image):
            raise InputError(where, f"a {type(content).__name__}", IS_PICTURE)
        image = read_image(content, where)
        path = self._place_of(f"{image.size}".encode() + image.tobytes())
        if not path.exists():
            image.save(path, "PNG", compress_level=1)
        return path

    def files_of(self, cell: object, base: Path, where: str) -> tuple[Path, ...]:
        """Return the files of a cell of several pictures: a list, or paths parted by commas."""
        if isinstance(cell, str) and cell.strip().startswith("["):
            with suppress(ValueError):
                cell = json.loads(cell)
        if cell is None or isinstance(cell, str | float):
            cell = [one for one in text_of(cell).split(",") if one.strip()]
        if not isinstance(cell, list | tuple | np.ndarray):
            raise InputError(where, f"a {type(cell).__name__}", "a list of pictures")
        return tuple(self.file_of(one, base, where) for one in cell)

    def _place_of(self, content: bytes) -> Path:
        if self._folder is None:
            self._folder = Path(mkdtemp(prefix="headpatch-pictures-"))
            finalize(self, rmtree, self._folder, ignore_errors=True)
        return self._folder / hashlib.sha256(content).hexdigest()
