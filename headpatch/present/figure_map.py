"""Maps of heads, and maps laid over pictures, drawn by matplotlib."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from headpatch.present.canvas import BLUE, VERMILLION, signed
from headpatch.present.chart import Cells, Chart, HeadMap, Picture
from headpatch.present.figure_panel import draw_guide, name_columns
from headpatch.present.scales import digits, root, square

if TYPE_CHECKING:
    import matplotlib.axes
    import matplotlib.colors
    import matplotlib.figure

EFFECT: Final = ("#08306B", BLUE, "#F7F7F7", VERMILLION, "#7F2704")
"""Colours from below 0 to above it: light at 0, dark at both ends."""
_LONGEST_SIDE: Final = 500  # pixels of a drawn image: what its part of a 7-inch page resolves
_DARK: Final = 0.6  # share of the scale from which a cell's text is white


def colouring(chart: Chart) -> tuple[Any, Any]:
    """Return the colour map and the scale of a chart's maps."""
    from matplotlib.colors import FuncNorm, LinearSegmentedColormap, Normalize

    both = chart.colours is None or chart.colours.both
    stops = EFFECT if both else EFFECT[2:]
    colours = LinearSegmentedColormap.from_list("effect", stops, 512).with_extremes(bad="0.75")
    ends: Any = {"vmin": -chart.most if both else 0.0, "vmax": chart.most}
    rooted = chart.colours is not None and chart.colours.rooted
    return colours, FuncNorm((root, square), **ends) if rooted else Normalize(**ends)


def colour_bar(
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


def draw_map(
    axes: "matplotlib.axes.Axes", panel: HeadMap, colours: Any, norm: Any, maps: int = 1
) -> Any:
    """Draw a map, one of so many side by side, without the names of axes and cells.

    Returns what a colour bar needs.
    """
    square_cells = bool(panel.x_names) and panel.x_names == panel.y_names
    image = axes.imshow(panel.values, cmap=colours, norm=norm, interpolation="nearest",
                        aspect="equal" if square_cells else "auto")  # fmt: skip
    rows, columns = panel.values.shape
    if panel.whole is not None:
        _draw_whole(axes, panel.whole, panel.whole_name, columns, cmap=colours, norm=norm)
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


def _draw_whole(
    axes: "matplotlib.axes.Axes", values: Any, name: str, heads: int, **colours: Any
) -> None:
    """Draw whole layers as a column of their own, apart from the heads."""
    wide = max(1.0, 0.06 * heads)
    left, right = heads - 0.5 + 0.4 * wide, heads - 0.5 + 1.4 * wide
    axes.imshow(values[:, None], extent=(left, right, len(values) - 0.5, -0.5), aspect="auto",
                interpolation="nearest", **colours)  # fmt: skip
    axes.set_xlim(-0.5, right)
    axes.annotate(name, ((left + right) / 2, 1), (0, 2), xycoords=axes.get_xaxis_transform(),
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


def draw_picture(axes: "matplotlib.axes.Axes", panel: Picture) -> Any:
    """Lay a map over a picture and outline the region; return what a colour bar needs."""
    from matplotlib import patheffects
    from matplotlib.patches import Rectangle
    from PIL import Image

    height, width = panel.image.shape[:2]
    shown = Image.fromarray(panel.image).convert("RGB")
    shown.thumbnail((_LONGEST_SIDE, _LONGEST_SIDE))
    axes.imshow(shown, extent=(0, 1, 1, 0), aspect=height / width, interpolation="nearest")
    cells, x_edges, y_edges = panel.density
    mesh = axes.pcolormesh(x_edges, y_edges, np.ma.masked_invalid(cells), cmap=_see_through(),
                           vmin=0.0, vmax=panel.peak or 1.0, linewidth=0,
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


def _see_through() -> "matplotlib.colors.ListedColormap":
    """Return a colour map that is clear where there is no attention, so that the image shows."""
    from matplotlib import colormaps
    from matplotlib.colors import ListedColormap

    colors = colormaps["plasma"](np.linspace(0.2, 0.97, 256))
    colors[:, 3] = np.linspace(0.0, 0.85, 256)
    return ListedColormap(colors)
