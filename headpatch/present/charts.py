"""What the page's figures are made of: lines, bands, maps and their axes, as Plotly reads them."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from headpatch.present.section import numbers, words

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
    """Return the area between two lines, for an interval; it is parted where an end is unknown."""
    across: list[Any] = []
    up: list[Any] = []
    for run in _known(x, low, high):
        gap = [None] * bool(across)
        places, lower, upper = map(numbers, run)
        across += [*gap, *places, *reversed(places)]
        up += [*gap, *upper, *reversed(lower)]
    return {
        "type": "scatter",
        "mode": "lines",
        "x": across,
        "y": up,
        "fill": "toself",
        "fillcolor": faded(color),
        "line": {"width": 0},
        "hoverinfo": "skip",
        "showlegend": bool(name),
        "name": words(name),
        **more,
    }


def _known(*lines: Any) -> Iterator[tuple[Any, ...]]:
    """Return the runs in which all of these are finite."""
    held = np.array([np.asarray(one, np.float64) for one in lines])
    unknown = np.flatnonzero(~np.isfinite(held).all(axis=0))
    for run in np.split(np.arange(held.shape[1]), unknown):
        known = np.setdiff1d(run, unknown)
        if len(known):
            yield tuple(held[:, known])


def slots(names: Sequence[str]) -> dict[str, Any]:
    """Return an axis of a map, a name for each slot."""
    return {
        "tickmode": "array",
        "tickvals": list(range(len(names))),
        "ticktext": [words(name) for name in names],
        "showgrid": False,
        "zeroline": False,
    }


def unread(feature: int, layers: int, axis: str = "x") -> list[dict[str, Any]]:
    """Shade the vision layers past the one that the language model reads.

    Parameters
    ----------
    axis
        That counts the layers.
    """
    if feature >= layers - 1:
        return []
    other = "y" if axis == "x" else "x"
    return [
        {
            "type": "rect",
            f"{axis}ref": axis,
            f"{other}ref": "paper",
            f"{axis}0": feature + 0.5,
            f"{axis}1": layers - 0.4,
            f"{other}0": 0,
            f"{other}1": 1,
            "line": {"width": 0},
            "fillcolor": "rgba(128,128,128,0.22)",
            "layer": "below",
        }
    ]


def faded(color: str) -> str:
    """Return a colour such as ``#0072B2`` at a fifth of its strength."""
    from matplotlib.colors import to_rgb

    red, green, blue = (round(255 * part) for part in to_rgb(color))
    return f"rgba({red},{green},{blue},0.2)"
