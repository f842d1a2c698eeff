"""What results are shown as: words, tables and charts, for a terminal and for a page alike."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

from headpatch.present.chart import Chart
from headpatch.present.column import Cell, Row, Schema

Place: TypeAlias = Literal["everywhere", "terminal", "page"]


@dataclass(frozen=True)
class Words:
    """A paragraph; a strong one stands out."""

    text: str
    place: Place = "everywhere"
    strong: bool = False


@dataclass(frozen=True)
class Grid:
    """A table for people."""

    title: str
    headings: tuple[str, ...]  # the first column names the row
    rows: tuple[tuple[str, ...], ...]
    numeric: tuple[bool, ...]  # columns of figures, aligned to the right on a page
    wrapped: str | None = None  # the one column whose texts may be broken
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
    """Make a table of a DataFrame, or of rows by column name.

    `cells` are by heading: a column of the schema, or what makes a text of a row.
    """
    records: Iterable[Row] = rows.to_dict("records") if hasattr(rows, "to_dict") else rows
    made = {
        heading: schema[cell].cell if isinstance(cell, str) else cell
        for heading, cell in cells.items()
    }
    numeric = tuple(
        "interval" in heading if callable(cell) else schema[cell].sort in ("number", "whole")
        for heading, cell in cells.items()
    )
    texts = tuple(tuple(cell(row) for cell in made.values()) for row in records)
    return Grid(title, tuple(cells), texts, numeric, wrapped, place)


Part: TypeAlias = Words | Grid | Chart


def arrow(edge: str) -> str:
    """Write ``answer-region`` as it reads: ``answer → region``."""
    return edge.replace("-", " → ")
