"""Charts drawn by matplotlib: the figures that a run writes, and that a notebook shows."""

from typing import TYPE_CHECKING, Final

import numpy as np
from numpy.typing import ArrayLike

from headpatch.present.canvas import (
    BLUE,
    GREEN,
    ORANGE,
    VERMILLION,
    Target,
    drawing,
    frame,
    layer_axis,
)
from headpatch.present.parts import Chart, Drawn, Panel, Series

if TYPE_CHECKING:
    import matplotlib.axes

LOOKS: Final = (
    (VERMILLION, "o", "-"),
    (BLUE, "s", "--"),
    (GREEN, "^", "-."),
    (ORANGE, "D", ":"),
    ("#CC79A7", "v", "-"),
    ("#56B4E9", "P", "--"),
    ("0.25", "X", "-."),
)
"""Colour, marker and line, by the number of a series: no two are told apart by colour alone."""
_ONE_LINE: Final = 5  # names that one line of legend holds
_CROWDED: Final = 90  # characters along an axis


def draw(chart: Chart | Drawn, target: Target, question: str = "", region: str = "") -> None:
    """Draw a chart, its panels below each other.

    Parameters
    ----------
    target
        A file, or a sheet that keeps the figure.
    question, region
        Words for the title.
    """
    if isinstance(chart, Drawn):
        chart.draw(target, question, region)
        return
    with drawing(target, 0.4 + 1.75 * len(chart.panels)) as figure:
        every = figure.subplots(len(chart.panels), 1, sharex=True, sharey=True, squeeze=False)[:, 0]
        for axes, panel in zip(every, chart.panels, strict=True):
            _draw_panel(axes, panel)
        _x_axis(every[-1], chart.panels[-1])
        few = len({series.name for panel in chart.panels for series in panel.series}) <= _ONE_LINE
        if not few:
            every[0].legend(loc="best", ncols=2)
        frame(
            figure,
            chart.title,
            question=question,
            region=region,
            legend=every if few else (),
            note=chart.note,
        )


def _draw_panel(axes: "matplotlib.axes.Axes", panel: Panel) -> None:
    axes.axhline(0, color="0.55", linewidth=0.6, zorder=1)
    for series in panel.series:
        _draw_series(axes, series, joined=not panel.names)
    axes.set_title(panel.title, loc="left")
    axes.set_ylabel(panel.y_label)
    if panel.factor:
        _second_axis(axes, panel.factor, panel.factor_label)


def _draw_series(axes: "matplotlib.axes.Axes", series: Series, joined: bool) -> None:
    color, marker, line = LOOKS[series.look % len(LOOKS)]
    x, y = series.x, series.y
    if joined:
        axes.plot(x, y, color=color, marker=marker, linestyle=line, label=series.name, zorder=3,
                  markersize=2.6, markeredgewidth=0)  # fmt: skip
    else:
        axes.plot(x, y, marker, color=color, label=series.name, zorder=3)
    if series.low is not None and series.high is not None:
        axes.vlines(x, series.low, series.high, color=color, linewidth=1, zorder=2)
    low, high = series.null_low, series.null_high
    if low is None or high is None or not np.isfinite(low).any():
        return
    if joined:
        axes.fill_between(x, low, high, color=color, alpha=0.25, linewidth=1.2, zorder=2)
    else:
        middle = (low + high) / 2
        axes.errorbar(x, middle, high - middle, fmt="_", color=color, alpha=0.55, elinewidth=3,
                      markersize=7, zorder=2)  # fmt: skip


def _x_axis(axes: "matplotlib.axes.Axes", panel: Panel) -> None:
    if panel.layers is not None:
        layer_axis(axes, panel.layers, panel.x_label)
        return
    axes.set_xlabel(panel.x_label)
    if names := list(panel.names):
        crowded = len(names) * max(map(len, names)) > _CROWDED
        axes.set_xticks(range(len(names)), names, rotation=45 if crowded else 0,
                        ha="right" if crowded else "center")  # fmt: skip
        axes.set_xlim(-0.5, len(names) - 0.5)


def _second_axis(axes: "matplotlib.axes.Axes", factor: float, label: str) -> None:
    def there(values: ArrayLike) -> ArrayLike:
        return np.asarray(values) * factor

    def back(values: ArrayLike) -> ArrayLike:
        return np.asarray(values) / factor

    axes.secondary_yaxis("right", functions=(there, back)).set_ylabel(label)
