"""Saved results read back: whatever a damaged file raises is one line that names it."""

import pickle
import warnings
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from headpatch.errors import InputError

if TYPE_CHECKING:
    import pandas

_DAMAGE = (
    OSError,
    ValueError,
    KeyError,
    TypeError,
    IndexError,
    AttributeError,
    AssertionError,
    EOFError,
    RuntimeError,
    OverflowError,
    MemoryError,
    ImportError,
    pickle.UnpicklingError,
    zipfile.BadZipFile,
    yaml.YAMLError,
)
_TEXT = ("heads", "pair", "layers", "partners", "failed_nulls")
"""Columns that look like numbers and are none: ``24.10``."""
_SORTS = {"truth": ("b", "more than True and False"), "whole": ("i", "more than whole numbers")}


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Turn whatever a damaged file raises into one line.

    Raises
    ------
    InputError
        If the block raises what a damaged file may raise.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # libraries warn of what is then refused
            yield
    except InputError:
        raise
    except _DAMAGE as error:
        said = " ".join(_words(error).split())
        said = said if len(said) <= 160 else f"{said[:159]}…"
        raise InputError(
            str(path),
            f"it cannot be read ({said})",
            "a file as headpatch writes it",
            "Run the verb that wrote it again, or move the file away.",
        ) from None


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

    Parameters
    ----------
    needed
        Columns that must be there: ``number``, ``whole`` (numbers that stay as they are), ``text``
        or ``truth``. Others are kept as they are.

    Raises
    ------
    InputError
        If it is damaged: it is no table, lacks a column, or holds something else where numbers or
        truth values belong.
    """
    import pandas

    with reading(path):
        _refuse_zeros(path)
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


def _refuse_zeros(path: Path) -> None:
    with path.open("rb") as stream:
        if b"\0" in stream.read():
            raise ValueError("it holds zero bytes")


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
    """Read a ``.pt`` file of a run, by the safe loader.

    Parameters
    ----------
    needed
        Keys that must be there, and how many axes each has.

    Raises
    ------
    InputError
        If it is damaged, holds more than plain tensors, numbers and texts, lacks a key, or has one
        of another shape.
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
