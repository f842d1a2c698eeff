"""Figures as data: a grid of panels that hold points, maps or pictures, whatever draws them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

import numpy as np
from jaxtyping import Bool, Float, UInt8

from headpatch.present.panel import Guide, Panel

Map: TypeAlias = Float[np.ndarray, "rows columns"]
Shared: TypeAlias = Literal["all", "row", "col", "none"]


@dataclass(frozen=True, eq=False)
class Cells:
    """Cells of a map that are marked: by a ``frame``, or a marker of matplotlib."""

    rows: Sequence[int]
    columns: Sequence[int]
    marker: str
    name: str = ""  # in the legend


@dataclass(frozen=True, eq=False)
class HeadMap:
    """A map of layers × heads, or of any two axes, on the chart's colour scale."""

    title: str
    values: Map  # grey where it is no number
    x_label: str
    y_label: str
    x_names: Sequence[str] = ()  # of columns; empty: they are counted from 0
    y_names: Sequence[str] = ()  # of rows, likewise
    hover: Sequence[Sequence[str]] = ()  # of each cell; empty: its place and number
    cells: Sequence[Cells] = ()
    # by (row, column), written beside the cell where it hides no other
    labels: Mapping[tuple[int, int], str] = field(default_factory=dict)
    printed: Sequence[Sequence[str]] = ()  # into cells, but for the page, where pointing says it
    faint: Bool[np.ndarray, "rows columns"] | None = None  # which of these are grey
    last_read: int | None = None  # the last row that the language model reads
    whole: Float[np.ndarray, " rows"] | None = None  # all heads of a layer: one more column
    guides: Sequence[Guide] = ()


def largest_cells(values: Map, count: int) -> list[tuple[int, int]]:
    """Return (row, column) of the values that are largest in size, the largest first."""
    size = np.where(np.isfinite(values), np.abs(values), -1.0)
    order = np.argsort(-size, axis=None, kind="stable")[:count]
    places = [divmod(int(flat), values.shape[1]) for flat in order if size.flat[flat] >= 0]
    return [(row, column) for row, column in places]


@dataclass(frozen=True, eq=False)
class Picture:
    """A picture with a map of its patches laid over, if there is one, and a region outlined."""

    title: str
    image: UInt8[np.ndarray, "height width 3"]
    # as `headpatch.present.overlays.density` returns it
    density: (
        tuple[
            Float[np.ndarray, "y x"], Float[np.ndarray, " x_edges"], Float[np.ndarray, " y_edges"]
        ]
        | None
    )
    box: tuple[float, ...]  # left, top, right, bottom in fractions of the picture
    peak: float  # the density that has the last colour, of all pictures of a row
    label: str = ""  # of the row, at its left


def ground(images: Sequence[UInt8[np.ndarray, "_ _ 3"]]) -> tuple[float, float, float]:
    """Return the median colour of pictures, from 0 to 1.

    A colour bar of what is laid over them shows its colours on this, as they look there.
    """
    pixels = np.concatenate([image.reshape(-1, 3) for image in images])
    red, green, blue = (float(one) / 255 for one in np.median(pixels, axis=0))
    return red, green, blue


AnyPanel: TypeAlias = Panel | HeadMap | Picture
Row: TypeAlias = Sequence[AnyPanel | None]


@dataclass(frozen=True)
class Colours:
    """The colour scale that all maps of a chart share."""

    label: str
    both: bool = True  # ways from 0
    rooted: bool = False  # by the signed square root, which shows small values beside large ones
    lines: Sequence[float] = ()  # values that are marked on the colour bar


@dataclass(frozen=True, eq=False)
class Chart:
    """A figure of panels on a grid."""

    name: str  # as `headpatch.plot` calls it
    file: str  # that a run writes
    title: str
    panels: Sequence[AnyPanel | None]  # row by row; None leaves a place empty
    note: str = ""  # below it
    spoken: Sequence[str] = ()  # of each panel in turn, for who cannot see it
    columns: int = 1
    share_x: Shared = "all"  # between which panels the x axis has one scale
    share_y: Shared = "all"
    heights: Sequence[float] = ()  # of rows in inches; empty: as the panels need
    widths: Sequence[float] = ()  # of columns in proportion; empty: alike
    colours: Colours | None = None  # of maps and pictures
    on_page: bool = True

    @property
    def most(self) -> float:
        """Largest size of a value in the maps, which share one scale."""
        maps = [one for one in self.panels if isinstance(one, HeadMap)]
        held = [one.values for one in maps] + [one.whole for one in maps if one.whole is not None]
        sizes = [float(np.abs(values[np.isfinite(values)]).max(initial=0.0)) for values in held]
        return max(sizes, default=0.0) or 1.0


def rows_of(chart: Chart) -> list[Row]:
    """Return the panels row by row; the last row is filled up."""
    count = -(-len(chart.panels) // chart.columns)
    panels: list[Any] = [*chart.panels, *[None] * (count * chart.columns - len(chart.panels))]
    return [panels[i : i + chart.columns] for i in range(0, len(panels), chart.columns)]


def numbers_along(
    chart: Chart, panel: Panel, axis: Literal["x", "y"]
) -> Float[np.ndarray, " numbers"]:
    """Return every number along an axis of a panel and of those that share its scale."""
    shared = chart.share_x if axis == "x" else chart.share_y
    place = next(index for index, one in enumerate(chart.panels) if one is panel)
    row, column = divmod(place, chart.columns)

    def same(index: int) -> bool:
        at = divmod(index, chart.columns)
        apart = {"row": at[0] != row, "col": at[1] != column, "none": index != place}
        return not apart.get(shared, False)

    numbers = [
        one.numbers_on(axis)
        for index, one in enumerate(chart.panels)
        if isinstance(one, Panel) and same(index)
    ]
    return np.concatenate(numbers)
