"""How the figures of every verb are written."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

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

    @property
    def look(self) -> dict[str, Any]:
        """How figures are drawn, as `headpatch.present.figure.draw` takes it."""
        return {"width": self.width, "style": self.style}

    def given(self, **options: Any) -> "FigureOptions":
        """Return these with what is not None in its place; a style that cannot be is refused."""
        from headpatch.core.study.study import Study
        from headpatch.present.canvas import check_style

        flags = {f"figures.{key}": one for key, one in options.items()}
        flags["figures.style"] = options.get("style") and str(options["style"])
        found = Study(figures=self).override(flags).figures
        if found.style is not None:
            check_style(found.style)
        return found


def figures_of(study: Mapping[str, Any]) -> FigureOptions:
    """Return the section of a study as it is written down; of none, what is drawn by default."""
    return FigureOptions.model_validate(study.get("figures") or {})
