"""The plain files that every analysis writes, and reads back: tables, tensors and YAML.

Whatever a damaged file raises is one line that names it.
"""

import csv
import math
import pickle
import warnings
import zipfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from headpatch.disk import tensor_bytes
from headpatch.errors import InputError

if TYPE_CHECKING:
    import pandas

_DAMAGE = (
    OSError, ValueError, KeyError, TypeError, IndexError, AttributeError, AssertionError, EOFError,
    RuntimeError, OverflowError, MemoryError, ImportError, pickle.UnpicklingError,
    zipfile.BadZipFile, yaml.YAMLError,
)  # fmt: skip
_TEXT = (
    "heads", "pair", "scene", "layers", "partners", "failed_nulls", "normalized_top_pair",
    "necessity_top_pair", "sufficiency_top_pair", "level", "row",
)  # fmt: skip
"""Columns that look like numbers and are none: ``24.10``."""
_SORTS = {"truth": ("b", "more than True and False"), "whole": ("i", "more than whole numbers")}


def columns_of(table: "pandas.DataFrame") -> dict[str, list[Any]]:
    """Return a table's columns by name, for `write_columns` and for ``--json``."""
    return {str(name): list(values) for name, values in table.items()}


def write_columns(path: Path, columns: Mapping[str, Iterable[object]], more: bool = False) -> None:
    """Write a table as CSV, numbers with seven significant digits, which is what float32 holds.

    With `more` the rows are added to those of a file that has these columns.
    """
    with path.open("a" if more else "w", encoding="utf-8", newline="") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        if not more:
            writer.writerow(columns)
        for row in zip(*columns.values(), strict=True):
            writer.writerow(_cell(value) for value in row)


def _cell(value: object) -> object:
    if type(value).__name__ == "NAType":  # pandas' word for a missing integer
        return ""
    if isinstance(value, float):
        return "" if math.isnan(value) else f"{value:.7g}"
    return value


def write_tensors(path: Path, content: Mapping[str, object]) -> None:
    """Write plain tensors, numbers and texts, for `headpatch.core.output.files.read_tensors`.

    The same content gives the same bytes, wherever its texts come from.
    """
    texts: dict[str, str] = {}
    path.write_bytes(tensor_bytes(_alike(dict(content), texts)))


def _alike(value: Any, texts: dict[str, str]) -> Any:
    """Return a value in which equal texts are one object: pickle writes each object once."""
    if isinstance(value, str):
        return texts.setdefault(value, value)
    if isinstance(value, dict):
        return {_alike(key, texts): _alike(one, texts) for key, one in value.items()}
    if type(value) in (list, tuple):
        return type(value)(_alike(one, texts) for one in value)
    return value


def write_yaml(path: Path, content: Mapping[str, object]) -> None:
    """Write nested plain values as YAML, keys in the order given."""
    text = yaml.safe_dump(content, sort_keys=False, allow_unicode=True, width=100)
    path.write_text(text, encoding="utf-8")


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Turn whatever a damaged file raises into one `InputError`."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # libraries warn of what is then refused
            yield
    except InputError:
        raise
    except _DAMAGE as error:
        words = " ".join(_words(error).split())
        words = words if len(words) <= 160 else f"{words[:159]}…"
        found, expected = f"it cannot be read ({words})", "a file as headpatch writes it"
        hint = "Run the verb that wrote it again, or move the file away."
        raise InputError(str(path), found, expected, hint) from None


def _words(error: BaseException) -> str:
    """Say what is wrong with a file, where a library's words are about something else."""
    if isinstance(error, UnicodeDecodeError):
        return "it holds bytes that are no text"
    if isinstance(error, yaml.YAMLError):
        mark = getattr(error, "problem_mark", None)
        return "it is not YAML" if mark is None else f"it is not YAML: see line {mark.line + 1}"
    if isinstance(error, KeyError) and error.args:
        return f"it lacks {error.args[0]!r}"
    if isinstance(error, RecursionError):
        return "it is nested too deeply"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return str(error) or f"its parts do not fit together: {type(error).__name__}"


def read_table(path: Path, needed: Mapping[str, str] | None = None) -> "pandas.DataFrame":
    """Read a table that a run wrote; heads such as ``24.10`` stay text.

    `needed` are columns that must be there: ``number``, ``whole`` (numbers that stay as they are),
    ``text`` or ``truth``. Others are kept as they are. A damaged table, one without these columns,
    or with something else in them is an error.
    """
    import pandas

    with reading(path):
        if b"\0" in path.read_bytes():
            raise ValueError("it holds zero bytes")
        try:
            table = pandas.read_csv(path, dtype=dict.fromkeys(_TEXT, str), low_memory=False)
        except pandas.errors.EmptyDataError:
            raise ValueError("it is empty") from None
        except pandas.errors.ParserError:
            raise ValueError("its lines are not those of a table") from None
        for column, kind in (needed or {}).items():
            if column not in table:
                raise ValueError(f"it lacks the column {column!r}")
            table[column] = _as(kind, table[column])
    return table


def _as(kind: str, column: "pandas.Series[Any]") -> "pandas.Series[Any]":
    import pandas

    if kind == "number":
        try:
            if column.dtype != bool:
                return pandas.to_numeric(column).astype(float)
        except (ValueError, TypeError):
            pass
        raise ValueError(f"the column {column.name!r} holds more than numbers")
    if kind in _SORTS:
        sort, words = _SORTS[kind]
        if len(column) and column.dtype.kind != sort:
            raise ValueError(f"the column {column.name!r} holds {words}")
        return column.astype(bool) if kind == "truth" else column  # of no rows nothing says so
    return column.astype("string").fillna("").astype(object)


def read_tensors(path: Path, needed: Mapping[str, int] | None = None) -> dict[str, Any]:
    """Read a ``.pt`` file by the safe loader, which takes plain tensors, numbers and texts.

    `needed` are keys that must be there, and how many axes each has.
    """
    import numpy as np
    import torch

    with reading(path):
        try:
            content = torch.load(path, map_location="cpu", weights_only=True)
        except OSError:
            raise
        except Exception as error:  # torch's words are advice to load it unsafely
            words = "it is damaged, or holds more than plain tensors, numbers and texts"
            raise ValueError(words) from error
        if not isinstance(content, dict):
            raise ValueError("it holds no tensors by name")
        for key, axes in (needed or {}).items():
            if key not in content:
                raise ValueError(f"it lacks {key!r}")
            if (found := np.ndim(content[key])) != axes:
                raise ValueError(f"{key!r} has {found} axes instead of {axes}")
    return content
