"""Figures as data: a grid of panels that hold points, maps or pictures, whatever draws them."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

import numpy as np
from jaxtyping import Bool, Float, UInt8

from headpatch.present.canvas import Target
from headpatch.present.panel import Guide, Panel
from headpatch.present.section import Figure

Map: TypeAlias = Float[np.ndarray, "rows columns"]
Shared: TypeAlias = Literal["all", "row", "col", "none"]


@dataclass(frozen=True, eq=False)
class Cells:
    """Cells of a map that are marked.

    Attributes
    ----------
    marker
        ``frame`` draws around the cell; else as matplotlib names it.
    name
        In the legend; may be empty.
    """

    rows: Sequence[int]
    columns: Sequence[int]
    marker: str
    name: str = ""


@dataclass(frozen=True, eq=False)
class HeadMap:
    """A map of layers × heads, or of any two axes, on the chart's colour scale.

    Attributes
    ----------
    values
        What is not a number is grey.
    x_names, y_names
        Of columns and rows; empty: they are counted from 0.
    hover
        What pointing at each cell says; empty: its place and number.
    labels
        Name by (row, column), written beside the cell where it hides no other.
    printed
        Written into cells, but for the page, where pointing says it; those `faint` in grey.
    last_read
        The last row that the language model reads.
    whole
        One more column right of the map, called `whole_name`: all heads of a layer together.
    guides
        Lines across the map.
    """

    title: str
    values: Map
    x_label: str
    y_label: str
    x_names: Sequence[str] = ()
    y_names: Sequence[str] = ()
    hover: Sequence[Sequence[str]] = ()
    cells: Sequence[Cells] = ()
    labels: Mapping[tuple[int, int], str] = field(default_factory=dict)
    printed: Sequence[Sequence[str]] = ()
    faint: Bool[np.ndarray, "rows columns"] | None = None
    last_read: int | None = None
    whole: Float[np.ndarray, " rows"] | None = None
    whole_name: str = "all"
    guides: Sequence[Guide] = ()


def largest_cells(values: Map, count: int) -> list[tuple[int, int]]:
    """Return (row, column) of the values that are largest in size, the largest first."""
    size = np.where(np.isfinite(values), np.abs(values), -1.0)
    order = np.argsort(-size, axis=None, kind="stable")[:count]
    places = [divmod(int(flat), values.shape[1]) for flat in order if size.flat[flat] >= 0]
    return [(row, column) for row, column in places]


@dataclass(frozen=True, eq=False)
class Picture:
    """A picture with a map of its patches laid over, and a region outlined.

    Attributes
    ----------
    density
        Of `headpatch.present.overlays.density`: cells, and their edges in fractions of the picture.
    box
        The region: left, top, right, bottom in fractions of the picture.
    peak
        The density that has the last colour; pictures of one row share it.
    label
        Names the row, at its left.
    """

    title: str
    image: UInt8[np.ndarray, "height width 3"]
    density: tuple[
        Float[np.ndarray, "y x"], Float[np.ndarray, " x_edges"], Float[np.ndarray, " y_edges"]
    ]
    box: tuple[float, ...]
    peak: float
    label: str = ""


AnyPanel: TypeAlias = Panel | HeadMap | Picture


@dataclass(frozen=True)
class Colours:
    """The colour scale that all maps of a chart share.

    Attributes
    ----------
    both
        Whether colours go both ways from 0.
    rooted
        Whether they follow the signed square root, which shows small values beside large ones.
    lines
        Values that are marked on the colour bar.
    """

    label: str
    both: bool = True
    rooted: bool = False
    lines: Sequence[float] = ()


@dataclass(frozen=True, eq=False)
class Chart:
    """A figure of panels on a grid.

    Attributes
    ----------
    name
        What `headpatch.plot` calls it.
    file
        Where a run writes it.
    panels
        Row by row; None leaves a place empty.
    note
        Stands below it.
    spoken
        What it shows, for who cannot see it; of each panel in turn.
    share_x, share_y
        Between which panels an axis has one scale.
    heights, widths
        Of rows in inches, and of columns in proportion; empty: as the panels need.
    colours
        Of maps and pictures.
    on_page
        Whether the page shows it too.
    """

    name: str
    file: str
    title: str
    panels: Sequence[AnyPanel | None]
    note: str = ""
    spoken: Sequence[str] = ()
    columns: int = 1
    share_x: Shared = "all"
    share_y: Shared = "all"
    heights: Sequence[float] = ()
    widths: Sequence[float] = ()
    colours: Colours | None = None
    on_page: bool = True

    @property
    def most(self) -> float:
        """Largest size of a value in the maps, which share one scale."""
        maps = [one for one in self.panels if isinstance(one, HeadMap)]
        held = [one.values for one in maps] + [one.whole for one in maps if one.whole is not None]
        sizes = [float(np.abs(values[np.isfinite(values)]).max(initial=0.0)) for values in held]
        return max(sizes, default=0.0) or 1.0


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
    columns
        Figures of the page side by side.
    """

    name: str
    file: str
    draw: Callable[[Target, str, str], None]
    interactive: Callable[[], Mapping[str, Figure]] | None = None
    columns: int = 1


Row: TypeAlias = Sequence[AnyPanel | None]


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
