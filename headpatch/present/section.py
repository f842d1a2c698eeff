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

DIGITS = 5
"""Significant digits of a figure's numbers: more than a screen resolves."""


@dataclass(frozen=True)
class Figure:
    """A figure that the plotting library draws.

    Attributes
    ----------
    data, layout
        As Plotly reads them. Whatever came from the user has gone through `words`.
    height
        In pixels.
    label
        What the figure shows, for who cannot see it.
    title
        Stands above it; may be empty.
    """

    data: Sequence[Mapping[str, Any]]
    layout: Mapping[str, Any]
    height: int
    label: str
    title: str = ""


@dataclass(frozen=True)
class Section:
    """A part of the page.

    Attributes
    ----------
    name
        Its anchor, and that of its template.
    title
        Its heading, and its entry in the contents.
    values
        What its template shows.
    figures
        By name; the template places each with the macro ``figure``.
    data
        More for the page's script, by key.
    """

    name: str
    title: str
    values: Mapping[str, Any] = field(default_factory=dict)
    figures: Mapping[str, Figure] = field(default_factory=dict)
    data: Mapping[str, Any] = field(default_factory=dict)
    template: str = ""

    @property
    def page_template(self) -> str:
        """Name of its template: its own, or that of every view."""
        return self.template or self.name


def words(text: object) -> str:
    """Escape a text for Plotly, which reads tags and entities in labels."""
    return escape(str(text), quote=False)  # it knows no &quot;


def numbers(values: Any) -> list[Any]:
    """Turn an array into lists of short numbers; None where a value is not finite."""
    array = np.asarray(values)
    if array.ndim > 1:
        return [numbers(one) for one in array]
    return [number(one) for one in array.tolist()]


def number(value: Any) -> Any:
    """Shorten a number; None if it is not finite."""
    if isinstance(value, float):
        return float(f"{value:.{DIGITS}g}") if math.isfinite(value) else None
    return value


def listed(items: Iterable[object], most: int = 8) -> str:
    """Join words with commas; say how many more there are."""
    texts = [str(one) for one in items]
    shown = ", ".join(texts[:most])
    return shown if len(texts) <= most else f"{shown} and {len(texts) - most:,} more"


def said(value: float, digits: int) -> str:
    """Write a figure with its sign; one that is not finite is undefined."""
    return signed(value, digits) if math.isfinite(value) else "undefined"


def records(table: "pandas.DataFrame") -> list[dict[str, Any]]:
    """Return the rows of a table by column."""
    return [{str(key): value for key, value in row.items()} for row in table.to_dict("records")]


def largest(table: "pandas.DataFrame", column: str, say: Callable[[Mapping[str, Any]], str]) -> str:
    """Say of the row whose value is largest in size what `say` says; nothing if none is finite."""
    size = np.abs(table[column].to_numpy(dtype=np.float64))
    if not np.isfinite(size).any():
        return ""
    row = {str(key): value for key, value in table.iloc[int(np.nanargmax(size))].items()}
    return f" Largest: {say(row)}."
