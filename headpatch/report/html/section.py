"""One section of the page, and the figures in it."""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import pandas

DIGITS = 5
"""Significant digits of a figure's numbers: more than a screen resolves."""


SYMBOLS = {
    "o": "circle",
    "^": "triangle-up",
    "v": "triangle-down",
    "D": "diamond",
    "s": "square",
    ".": "circle",
    "x": "x-thin-open",
}
"""Plotly's names of matplotlib's markers: a class looks the same in every figure."""
DASHES = {"-": "solid", "--": "dash", "-.": "dashdot", ":": "dot"}
"""Plotly's names of matplotlib's lines."""


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


def largest(table: "pandas.DataFrame", column: str, say: Callable[[Mapping[str, Any]], str]) -> str:
    """Say of the row whose value is largest in size what `say` says; nothing if none is finite."""
    size = np.abs(table[column].to_numpy(dtype=np.float64))
    if not np.isfinite(size).any():
        return ""
    row = {str(key): value for key, value in table.iloc[int(np.nanargmax(size))].items()}
    return f" Largest: {say(row)}."


def layer_axis(title: str, layers: int) -> dict[str, Any]:
    """Return an x axis that counts layers from 0."""
    return {
        "title": {"text": title},
        "range": [-0.6, layers - 0.4],
        "dtick": next((step for step in (1, 2, 4, 5, 10) if layers / step <= 17), 20),
        "tick0": 0,
        "zeroline": False,
    }


def lines(
    values: Any,
    name: str,
    color: str,
    symbol: str = "circle",
    *,
    x: Any = None,
    dash: str = "solid",
    **more: Any,
) -> dict[str, Any]:
    """Return a line over layers; a symbol says what the colour says."""
    y = numbers(values)
    return {
        "type": "scatter",
        "mode": "lines+markers",
        "x": list(range(len(y))) if x is None else numbers(x),
        "y": y,
        "name": words(name),
        "line": {"color": color, "width": 2, "dash": dash},
        "marker": {"color": color, "symbol": symbol, "size": 6},
        **more,
    }


def band(x: Any, low: Any, high: Any, color: str, name: str = "", **more: Any) -> dict[str, Any]:
    """Return the area between two lines, for an interval."""
    along = numbers(x)
    return {
        "type": "scatter",
        "mode": "lines",
        "x": [*along, *reversed(along)],
        "y": [*numbers(high), *reversed(numbers(low))],
        "fill": "toself",
        "fillcolor": f"{color}33",
        "line": {"width": 0},
        "hoverinfo": "skip",
        "showlegend": bool(name),
        "name": words(name),
        **more,
    }
