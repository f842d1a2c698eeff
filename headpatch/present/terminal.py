"""Words and tables of a view, as a terminal shows them."""

from collections.abc import Iterable, Iterator
from typing import Final

from rich.console import RenderableType
from rich.text import Text

from headpatch.present.parts import Grid, Part, Words
from headpatch.present.tables import plain_table

# of cells that say an outcome
_STYLES: Final = {"failed": "bold red", "contradicted": "red", "supported": "green"}


def renderables(parts: Iterable[Part]) -> Iterator[RenderableType]:
    """Turn what a terminal shows of a view into what rich prints; charts are files."""
    for part in parts:
        if isinstance(part, Words) and part.place != "page":
            yield Text(part.text, style="bold" if part.strong else "")
        elif isinstance(part, Grid) and part.place != "page":
            table = plain_table(*part.headings, title=part.title, wrapped=part.wrapped)
            for row in part.rows:
                table.add_row(*(Text(cell, style=_STYLES.get(cell, "")) for cell in row))
            yield table
