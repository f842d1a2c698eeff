"""How the figures of every verb are written."""

from typing import Annotated, Literal

from pydantic import BeforeValidator, Field

from headpatch.core.study.options import Strict, sequence
from headpatch.core.study.reading import PathText


class FigureOptions(Strict):
    """How figures are written."""

    format: Annotated[
        tuple[Literal["png", "pdf", "svg", "csv"], ...],
        BeforeValidator(sequence),
        Field(min_length=1),
    ] = ("png",)
    """What each figure is written as; `csv` is its data, as `NAME_data.csv`."""
    width: Annotated[float, Field(ge=3, le=40)] = 7.0
    """Inches."""
    style: PathText | None = None
    """A style file of matplotlib: fonts, sizes, lines, and `image.cmap` for maps of heads."""
