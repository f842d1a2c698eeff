"""Charts drawn by matplotlib: the figures that a run writes, and that a notebook shows."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final, TypeAlias

from headpatch.present.canvas import WIDTH, Target, drawing, frame
from headpatch.present.chart import (
    AnyPanel,
    Chart,
    Drawn,
    HeadMap,
    Picture,
    Shared,
    numbers_along,
    rows_of,
)
from headpatch.present.figure_map import colour_bar, colouring, draw_map, draw_picture
from headpatch.present.figure_panel import draw_panel, name_points
from headpatch.present.labels import name_cells
from headpatch.present.panel import Panel

if TYPE_CHECKING:
    import matplotlib.axes
    import matplotlib.figure

_MANY: Final = 20  # names of rows that stand close together
_TALLEST: Final = 60.0  # inches of pictures: past it, rows shrink

Held: TypeAlias = "list[tuple[matplotlib.axes.Axes, AnyPanel]]"


def draw(chart: Chart | Drawn, target: Target, question: str = "", region: str = "") -> None:
    """Draw a chart.

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
    rows = rows_of(chart)
    heights = chart.heights or [max(_height(one, chart) for one in row) for row in rows]
    share_x, share_y = _shared(chart)
    with drawing(target, 0.4 + sum(heights)) as figure:
        grid = figure.subplots(
            len(rows),
            chart.columns,
            sharex=share_x,
            sharey=share_y,
            squeeze=False,
            height_ratios=heights,
            width_ratios=chart.widths or None,
        )
        held: Held = []
        for axes, panel in zip(grid.ravel(), (one for row in rows for one in row), strict=True):
            if panel is None:
                axes.set_axis_off()
            else:
                held.append((axes, panel))
        _fill(figure, chart, held)
        _label_axes(chart, grid.tolist(), rows)
        frame(
            figure,
            chart.title,
            question=question,
            region=region,
            legend=[axes for axes, panel in held if not getattr(panel, "legend", False)],
            note=chart.note,
        )
        figure.draw_without_rendering()  # labels are placed once the panels have their sizes
        for axes, panel in held:
            if isinstance(panel, Panel):
                name_points(axes, panel)
            elif isinstance(panel, HeadMap):
                name_cells(axes, panel.values.shape, panel.labels)


def _shared(chart: Chart) -> tuple[Shared, Shared]:
    if any(isinstance(one, Picture) for one in chart.panels):
        return "none", "none"  # each picture has its own shape
    return chart.share_x, chart.share_y


def _height(panel: AnyPanel | None, chart: Chart) -> float:
    """Return how tall a panel is, in inches."""
    match panel:
        case Panel(across=True):
            count = max(len(panel.names), 3)
            return 0.25 + (0.19 if count <= _MANY else 0.14) * count
        case Panel():
            return 1.75
        case HeadMap() if panel.x_names and panel.x_names == panel.y_names:
            return 0.92 * WIDTH / max(chart.columns, 1.6)
        case HeadMap():
            rows = len(panel.values)
            if panel.y_names:
                return 0.25 + 0.13 * rows
            return 0.45 + min(2.3, max(0.9, 0.07 * rows))
        case Picture():
            tall = 0.76 * WIDTH / chart.columns * panel.image.shape[0] / panel.image.shape[1]
            return float(min(max(tall, 0.9), 3.4, _TALLEST / len(rows_of(chart)))) + 0.22
    return 0.0


def _fill(figure: "matplotlib.figure.Figure", chart: Chart, held: Held) -> None:
    """Draw every panel, and the colour bars of maps and pictures."""
    maps, meshes = [], []
    for axes, panel in held:
        if isinstance(panel, HeadMap):
            maps.append((axes, draw_map(axes, panel, *colouring(chart), chart.columns)))
        elif isinstance(panel, Picture):
            meshes.append((axes, draw_picture(axes, panel)))
        elif isinstance(panel, Panel):
            numbers = [numbers_along(chart, panel, axis) for axis in ("x", "y")]
            draw_panel(axes, panel, numbers[0], numbers[1], chart.columns)
    if maps:
        colour_bar(figure, chart, maps[-1][1], [axes for axes, _ in maps])
    for start in range(0, len(meshes), chart.columns):
        row = meshes[start : start + chart.columns]
        bar = figure.colorbar(row[-1][1], ax=[axes for axes, _ in row], fraction=0.03, pad=0.01)
        bar.set_label(chart.colours.label if chart.colours else "")
        bar.outline.set_linewidth(0.4)


def _label_axes(
    chart: Chart,
    grid: "list[list[matplotlib.axes.Axes]]",
    rows: Sequence[Sequence[AnyPanel | None]],
) -> None:
    """Name the axes: those that panels share, once."""
    for i, row in enumerate(rows):
        for j, panel in enumerate(row):
            axes, first = grid[i][j], row[0]
            if isinstance(panel, Picture) and j == 0:
                axes.set_ylabel(panel.label)
            if not isinstance(panel, Panel | HeadMap):
                continue
            below = next((one for later in rows[i + 1 :] if (one := later[j]) is not None), None)
            if below is None or chart.share_x in ("row", "none"):
                axes.set_xlabel(panel.x_label)
                axes.tick_params(labelbottom=True)
            if j == 0 or getattr(first, "y_label", "") != panel.y_label:
                axes.set_ylabel(panel.y_label)
    grid[0][0].figure.align_ylabels([row[0] for row in grid])
