"""Words and tables of a view, as a terminal shows them."""

from collections.abc import Iterable, Iterator
from typing import Final

from rich.console import RenderableType
from rich.text import Text

from headpatch.present.parts import Grid, Part, Words
from headpatch.present.tables import plain_table

_STYLES: Final = {"failed": "bold red", "contradicted": "red", "supported": "green"}
"""Of cells that say an outcome."""


def renderables(parts: Iterable[Part]) -> Iterator[RenderableType]:
    """Turn what a terminal shows of a view into what rich prints; charts are files."""
    for part in parts:
        if isinstance(part, Words) and part.place != "page":
            yield Text(part.text, style="bold" if part.strong else "")
        elif isinstance(part, Grid) and part.place != "page":
            yield table(part)


def table(grid: Grid) -> RenderableType:
    """Return a table that keeps its figures whole."""
    made = plain_table(*grid.headings, title=grid.title, wrapped=grid.wrapped)
    for row in grid.rows:
        made.add_row(*(Text(cell, style=_STYLES.get(cell, "")) for cell in row))
    return made
