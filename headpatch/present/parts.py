"""What results are shown as: words, tables and charts, for a terminal and for a page alike."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import numpy as np
from jaxtyping import Float

from headpatch.present.canvas import Target
from headpatch.present.column import Cell, Row, Schema
from headpatch.present.section import Figure

Place: TypeAlias = Literal["everywhere", "terminal", "page"]
Values: TypeAlias = Float[np.ndarray, " points"]


@dataclass(frozen=True)
class Words:
    """A paragraph; a strong one stands out."""

    text: str
    place: Place = "everywhere"
    strong: bool = False


@dataclass(frozen=True)
class Grid:
    """A table for people.

    Attributes
    ----------
    headings
        One a column; the first column names the row.
    numeric
        Which columns hold figures, and are aligned to the right on a page.
    wrapped
        The one column whose texts may be broken; None breaks none.
    """

    title: str
    headings: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    numeric: tuple[bool, ...]
    wrapped: str | None = None
    place: Place = "everywhere"


def grid(
    title: str,
    rows: Any,
    cells: Mapping[str, str | Cell],
    schema: Schema,
    *,
    wrapped: str | None = None,
    place: Place = "everywhere",
) -> Grid:
    """Make a table of some columns.

    Parameters
    ----------
    rows
        A DataFrame, or rows by column name.
    cells
        By heading: a column of the schema, or what makes a text of a row.
    """
    records: Iterable[Row] = rows.to_dict("records") if hasattr(rows, "to_dict") else rows
    made = {
        heading: schema[cell].cell if isinstance(cell, str) else cell
        for heading, cell in cells.items()
    }
    numeric = tuple(
        isinstance(cell, str) and schema[cell].sort in ("number", "whole")
        for cell in cells.values()
    )
    texts = tuple(tuple(cell(row) for cell in made.values()) for row in records)
    return Grid(title, tuple(cells), texts, numeric, wrapped, place)


@dataclass(frozen=True, eq=False)
class Series:
    """Points of a chart that belong together.

    Attributes
    ----------
    x
        Numbers, or places among the panel's `Panel.names`.
    low, high
        Ends of an interval of each point.
    null_low, null_high
        A band to compare each point with: what chance alone gives.
    look
        Which colour, marker and line; the same in every panel of a chart.
    """

    name: str
    x: Values
    y: Values
    low: Values | None = None
    high: Values | None = None
    null_low: Values | None = None
    null_high: Values | None = None
    look: int = 0


@dataclass(frozen=True, eq=False)
class Panel:
    """One pair of axes.

    Attributes
    ----------
    names
        Places along the x axis, where it has no numbers; points are then not joined.
    layers
        How many layers the x axis counts; None: it counts something else.
    factor
        What turns y into the unit of a second axis, called `factor_label`; 0: there is none.
    """

    title: str
    series: Sequence[Series]
    x_label: str
    y_label: str
    names: Sequence[str] = ()
    layers: int | None = None
    factor: float = 0.0
    factor_label: str = ""


@dataclass(frozen=True, eq=False)
class Chart:
    """A figure of one or more panels.

    Attributes
    ----------
    name
        What `headpatch.plot` calls it.
    file
        Where a run writes it.
    note
        Stands below it.
    spoken
        What it shows, for who cannot see it; of each panel in turn.
    """

    name: str
    file: str
    title: str
    panels: Sequence[Panel]
    note: str = ""
    spoken: Sequence[str] = ()


@dataclass(frozen=True, eq=False)
class Drawn:
    """A figure that no `Chart` can say: it is drawn by code of its own.

    Attributes
    ----------
    name, file
        As of `Chart`.
    draw
        Draws it with matplotlib, given where to, a question and a region.
    interactive
        Makes the page's figures by name; None: the page has none.
    """

    name: str
    file: str
    draw: Callable[[Target, str, str], None]
    interactive: Callable[[], Mapping[str, Figure]] | None = None


Part: TypeAlias = Words | Grid | Chart | Drawn


def arrow(edge: str) -> str:
    """Write ``answer-region`` as it reads: ``answer → region``."""
    return edge.replace("-", " → ")
