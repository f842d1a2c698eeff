"""Charts drawn by matplotlib: the figures that a run writes, and that a notebook shows."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final, TypeAlias

import numpy as np

from headpatch.present.canvas import (
    BLUE,
    VERMILLION,
    WIDTH,
    Sheet,
    Target,
    drawing,
    frame,
    own_colours,
    signed,
)
from headpatch.present.chart import (
    AnyPanel,
    Cells,
    Chart,
    HeadMap,
    Picture,
    ground,
    numbers_along,
    rows_of,
)
from headpatch.present.figure_panel import (
    draw_guide,
    draw_panel,
    name_cells,
    name_columns,
    name_points,
)
from headpatch.present.panel import Panel, digits, root, square

if TYPE_CHECKING:
    import matplotlib.axes
    import matplotlib.figure

# from below 0 to above it: light at 0, dark at both ends
EFFECT: Final = ("#08306B", BLUE, "#F7F7F7", VERMILLION, "#7F2704")
_LONGEST_SIDE: Final = 500  # pixels of a drawn image: what its part of a 7-inch page resolves
_DARK: Final = 0.6  # share of the scale from which a cell's text is white
_MANY: Final = 20  # names of rows that stand close together
_TALLEST: Final = 60.0  # inches of pictures: past it, rows shrink

Held: TypeAlias = "list[tuple[matplotlib.axes.Axes, AnyPanel]]"


def draw(
    chart: Chart,
    target: Target,
    question: str = "",
    region: str = "",
    *,
    width: float = WIDTH,
    style: str | None = None,
) -> None:
    """Draw a chart into a file, or onto a sheet; question and region are words for the title.

    `width` is in inches, `style` a style file of matplotlib.
    """
    rows = rows_of(chart)
    heights = chart.heights or [max(_height(one, chart, width) for one in row) for row in rows]
    apart = any(isinstance(one, Picture) for one in chart.panels)  # each has its own shape
    with drawing(target, 0.4 + sum(heights), width, style) as figure:
        grid = figure.subplots(len(rows), chart.columns, squeeze=False, height_ratios=heights,
                               sharex="none" if apart else chart.share_x,
                               sharey="none" if apart else chart.share_y,
                               width_ratios=chart.widths or None)  # fmt: skip
        held: Held = []
        for axes, panel in zip(grid.ravel(), (one for row in rows for one in row), strict=True):
            if panel is None:
                axes.set_axis_off()
            else:
                held.append((axes, panel))
        _fill(figure, chart, held, colouring(chart, own_colours(style)))
        _label_axes(chart, grid.tolist(), rows)
        named = [axes for axes, panel in held if not getattr(panel, "legend", False)]
        frame(figure, chart.title, question=question, region=region, legend=named, note=chart.note)
        figure.draw_without_rendering()  # labels are placed once the panels have their sizes
        if not isinstance(target, Sheet):
            figure.set_layout_engine("none")  # lest the panels be laid out twice more to be saved
        for axes, panel in held:
            if isinstance(panel, Panel):
                name_points(axes, panel)
            elif isinstance(panel, HeadMap):
                name_cells(axes, panel.values.shape, panel.labels)


def _height(panel: AnyPanel | None, chart: Chart, width: float) -> float:
    """Return how tall a panel is, in inches."""
    match panel:
        case Panel(across=True):
            count = max(len(panel.names), 3)
            return 0.25 + (0.19 if count <= _MANY else 0.14) * count
        case Panel():
            return 1.75
        case HeadMap() if panel.x_names and panel.x_names == panel.y_names:
            return 0.92 * width / max(chart.columns, 1.6)
        case HeadMap():
            rows = len(panel.values)
            if panel.y_names:
                return 0.25 + 0.13 * rows
            return 0.45 + min(2.3, max(0.9, 0.07 * rows))
        case Picture():
            tall = 0.76 * width / chart.columns * panel.image.shape[0] / panel.image.shape[1]
            return float(min(max(tall, 0.9), 3.4, _TALLEST / len(rows_of(chart)))) + 0.22
    return 0.0


def _fill(
    figure: "matplotlib.figure.Figure", chart: Chart, held: Held, coloured: tuple[Any, Any]
) -> None:
    """Draw every panel, and the colour bars of maps and pictures.

    `coloured` is the colour map and the scale of maps.
    """
    maps, meshes = [], []
    for axes, panel in held:
        if isinstance(panel, HeadMap):
            maps.append((axes, _draw_map(axes, panel, *coloured, chart.columns)))
        elif isinstance(panel, Picture):
            mesh = _draw_picture(axes, panel)
            meshes += [] if mesh is None else [(axes, mesh)]
        elif isinstance(panel, Panel):
            numbers = [numbers_along(chart, panel, axis) for axis in ("x", "y")]
            draw_panel(axes, panel, numbers[0], numbers[1], chart.columns)
    if maps:
        _colour_bar(figure, chart, maps[-1][1], [axes for axes, _ in maps])
    pictures = [panel.image for _, panel in held if isinstance(panel, Picture)]
    for start in range(0, len(meshes), chart.columns):
        row = meshes[start : start + chart.columns]
        bar = figure.colorbar(row[-1][1], ax=[axes for axes, _ in row], fraction=0.03, pad=0.01)
        bar.set_label(chart.colours.label if chart.colours else "")
        bar.outline.set_linewidth(0.4)
        bar.ax.set_facecolor(ground(pictures[start : start + chart.columns]))


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


def colouring(chart: Chart, named: str | None = None) -> tuple[Any, Any]:
    """Return the colour map, or the one that is named, and the scale of a chart's maps."""
    from matplotlib import colormaps
    from matplotlib.colors import FuncNorm, LinearSegmentedColormap, Normalize

    both = chart.colours is None or chart.colours.both
    stops = EFFECT if both else EFFECT[2:]
    colours: Any = LinearSegmentedColormap.from_list("effect", stops, 512)
    colours = (colormaps[named] if named else colours).with_extremes(bad="0.75")
    ends: Any = {"vmin": -chart.most if both else 0.0, "vmax": chart.most}
    rooted = chart.colours is not None and chart.colours.rooted
    return colours, FuncNorm((root, square), **ends) if rooted else Normalize(**ends)


def _colour_bar(
    figure: "matplotlib.figure.Figure", chart: Chart, image: Any, axes: Sequence[Any]
) -> None:
    """Add the bar that says what the colours of all maps mean."""
    colours = chart.colours
    bar = figure.colorbar(image, ax=list(axes), fraction=0.03, pad=0.01, aspect=30)
    bar.outline.set_linewidth(0.6)
    if colours is None:
        return
    if colours.rooted:
        shares = [0.0625, 0.25, 1.0]
        shares = [0.0, *shares] if not colours.both else [-1.0, -0.25, -0.0625, 0.0, *shares]
        ticks = [share * chart.most for share in shares]
        bar.set_ticks(ticks, labels=[signed(tick, digits(chart.most)) for tick in ticks])
    for value in colours.lines:
        if abs(value) < chart.most:
            bar.ax.axhline(value, color="black", linewidth=0.8)
    bar.set_label(colours.label + " (square-root scale)" * colours.rooted)


def _draw_map(
    axes: "matplotlib.axes.Axes", panel: HeadMap, colours: Any, norm: Any, maps: int = 1
) -> Any:
    """Draw a map, one of so many side by side; return what a colour bar needs."""
    square_cells = bool(panel.x_names) and panel.x_names == panel.y_names
    image = axes.imshow(panel.values, cmap=colours, norm=norm, interpolation="nearest",
                        aspect="equal" if square_cells else "auto")  # fmt: skip
    rows, columns = panel.values.shape
    if panel.whole is not None:
        _draw_whole(axes, panel.whole, columns, cmap=colours, norm=norm)
    for cells in panel.cells:
        _mark(axes, cells)
    for guide in panel.guides:
        draw_guide(axes, guide)
    if panel.last_read is not None and panel.last_read < rows - 1:
        axes.axhline(panel.last_read + 0.5, color="black", linewidth=0.7, linestyle=(0, (3, 2)),
                     label="below: not read by the language model")  # fmt: skip
    _print(axes, panel, norm.vmax)
    axes.set_title(panel.title, loc="left")
    _count(axes, panel, maps)
    return image


def _count(axes: "matplotlib.axes.Axes", panel: HeadMap, maps: int) -> None:
    """Name rows and columns, or count them."""
    if panel.y_names:
        axes.set_yticks(range(len(panel.y_names)), panel.y_names, fontsize=5.5)
    else:
        axes.set_yticks(_few(len(panel.values)))
    if panel.x_names:
        name_columns(axes, list(panel.x_names), maps)
    else:
        axes.set_xticks(_few(panel.values.shape[1]))


def _few(count: int) -> list[int]:
    """Return a few round numbers below `count`, which heads have and no other column does."""
    from matplotlib.ticker import MaxNLocator

    ticks = MaxNLocator(integer=True, nbins=6).tick_values(0, max(count - 1, 1))
    return [int(tick) for tick in ticks if 0 <= tick < count]


def _draw_whole(axes: "matplotlib.axes.Axes", values: Any, heads: int, **colours: Any) -> None:
    """Draw whole layers as a column of their own, apart from the heads."""
    wide = max(1.0, 0.06 * heads)
    left, right = heads - 0.5 + 0.4 * wide, heads - 0.5 + 1.4 * wide
    axes.imshow(values[:, None], extent=(left, right, len(values) - 0.5, -0.5), aspect="auto",
                interpolation="nearest", **colours)  # fmt: skip
    axes.set_xlim(-0.5, right)
    axes.annotate("all", ((left + right) / 2, 1), (0, 2), xycoords=axes.get_xaxis_transform(),
                  textcoords="offset points", ha="center", va="bottom", fontsize=5.5)  # fmt: skip


def _mark(axes: "matplotlib.axes.Axes", cells: Cells) -> None:
    from matplotlib.patches import Rectangle

    if cells.marker == "frame":
        for row, column in zip(cells.rows, cells.columns, strict=True):
            corner = column - 0.5, row - 0.5
            axes.add_patch(Rectangle(corner, 1, 1, fill=False, linewidth=0.8))
        return
    small = cells.marker == "."
    axes.plot(cells.columns, cells.rows, cells.marker, linestyle="none", label=cells.name or "_",
              markerfacecolor="0.15" if small else "none", markersize=5 if small else 4.5,
              markeredgecolor="white" if small else "black", markeredgewidth=0.7)  # fmt: skip


def _print(axes: "matplotlib.axes.Axes", panel: HeadMap, most: float) -> None:
    """Write into cells, as large as fits."""
    points = min(6.5, 52 / max(panel.values.shape))
    for row, texts in enumerate(panel.printed):
        for column, text in enumerate(texts):
            dark = abs(panel.values[row, column]) > _DARK * most
            faint = panel.faint is not None and panel.faint[row, column]
            ink = ("0.85" if faint else "white") if dark else ("0.5" if faint else "0.1")
            if text:
                axes.text(column, row, text, ha="center", va="center", fontsize=points, color=ink)


def _draw_picture(axes: "matplotlib.axes.Axes", panel: Picture) -> Any:
    """Lay a map over a picture and outline the region; return what a colour bar needs, if any."""
    from matplotlib import colormaps, patheffects
    from matplotlib.colors import ListedColormap
    from matplotlib.patches import Rectangle
    from PIL import Image

    height, width = panel.image.shape[:2]
    shown = Image.fromarray(panel.image).convert("RGB")
    shown.thumbnail((_LONGEST_SIDE, _LONGEST_SIDE))
    axes.imshow(shown, extent=(0, 1, 1, 0), aspect=height / width, interpolation="nearest")
    mesh = None
    if panel.density is not None:
        colors = colormaps["plasma"](np.linspace(0.2, 0.97, 256))
        colors[:, 3] = np.linspace(0.0, 0.85, 256)  # clear where there is no attention
        cells, x_edges, y_edges = panel.density
        mesh = axes.pcolormesh(x_edges, y_edges, np.ma.masked_invalid(cells), vmin=0.0,
                               cmap=ListedColormap(colors), vmax=panel.peak or 1.0, linewidth=0,
                               rasterized=True)  # fmt: skip
    left, top, right, bottom = panel.box
    halo = [patheffects.withStroke(linewidth=2.0, foreground="black")]
    axes.add_patch(
        Rectangle((left, top), right - left, bottom - top, fill=False, edgecolor="white",
                  linewidth=1.0, linestyle=(0, (3, 2)), clip_on=False, path_effects=halo)
    )  # fmt: skip
    axes.set(xlim=(0, 1), ylim=(1, 0), xticks=[], yticks=[])
    axes.set_title(panel.title, pad=2.5)
    axes.spines[:].set_visible(False)
    return mesh
