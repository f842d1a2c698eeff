"""Panels of lines, points and bars, drawn by matplotlib; names beside points and cells."""

from collections.abc import Mapping, Sequence
from functools import partial
from textwrap import wrap
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from jaxtyping import Float

from headpatch.present.canvas import GREY, WIDTH, layer_axis
from headpatch.present.panel import Guide, Panel, Scale, Series

if TYPE_CHECKING:
    import matplotlib.axes
    import matplotlib.patheffects
    import matplotlib.transforms

_CROWDED: Final = 90  # characters along an axis
_CLOSE: Final = 40  # names along an axis, past which slanted ones would overlap
_FEW: Final = 15  # points of a line with large markers
_MANY: Final = 30  # markers on a line
_SIDES: Final = ((1, 0), (-1, 0), (0, 1), (0, -1), (1, 1), (-1, 1), (1, -1), (-1, -1))
_RINGS: Final = tuple(np.geomspace(1.0, 66.0, 17).tolist())  # of names round a point, to the edges
_CELL_RINGS: Final = (1.0, 2.2, 3.5)  # of names round a cell


def draw_panel(
    axes: "matplotlib.axes.Axes",
    panel: Panel,
    x: Float[np.ndarray, " across"],
    y: Float[np.ndarray, " up"],
    columns: int,
) -> None:
    """Draw a panel, one of so many columns, but for the names of its axes and points.

    `x` and `y` are all numbers along its axes, and along those that share them.
    """
    _scale(axes, panel.x_scale, x, "x")
    _scale(axes, panel.y_scale, y, "y")
    (axes.axvline if panel.across else axes.axhline)(0, color="0.55", linewidth=0.6, zorder=1)
    for order, series in enumerate(panel.series):
        _draw_series(axes, panel, series, 3 - order / 100)
    for guide in panel.guides:
        draw_guide(axes, guide)
    lines = wrap(panel.note, int(120 * _wide(axes) / columns))
    axes.set_title(panel.title, loc="left", pad=4 + 9 * len(lines))
    axes.text(0, 1.03, "\n".join(lines), transform=axes.transAxes, fontsize=6.5, color="0.3")
    axes.text(0.03, 0.97, panel.text, transform=axes.transAxes, va="top", fontsize=5.5, color="0.3")
    for limit, scale in ((axes.set_xlim, panel.x_scale), (axes.set_ylim, panel.y_scale)):
        if scale.low is not None or scale.high is not None:
            limit(scale.low, scale.high)
    _places(axes, panel, columns)
    if panel.factor:
        both = partial(np.multiply, panel.factor), lambda y: np.divide(y, panel.factor)
        axes.secondary_yaxis("right", functions=both).set_ylabel(panel.factor_label)
    if panel.legend:
        axes.legend(loc="best", fontsize=6.5)


def draw_guide(axes: "matplotlib.axes.Axes", guide: Guide) -> None:
    """Draw a line across the axes, or a shaded span."""
    label = guide.name or "_"
    if guide.to is None:
        line = axes.axvline if guide.axis == "x" else axes.axhline
        line(guide.at, color="0.55", linewidth=0.6, linestyle=guide.line, zorder=1, label=label)
        return
    span = axes.axvspan if guide.axis == "x" else axes.axhspan
    span(guide.at, guide.to, facecolor="0.93", edgecolor="0.65", hatch=guide.hatch, linewidth=0,
         zorder=0, label=label)  # fmt: skip


def _draw_series(axes: "matplotlib.axes.Axes", panel: Panel, series: Series, zorder: float) -> None:
    _draw_null(axes, panel, series)
    _draw_interval(axes, panel, series)
    if panel.kind(series) == "bars":
        _draw_bars(axes, panel, series)
    else:
        _draw_points(axes, panel, series, zorder)
    infinite = np.isposinf(series.y)
    for x in series.x[infinite]:
        axes.text(x, 0.97, "▲\n∞", ha="center", va="top", color=series.style.color, fontsize=6,
                  transform=axes.get_xaxis_transform())  # fmt: skip
    for index, text in enumerate(series.texts):
        value = _far_end(panel, series, index)
        before = value < 0 if series.before is None else bool(series.before[index])
        _write(axes, panel, series.x[index], value, text, before)
    if panel.names and panel.kind(series) == "points":
        for place in series.x[np.isnan(series.y) & np.isfinite(series.x)]:
            _write(axes, panel, place, 0.0, "undefined")


def _far_end(panel: Panel, series: Series, index: int) -> float:
    """Return where a point, or its interval as a bar, is farthest on its own side of 0."""
    value = float(series.y[index])
    if series.interval is None or panel.band(series):
        return value
    end = float(series.interval[int(value >= 0)][index])
    return end if np.isfinite(end) and end * value > 0 else value


def _swap(panel: Panel, places: Any, values: Any) -> tuple[Any, Any]:
    """Return x and y on the page."""
    return (values, places) if panel.across else (places, values)


def _draw_points(axes: "matplotlib.axes.Axes", panel: Panel, series: Series, zorder: float) -> None:
    look, joined = series.style, panel.kind(series) == "line"
    x, y = _swap(panel, series.x, np.where(np.isfinite(series.y), series.y, np.nan))
    edge = 0.0 if joined or look.marker == "." else 0.3
    shape: dict[str, Any] = {
        "color": look.color,
        "marker": look.marker,
        "alpha": look.alpha,
        "markersize": look.size or (2.6 if joined and len(x) > _FEW else 3.5),
        "markeredgewidth": 0.9 if look.hollow or look.marker == "x" else edge,
        "markeredgecolor": look.color if look.hollow or look.marker in "xX" else "white",
    }
    if look.hollow:
        shape["markerfacecolor"] = "white"
    if joined:
        shape["markevery"] = max(1, len(x) // _MANY)
    line = (look.line or "none") if joined else "none"
    axes.plot(x, y, linestyle=line, linewidth=look.width, label=series.name or "_", zorder=zorder,
              **shape)  # fmt: skip
    if series.hollow is not None:
        open_ = {**shape, "markeredgecolor": look.color, "markeredgewidth": 0.9}
        axes.plot(x[series.hollow], y[series.hollow], linestyle="none", zorder=zorder + 0.005,
                  **{**open_, "markerfacecolor": "white", "markevery": None})  # fmt: skip


def _draw_bars(axes: "matplotlib.axes.Axes", panel: Panel, series: Series) -> None:
    look = series.style
    face = "white" if look.hollow else look.color
    edge = "white" if look.hatch and not look.hollow else look.color
    draw = axes.barh if panel.across else axes.bar
    draw(series.x, series.y, series.width, facecolor=face, edgecolor=edge, hatch=look.hatch,
         linewidth=0.8 * look.hollow, alpha=look.alpha, label=series.name or "_",
         zorder=2)  # fmt: skip


def _draw_interval(axes: "matplotlib.axes.Axes", panel: Panel, series: Series) -> None:
    if series.interval is None:
        return
    low, high = series.interval
    color, width = series.style.color, series.style.width
    if panel.band(series):
        axes.fill_between(series.x, low, high, color=color, alpha=0.22, linewidth=0, zorder=2)
        return
    known = np.isfinite(low) & np.isfinite(high) & np.isfinite(series.x)
    bars = axes.hlines if panel.across else axes.vlines
    dark = "0.15" if panel.kind(series) == "bars" else color
    bars(series.x[known], low[known], high[known], color=dark, linewidth=width, zorder=2.5)


def _draw_null(axes: "matplotlib.axes.Axes", panel: Panel, series: Series) -> None:
    if series.null_band is None:
        return
    low, high = series.null_band
    color = GREY if series.null_name else series.style.color
    label = series.null_name or "_"
    if panel.kind(series) == "line":
        axes.fill_between(series.x, low, high, color=color, alpha=0.25, linewidth=1.2, zorder=2,
                          label=label)  # fmt: skip
        return
    middle = (low + high) / 2 if series.null is None else series.null
    known = np.isfinite(middle) & np.isfinite(series.x)
    place, low, high = series.x[known], low[known], high[known]
    thick = axes.hlines if panel.across else axes.vlines
    thick(place, low, high, color=color, alpha=0.3, linewidth=5, zorder=1.4, label=label)
    x, y = _swap(panel, place, middle[known])
    axes.plot(x, y, "|" if panel.across else "_", color=color, alpha=0.7, markersize=7, zorder=2)


def _write(
    axes: "matplotlib.axes.Axes",
    panel: Panel,
    place: float,
    value: float,
    text: str,
    before: bool = False,
) -> None:
    """Write beside a point, towards higher numbers or `before` it."""
    if not (text and np.isfinite(place) and np.isfinite(value)):
        return
    far = -5 if before else 5
    if panel.across:
        shift, side, up = (far, 0), "right" if before else "left", "center"
    else:
        shift, side, up = (0, far), "center", "top" if before else "bottom"
    axes.annotate(text, _swap(panel, place, value), shift, textcoords="offset points", fontsize=6,
                  ha=side, va=up, zorder=4, path_effects=_halo(2.4))  # fmt: skip


def _halo(width: float) -> "list[matplotlib.patheffects.AbstractPathEffect]":
    """Return what parts a text from the lines that run behind it."""
    from matplotlib.patheffects import withStroke

    return [withStroke(linewidth=width, foreground="white")]


def _scale(
    axes: "matplotlib.axes.Axes", scale: Scale, numbers: Float[np.ndarray, " numbers"], axis: str
) -> None:
    """Lay numbers out, and choose which are written."""
    along: Any = axes.xaxis if axis == "x" else axes.yaxis
    if scale.kind != "linear":
        change: Any = axes.set_xscale if axis == "x" else axes.set_yscale
        change("function", functions=(scale.along, scale.back))
    if ticks := scale.labels(numbers):
        along.set_ticks(list(ticks), list(ticks.values()))


def _places(axes: "matplotlib.axes.Axes", panel: Panel, columns: int) -> None:
    """Write the names of places, or count layers."""
    names = list(panel.names)
    if panel.layers is not None:
        layer_axis(axes, panel.layers, "")
    elif panel.across:
        axes.set_yticks(range(len(names)), names)
        axes.set_ylim(len(names) - 0.4, -0.6)
        axes.margins(x=0.12)
    elif names:
        name_columns(axes, names, columns)
        axes.set_xlim(-0.5, len(names) - 0.5)


def _wide(axes: "matplotlib.axes.Axes") -> float:
    """Return how wide the figure is, as a share of the usual width."""
    return float(axes.figure.bbox.width / axes.figure.dpi / WIDTH)


def name_columns(axes: "matplotlib.axes.Axes", names: list[str], columns: int) -> None:
    """Write names below their places; slanted or upright where they would run into each other."""
    widest = max(len(line) for name in names for line in name.split("\n"))
    room = _wide(axes) / columns
    crowded = len(names) * widest > _CROWDED * room
    close = len(names) > _CLOSE * room
    angle = (90 if close or any("\n" in name for name in names) else 45) if crowded else 0
    axes.set_xticks(range(len(names)), names, rotation=angle, fontsize=5.5 if close else None,
                    ha="right" if angle == 45 else "center")  # fmt: skip


def name_points(axes: "matplotlib.axes.Axes", panel: Panel) -> None:
    """Write the labels of points where they hide no other; the panel has its size already."""
    from matplotlib.transforms import Bbox

    names = [
        (label, *_swap(panel, float(place), float(value)))
        for series in panel.series
        if series.labels
        for label, place, value in zip(series.labels, series.x, series.y, strict=True)
        if label and np.isfinite(place) and np.isfinite(value)
    ]
    if not names:
        return
    half = 2 * axes.figure.dpi / 72  # pixels of two points of type
    middles = axes.transData.transform([(x, y) for _, x, y in names])
    taken = [Bbox([[x - half, y - half], [x + half, y + half]]) for x, y in middles]
    _write_names(axes, names, reach=(3.5, 3.5), rings=_RINGS, panel=axes.get_window_extent(),
                 taken=taken, led=_RINGS[2])  # fmt: skip


def _write_names(
    axes: "matplotlib.axes.Axes",
    names: Sequence[tuple[str, float, float]],
    *,
    reach: tuple[float, float],
    rings: Sequence[float],
    panel: "matplotlib.transforms.BboxBase",
    taken: "Sequence[matplotlib.transforms.BboxBase]" = (),
    led: float = float("inf"),
) -> None:
    """Write each name beside its x and y, as near as there is room; the first choose first.

    Names lie in `panel` and cover none of `taken` (in pixels). `reach` is how far the nearest ring
    of places lies from a point, across and up, in points of type; `rings` are multiples of it, and
    from ring `led` on a thin line leads to the name. A name without room is left out.
    """
    halo = _halo(1.4)
    places = [(ring, *side) for ring in rings for side in _SIDES]
    boxes = list(taken)
    for name, x, y in names:
        text = axes.annotate(name, (x, y), (0, 0), textcoords="offset points", fontsize=5.5,
                             path_effects=halo, zorder=5, annotation_clip=False)  # fmt: skip
        text.set_in_layout(False)
        for ring, across, up in places:
            shift = across * reach[0] * ring, up * reach[1] * ring
            text.set_position(shift)
            text.set_horizontalalignment(("right", "center", "left")[across + 1])
            text.set_verticalalignment(("top", "center", "bottom")[up + 1])
            box = text.get_window_extent()
            inside = panel.contains(box.x0, box.y0) and panel.contains(box.x1, box.y1)
            if inside and not any(box.overlaps(other) for other in boxes):
                boxes.append(box)
                if ring >= led:
                    axes.annotate("", (x, y), shift, textcoords="offset points", zorder=4,
                                  annotation_clip=False, arrowprops={"arrowstyle": "-", "color":
                                  "0.45", "linewidth": 0.4, "shrinkA": 0, "shrinkB": 1.5},
                                  ).set_in_layout(False)  # fmt: skip
                break
        else:
            text.remove()


def name_cells(
    axes: "matplotlib.axes.Axes", shape: tuple[int, ...], names: Mapping[tuple[int, int], str]
) -> None:
    """Write names beside cells of a map, where they hide none of these; axes have their size."""
    from matplotlib.transforms import Bbox

    corners = [(-0.5, shape[0] - 0.5), (shape[1] - 0.5, -0.5)]
    point = axes.figure.dpi / 72  # pixels of a point of type
    (x0, y0), (x1, y1) = axes.transData.transform([(0, 0), (1, 1)])
    half = [min(abs(side) / point / 2, 7.0) + 1.5 for side in (x1 - x0, y1 - y0)]

    def box(row: int, column: int) -> Bbox:
        x, y = axes.transData.transform((column, row))
        dx, dy = ((reach - 2.5) * point for reach in half)
        return Bbox([[x - dx, y - dy], [x + dx, y + dy]])

    at = [(name, float(column), float(row)) for (row, column), name in names.items()]
    panel = Bbox(axes.transData.transform(corners))
    taken = [box(*cell) for cell in names]
    _write_names(axes, at, reach=(half[0], half[1]), rings=_CELL_RINGS, panel=panel, taken=taken)
