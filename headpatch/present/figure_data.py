"""The data of a figure as a table: what is drawn, a row a point, a cell, or a patch."""

from collections.abc import Iterator
from typing import Any, Final

import numpy as np

from headpatch.present.chart import AnyPanel, Chart, HeadMap, Picture
from headpatch.present.panel import Panel

COLUMNS: Final = {
    "panel": "which, from 1, row by row",
    "title": "of the panel",
    "series": "points that belong together; empty of a map",
    "x": "along the x axis; column of a map; middle of a patch, in parts of the width",
    "x_name": "of the place or column, where it has one",
    "y": "row of a map; middle of a patch, in parts of the height",
    "y_name": "of the row, where it has one",
    "value": "what is drawn there",
    "low": "lower end of its interval",
    "high": "upper end",
    "null_low": "lower end of what chance gives",
    "null_high": "upper end",
}
"""Columns and what they hold; those that a figure has nothing for are left out."""


def data_of(chart: Chart) -> dict[str, list[Any]]:
    """Return a chart's numbers by column."""
    rows = [
        {"panel": number, "title": " ".join(panel.title.split()), **row}
        for number, panel in enumerate(chart.panels, start=1)
        if panel is not None
        for row in _rows(panel)
    ]
    there = {name for row in rows for name, value in row.items() if value not in ("", None)}
    blank = dict.fromkeys(("series", "x_name", "y_name"), "")
    return {
        name: [row.get(name, blank.get(name, np.nan)) for row in rows]
        for name in COLUMNS
        if name in there
    }


def _rows(panel: AnyPanel) -> Iterator[dict[str, Any]]:
    if isinstance(panel, Panel):
        yield from _points(panel)
    elif isinstance(panel, HeadMap):
        yield from _cells(panel)
    elif panel.density is not None:
        yield from _patches(panel)


def _points(panel: Panel) -> Iterator[dict[str, Any]]:
    for series in panel.series:
        columns = {"x": series.x, "value": series.y}
        ends = {"": series.interval, "null_": series.null_band}
        for name, both in ends.items():
            if both is not None:
                columns |= {f"{name}low": both[0], f"{name}high": both[1]}
        for index, values in enumerate(zip(*columns.values(), strict=True)):
            row = dict(zip(columns, map(float, values), strict=True))
            label = series.labels[index] if series.labels else ""
            at = row["x"]
            if panel.names and np.isfinite(at):
                label = " ".join(panel.names[min(max(round(at), 0), len(panel.names) - 1)].split())
            yield {"series": series.name, "x_name": label, **row}


def _cells(panel: HeadMap) -> Iterator[dict[str, Any]]:
    for (row, column), value in np.ndenumerate(panel.values):
        yield {
            "x": column, "x_name": _named(panel.x_names, column),
            "y": row, "y_name": _named(panel.y_names, row), "value": float(value),
        }  # fmt: skip
    for row, value in enumerate(() if panel.whole is None else panel.whole):
        yield {"x_name": "all", "y": row, "y_name": _named(panel.y_names, row),
               "value": float(value)}  # fmt: skip


def _named(names: Any, index: int) -> str:
    return " ".join(str(names[index]).split()) if len(names) else ""


def _patches(panel: Picture) -> Iterator[dict[str, Any]]:
    assert panel.density is not None
    cells, *edges = panel.density
    x, y = ((one[1:] + one[:-1]) / 2 for one in edges)
    for (row, column), value in np.ndenumerate(cells):
        yield {
            "series": panel.label,
            "x": float(x[column]),
            "y": float(y[row]),
            "value": float(value),
        }
