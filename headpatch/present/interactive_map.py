"""Maps of heads and of pictures for the page, as Plotly reads them."""

import base64
import io
from collections.abc import Sequence
from typing import Any, Final

import numpy as np
from PIL import Image

from headpatch.present.canvas import GREY, signed
from headpatch.present.chart import Cells, Chart, HeadMap, Picture, ground
from headpatch.present.panel import digits, root
from headpatch.present.section import Figure, numbers, words

RAMP: Final = (
    "#5c01a6", "#7e03a8", "#9c179e", "#b52f8c", "#cc4778", "#de5f65", "#ed7953", "#f89540",
    "#fdb42f", "#fbd524", "#f4e726",
)  # fmt: skip
"""Colours of a density, from 0 to the largest: matplotlib's plasma without its dark end."""
OPAQUE: Final = 0.85  # how much the largest density covers the picture; none is clear
_SIDE: Final = 480  # pixels of a picture in a figure
_SHARES: Final = (-1.0, -0.25, 0.0, 0.25, 1.0)
_MARKERS: Final = {".": "circle", "s": "square-open"}
_BAR: Final = {"thickness": 10, "outlinewidth": 0, "len": 1, "xpad": 0}


def map_figure(chart: Chart, panel: HeadMap, label: str) -> Figure:
    """Return a map of heads."""
    framed = [one for one in panel.cells if one.marker == "frame"]
    traces = [_heat(chart, panel), *(_marks(one) for one in panel.cells if one not in framed)]
    layout: dict[str, Any] = {
        "xaxis": _names(panel.x_names, panel.x_label, panel.values.shape[1]),
        "yaxis": _names(panel.y_names, panel.y_label, len(panel.values))
        | {"autorange": "reversed"},
        "shapes": [
            *(_break(guide.at, guide.axis) for guide in panel.guides),
            *(_frame(*cell) for one in framed for cell in zip(one.rows, one.columns, strict=True)),
        ],
    }
    if panel.whole is not None:
        traces.append(_whole(chart, panel))
        layout["xaxis"]["domain"] = [0, 0.92]
        layout["xaxis2"] = {"domain": [0.94, 1], "tickvals": [0], "ticktext": ["all"]}
    if panel.last_read is not None and panel.last_read < len(panel.values) - 1:
        layout["shapes"].append(_break(panel.last_read + 0.5, "y"))
    height = 160 + 20 * len(panel.y_names) if panel.y_names else 360
    return Figure(traces, layout, height, label, title=panel.title)


def slots(names: Sequence[str]) -> dict[str, Any]:
    """Return an axis with a name for each slot."""
    return {"tickmode": "array", "tickvals": list(range(len(names))),
            "ticktext": [words(name) for name in names], "showgrid": False,
            "zeroline": False}  # fmt: skip


def across(axis: str, low: float, high: float) -> dict[str, Any]:
    """Return where a shape lies that crosses a whole figure, between two numbers of an axis."""
    other = "y" if axis == "x" else "x"
    return {f"{axis}ref": axis, f"{axis}0": low, f"{axis}1": high, f"{other}ref": "paper",
            f"{other}0": 0, f"{other}1": 1}  # fmt: skip


def _names(names: Any, title: str, count: int) -> dict[str, Any]:
    """Return an axis of names, or one that counts from 0."""
    axis = {"title": {"text": words(title).replace("\n", " ")}, "showgrid": False,
            "zeroline": False}  # fmt: skip
    if not names:
        return {**axis, "dtick": 1 if count <= 8 else 4, "tick0": 0}
    made = {**slots([" ".join(name.split()) for name in names]), **axis}
    return {**made, "tickangle": -45} if sum(map(len, names)) > 60 else made


def _heat(chart: Chart, panel: HeadMap) -> dict[str, Any]:
    colours = chart.colours
    both, rooted = colours is None or colours.both, colours is not None and colours.rooted
    most = float(root(chart.most)) if rooted else chart.most
    bar: dict[str, Any] = _BAR
    if rooted:
        at = np.array([share for share in _SHARES if both or share >= 0]) * chart.most
        texts = [signed(one, digits(4 * chart.most)) if one else "0" for one in at]
        bar = _BAR | {"tickmode": "array", "tickvals": numbers(root(at)), "ticktext": texts}
    return {"type": "heatmap", "z": numbers(root(panel.values) if rooted else panel.values),
            "text": [[words(text) for text in row] for row in panel.hover or _hover(panel)],
            "hovertemplate": "%{text}<extra></extra>", "zmin": -most if both else 0.0,
            "zmax": most, "colorscale": "effect" if both else "share", "xgap": 1, "ygap": 1,
            "hoverongaps": True, "colorbar": bar}  # fmt: skip


def _hover(panel: HeadMap) -> list[list[str]]:
    """Say place and number of each cell."""
    rows, columns = panel.values.shape
    down = panel.y_names or [f"{panel.y_label.split()[-1].lower()} {i}" for i in range(rows)]
    across = panel.x_names or [f"{panel.x_label.lower()} {j}" for j in range(columns)]
    return [
        [f"{name}, {' '.join(other.split())}: {value:+.4g}"
         for other, value in zip(across, row, strict=True)]
        for name, row in zip(down, panel.values, strict=True)
    ]  # fmt: skip


def _whole(chart: Chart, panel: HeadMap) -> dict[str, Any]:
    assert panel.whole is not None
    column = HeadMap("", panel.whole[:, None], "", panel.y_label, ["all"])
    return {**_heat(chart, column), "xaxis": "x2", "showscale": False}


def _marks(cells: Cells) -> dict[str, Any]:
    small = cells.marker == "."
    line = {"color": "white", "width": 1} if small else {"color": GREY, "width": 2}
    marker = {"symbol": _MARKERS.get(cells.marker, "circle-open"), "size": 4 if small else 11,
              "color": "#404040" if small else GREY, "line": line}  # fmt: skip
    return {"type": "scatter", "mode": "markers", "x": list(cells.columns), "y": list(cells.rows),
            "name": words(cells.name), "showlegend": bool(cells.name), "hoverinfo": "skip",
            "marker": marker}  # fmt: skip


def _frame(row: int, column: int) -> dict[str, Any]:
    return {"type": "rect", "x0": column - 0.5, "x1": column + 0.5, "y0": row - 0.5,
            "y1": row + 0.5, "line": {"color": GREY, "width": 1.5}}  # fmt: skip


def _break(at: float, axis: str) -> dict[str, Any]:
    line = {"color": GREY, "width": 1.5, "dash": "dash"}
    return {**across(axis, at, at), "type": "line", "line": line}


def picture_figure(panel: Picture, label: str) -> Figure:
    """Return a picture with its map laid over and its region outlined."""
    height, width = panel.image.shape[:2]
    traces = _overlay(panel) if panel.density is not None else [_NOTHING]
    hidden = {"showticklabels": False, "showgrid": False, "zeroline": False}
    left, top, right, bottom = panel.box
    layout = {
        "images": [{"source": picture(panel.image), "xref": "x", "yref": "y", "x": 0,
                    "y": 0, "sizex": 1, "sizey": 1, "sizing": "stretch", "layer": "below"}],
        "xaxis": {**hidden, "range": [0, 1], "constrain": "domain",
                  "title": {"text": words(panel.label).replace("\n", " ")}},
        "yaxis": {**hidden, "range": [1, 0], "scaleanchor": "x", "scaleratio": height / width,
                  "constrain": "domain"},
        "shapes": [{"type": "rect", "xref": "x", "yref": "y", "x0": left, "x1": right, "y0": top,
                    "y1": bottom, "line": {"color": color, "width": wide, "dash": dash}}
                   for color, wide, dash in (("black", 3, "solid"), ("white", 1.5, "dash"))],
    }  # fmt: skip
    return Figure(traces, layout, 60 + round(360 * min(height / width, 1.2)), label, panel.title)


_NOTHING: Final = {"type": "scatter", "x": [None], "y": [None], "showlegend": False}


def _overlay(panel: Picture) -> list[dict[str, Any]]:
    """Return what is laid over a picture, and its colour bar."""
    assert panel.density is not None
    cells, x_edges, y_edges = panel.density
    trace = {"type": "heatmap", "z": numbers(cells), "x": numbers(x_edges), "y": numbers(y_edges),
             "zmin": 0.0, "zmax": panel.peak or 1.0, "colorscale": _see_through(),
             "showscale": False, "hovertemplate": "%{z:.2f} × even<extra></extra>"}  # fmt: skip
    # of its own, since one of see-through colours would show them on the page, not on the picture
    bar = {"type": "heatmap", "z": [[None]], "x": [0.5], "y": [0.5], "zmin": 0.0,
           "zmax": panel.peak or 1.0, "colorscale": _laid_over(ground([panel.image])),
           "colorbar": _BAR, "hoverinfo": "skip"}  # fmt: skip
    return [trace, bar]


def _see_through() -> list[list[Any]]:
    """Return a colour scale that is clear where there is no attention."""
    return [
        [round(float(at), 4), "rgba({},{},{},{:.3f})".format(*bytes.fromhex(rgb[1:]), OPAQUE * at)]
        for at, rgb in zip(np.linspace(0, 1, len(RAMP)), RAMP, strict=True)
    ]


def _laid_over(below: tuple[float, float, float]) -> list[list[Any]]:
    """Return the same colours as they look over one that lies below."""
    scale = []
    for at, rgb in zip(np.linspace(0, 1, len(RAMP)), RAMP, strict=True):
        above, part = np.array([*bytes.fromhex(rgb[1:])]), OPAQUE * at
        mixed = np.round(part * above + (1 - part) * 255 * np.array(below)).astype(int)
        scale.append([round(float(at), 4), "rgb({},{},{})".format(*mixed.tolist())])
    return scale


def picture(image: Any, longest: int = _SIDE) -> str:
    """Return a picture (``[height, width, 3]`` bytes) as a data URI, shrunk if it is large."""
    shown = Image.fromarray(np.asarray(image, dtype=np.uint8)).convert("RGB")
    shown.thumbnail((longest, longest))
    stream = io.BytesIO()
    shown.save(stream, "JPEG", quality=88, optimize=True)
    return "data:image/jpeg;base64," + base64.b64encode(stream.getvalue()).decode("ascii")
