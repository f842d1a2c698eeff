"""One section of the page, and the figures in it."""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from typing import TYPE_CHECKING, Any

import numpy as np

from headpatch.present.canvas import signed

if TYPE_CHECKING:
    import pandas

_DIGITS = 5  # significant ones of a figure's numbers: more than a screen resolves


@dataclass(frozen=True)
class Figure:
    """A figure as Plotly reads it; whatever came from the user has gone through `words`."""

    data: Sequence[Mapping[str, Any]]
    layout: Mapping[str, Any]
    height: int  # in pixels
    label: str  # what it shows, for who cannot see it
    title: str = ""  # above it
    note: str = ""  # below its title
    names: Sequence[tuple[str, float, float]] = ()  # of points, written where they hide no other


@dataclass(frozen=True)
class Section:
    """A part of the page."""

    name: str  # its anchor
    title: str  # its heading, and its entry in the contents
    values: Mapping[str, Any] = field(default_factory=dict)  # what its template shows
    figures: Mapping[str, Figure] = field(default_factory=dict)  # placed by the macro ``figure``
    data: Mapping[str, Any] = field(default_factory=dict)  # more for the page's script
    template: str = ""  # empty: that of its name


def words(text: object) -> str:
    """Escape a text for Plotly, which reads tags and entities in labels."""
    return escape(str(text), quote=False)  # it knows no &quot;


def numbers(values: Any) -> list[Any]:
    """Turn an array into lists of short numbers; None where a value is not finite."""
    array = np.asarray(values)
    if array.ndim > 1:
        return [numbers(one) for one in array]
    if array.dtype.kind != "f":
        return list(array.tolist())
    return [float(f"{x:.{_DIGITS}g}") if math.isfinite(x) else None for x in array.tolist()]


def listed(items: Iterable[object], most: int = 8) -> str:
    """Join words with commas; say how many more there are."""
    texts = [str(one) for one in items]
    shown = ", ".join(texts[:most])
    return shown if len(texts) <= most else f"{shown} and {len(texts) - most:,} more"


def said(value: float, digits: int) -> str:
    """Write a figure with its sign; one that is not finite is undefined."""
    return signed(value, digits) if math.isfinite(value) else "undefined"


def largest(table: "pandas.DataFrame", column: str, say: Callable[[Mapping[str, Any]], str]) -> str:
    """Say of the row whose value is largest in size what `say` says; nothing if none is finite."""
    size = np.abs(table[column].to_numpy(dtype=np.float64))
    if not np.isfinite(size).any():
        return ""
    row = {str(key): value for key, value in table.iloc[int(np.nanargmax(size))].items()}
    return f" Largest: {say(row)}."
