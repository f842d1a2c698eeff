"""Charts for the page, as Plotly reads them: a figure a panel."""

from collections.abc import Iterator
from typing import Any, Final

import numpy as np

from headpatch.present.canvas import GREY
from headpatch.present.chart import AnyPanel, Chart, HeadMap, Picture, numbers_along
from headpatch.present.interactive_map import across, map_figure, picture_figure, slots
from headpatch.present.panel import Guide, Panel, Scale, Series
from headpatch.present.section import Figure, numbers, words

# Plotly's names of matplotlib's markers and lines: a class looks the same in every figure
SYMBOLS: Final = {
    "o": "circle", "^": "triangle-up", "v": "triangle-down", "D": "diamond", "s": "square",
    ".": "circle", "x": "x-thin-open", "P": "cross", "X": "x", "*": "star", "|": "line-ns-open",
    "_": "line-ew-open",
}  # fmt: skip
_DASHES: Final = {"-": "solid", "--": "dash", "-.": "dashdot", ":": "dot"}
_PIXELS: Final = 1.5  # of a marker, a point of type
_MARGIN: Final = 0.06  # beside the numbers, as a share of their span
_WRITTEN: Final = 0.16  # where texts stand beside points


def figures(chart: Chart) -> dict[str, Figure]:
    """Return a chart's panels by name; none if the page does not show it."""
    if not chart.on_page:
        return {}
    spoken = [*chart.spoken, *[""] * len(chart.panels)]
    drawn = [(panel, text) for panel, text in zip(chart.panels, spoken, strict=False) if panel]
    return {
        f"{chart.name}-{number}": _figure(chart, panel, text)
        for number, (panel, text) in enumerate(drawn)
    }


def _figure(chart: Chart, panel: AnyPanel, spoken: str) -> Figure:
    label = ". ".join(filter(None, (chart.title, panel.title, spoken)))
    if isinstance(panel, HeadMap):
        return map_figure(chart, panel, label)
    if isinstance(panel, Picture):
        return picture_figure(panel, label)
    traces = [
        {"legendrank": 1000 + order, **trace}
        for order, series in reversed(list(enumerate(panel.series)))
        for trace in _traces(panel, series)
    ]
    _name_once(traces)
    layout: dict[str, Any] = {
        "xaxis": _axis(chart, panel, "x"),
        "yaxis": _axis(chart, panel, "y"),
        "shapes": [
            shape_of(guide, panel.x_scale if guide.axis == "x" else panel.y_scale)
            for guide in panel.guides
        ],
    }
    if any(series.mark == "bars" for series in panel.series):
        layout["barmode"] = "overlay"  # each bar says where it stands
    note = " · ".join(filter(None, (panel.note, *panel.text.splitlines())))
    height = 110 + 34 * max(len(panel.names), 2) if panel.across else 340
    return Figure(traces, layout, height, label, panel.title, note, list(_labels(panel)))


def _labels(panel: Panel) -> Iterator[tuple[str, float, float]]:
    """Give the labels of points, and where these lie along the axes."""
    for series in panel.series:
        x, y = series.x, series.y
        at, value = (y, x) if panel.across else (x, y)
        places = panel.x_scale.along(at), panel.y_scale.along(value)
        for label, *place in zip(series.labels, *places, strict=bool(series.labels)):
            if label and np.isfinite(place).all():
                yield words(label), float(place[0]), float(place[1])


def _name_once(traces: list[dict[str, Any]]) -> None:
    """Leave one entry in the legend to traces of one name; they are shown and hidden together."""
    named: set[str] = set()
    for trace in sorted(traces, key=lambda one: one["legendrank"]):
        if trace["showlegend"]:
            trace["showlegend"] = trace["name"] not in named
            trace["legendgroup"] = trace["name"]
            named.add(trace["name"])


def _axis(chart: Chart, panel: Panel, axis: str) -> dict[str, Any]:
    """Return one axis of the page: of places, of layers, or of numbers."""
    horizontal = axis == "x"
    title, scale = (panel.x_label, panel.x_scale) if horizontal else (panel.y_label, panel.y_scale)
    if panel.names and horizontal != panel.across:
        return _named_axis(panel, title)
    if horizontal and panel.layers is not None:
        return layer_axis(title, panel.layers)
    valued = horizontal == panel.across
    written = any(series.texts for series in panel.series)
    shown = numbers_along(chart, panel, "x" if horizontal else "y")
    return {
        "title": {"text": words(title).replace("\n", " ")},
        "zeroline": valued,
        **_ticks(scale, shown),
        **_range(scale, shown, valued, _WRITTEN if valued and written else _MARGIN),
    }


def layer_axis(title: str, layers: int) -> dict[str, Any]:
    """Return an x axis that counts layers from 0."""
    step = next((step for step in (1, 2, 4, 5, 10) if layers / step <= 17), 20)
    return {"title": {"text": title}, "range": [-0.6, layers - 0.4], "dtick": step, "tick0": 0,
            "zeroline": False}  # fmt: skip


def _named_axis(panel: Panel, title: str) -> dict[str, Any]:
    count = len(panel.names)
    ends = [count - 0.4, -0.6] if panel.across else [-0.5, count - 0.5]
    made = {**slots(panel.names), "title": {"text": words(title)}, "range": ends}
    made["ticktext"] = [text.replace("\n", "<br>") for text in made["ticktext"]]
    if not panel.across and count * max(map(len, panel.names)) > 90:
        made["tickangle"] = -45
    return made


def _ticks(scale: Scale, shown: Any) -> dict[str, Any]:
    labels = scale.labels(shown)
    texts = [words(text) for text in labels.values()]
    at = numbers(scale.along(list(labels)))
    return {"tickmode": "array", "tickvals": at, "ticktext": texts} if labels else {}


def _range(scale: Scale, shown: Any, from_0: bool, margin: float) -> dict[str, Any]:
    """Return where an axis ends: as its scale says, else where the numbers, and perhaps 0, do."""
    finite = scale.along(np.append(shown[np.isfinite(shown)], [0.0] * from_0))
    if not np.ptp(finite):
        return {}
    room = margin * np.ptp(finite)
    low = finite.min() - room if scale.low is None else scale.along(scale.low)
    high = finite.max() + room if scale.high is None else scale.along(scale.high)
    return {"range": numbers(np.array([low, high], np.float64))}


def _traces(panel: Panel, series: Series) -> Iterator[dict[str, Any]]:
    look, kind = series.style, panel.kind(series)
    x, y = panel.x_scale.along, panel.y_scale.along
    if series.null_band is not None and kind == "line":
        color = GREY if series.null_name else look.color
        low, high = series.null_band
        yield band(x(series.x), y(low), y(high), color, series.null_name)
    elif series.null_band is not None:
        yield _null(panel, series, *series.null_band)
    if series.interval is not None and panel.band(series):
        low, high = series.interval
        yield band(x(series.x), y(low), y(high), look.color)
    yield _main(panel, series, kind)
    if np.isposinf(series.y).any():
        yield _infinite(series)


def band(x: Any, low: Any, high: Any, color: str, name: str = "") -> dict[str, Any]:
    """Return the area between two lines, for an interval; it is parted where an end is unknown."""
    from matplotlib.colors import to_rgb

    ends = np.array([np.asarray(one, np.float64) for one in (x, low, high)])
    unknown = np.flatnonzero(~np.isfinite(ends).all(axis=0))
    along: list[Any] = []
    up: list[Any] = []
    for run in np.split(np.arange(ends.shape[1]), unknown):
        if len(known := np.setdiff1d(run, unknown)):
            gap = [None] * bool(along)
            places, lower, upper = map(numbers, ends[:, known])
            along += [*gap, *places, *reversed(places)]
            up += [*gap, *upper, *reversed(lower)]
    faded = "rgba({},{},{},0.2)".format(*(round(255 * part) for part in to_rgb(color)))
    return {"type": "scatter", "mode": "lines", "x": along, "y": up, "fill": "toself",
            "fillcolor": faded, "line": {"width": 0}, "hoverinfo": "skip",
            "showlegend": bool(name), "name": words(name)}  # fmt: skip


def _main(panel: Panel, series: Series, kind: str) -> dict[str, Any]:
    look = series.style
    places, values = panel.x_scale, panel.y_scale
    if panel.across:
        places, values = values, places
    at, value = numbers(places.along(series.x)), numbers(values.along(series.y))
    trace: dict[str, Any] = {
        **_laid(panel, at, value),
        "name": words(series.name),
        "showlegend": bool(series.name),
        "opacity": look.alpha,
        "hovertext": [words(text) for text in series.hover or _hover(panel, series)],
        "hovertemplate": "%{hovertext}<extra></extra>",
    }
    written = bool(series.texts) and (kind == "bars" or not panel.across)
    if written:
        trace["text"] = [words(text) for text in series.texts]
    if kind == "bars":
        filled = {"color": look.color, "pattern": {"shape": look.hatch[:1]}}
        lies = "h" if panel.across else "v"
        trace |= {"type": "bar", "width": series.width, "marker": filled, "cliponaxis": False,
                  "textposition": "outside", "orientation": lies}  # fmt: skip
    else:
        line = {"color": look.color, "width": 2, "dash": _DASHES.get(look.line, "solid")}
        joined = "lines+markers" if look.marker else "lines"
        mode = ("markers" if kind == "points" else joined) + "+text" * written
        trace |= {"type": "scatter", "mode": mode, "line": line, "marker": _marker(series),
                  "textposition": "top center"}  # fmt: skip
    if series.interval is not None and not panel.band(series):
        middle, low, high = map(values.along, (series.y, *series.interval))
        error = _error(middle, low, high, look.color, 1)
        trace["error_x" if panel.across else "error_y"] = error
    return trace


def _laid(panel: Panel, at: list[Any], value: list[Any]) -> dict[str, Any]:
    """Return x and y on the page."""
    return {"x": value, "y": at} if panel.across else {"x": at, "y": value}


def _marker(series: Series) -> dict[str, Any]:
    look = series.style
    symbol = SYMBOLS.get(look.marker, "circle")
    hollow = np.full(len(series.x), look.hollow)
    if series.hollow is not None:
        hollow = hollow | series.hollow
    open_ = symbol if symbol.endswith("-open") else f"{symbol}-open"
    symbols: Any = [open_ if one else symbol for one in hollow.tolist()]
    if len(set(symbols)) == 1:
        symbols = symbols[0]
    size = (look.size or 4.0) * (0.6 if look.marker == "." else 1.0)
    return {"color": look.color, "symbol": symbols, "size": _PIXELS * size}


def _error(middle: Any, low: Any, high: Any, color: str, thickness: int) -> dict[str, Any]:
    return {"type": "data", "symmetric": False, "color": color, "thickness": thickness, "width": 0,
            "array": numbers(high - middle), "arrayminus": numbers(middle - low)}  # fmt: skip


def _hover(panel: Panel, series: Series) -> list[str]:
    """Say name, place and number of each point."""
    lead = f"{series.name}, " if series.name else ""
    named = series.labels or _where(panel, series)
    return [f"{lead}{name}: {value:.4g}" for name, value in zip(named, series.y, strict=True)]


def _where(panel: Panel, series: Series) -> list[str]:
    if not panel.names:
        return [f"{x:.4g}" for x in series.x]
    last = len(panel.names) - 1
    places = np.clip(np.nan_to_num(np.round(series.x)), 0, last).astype(int)
    return [" ".join(panel.names[place].split()) for place in places]


def _null(panel: Panel, series: Series, low: Any, high: Any) -> dict[str, Any]:
    """Return the band of chance beside points at places."""
    middle = (low + high) / 2 if series.null is None else series.null
    color = GREY if series.null_name else series.style.color
    at, value = numbers(series.x), numbers(middle)
    value_axis, symbol = ("x", "|") if panel.across else ("y", "_")
    return {"type": "scatter", "mode": "markers", **_laid(panel, at, value), "opacity": 0.6,
            "name": words(series.null_name), "showlegend": bool(series.null_name),
            "marker": {"color": color, "size": 9, "symbol": SYMBOLS[symbol]},
            f"error_{value_axis}": _error(middle, low, high, color, 3),
            "hovertemplate": f"%{{{value_axis}:.4g}}<extra></extra>"}  # fmt: skip


def _infinite(series: Series) -> dict[str, Any]:
    """Return arrows for what is beyond every number, at the largest that there is."""
    finite = series.y[np.isfinite(series.y)]
    x = series.x[np.isposinf(series.y)]
    return {"type": "scatter", "mode": "markers+text", "x": numbers(x),
            "y": [float(finite.max(initial=0.0))] * len(x), "text": ["∞"] * len(x),
            "textposition": "bottom center", "showlegend": False,
            "marker": {"color": series.style.color, "symbol": "arrow-up", "size": 9},
            "hovertemplate": f"{words(series.name)}: ∞<extra></extra>"}  # fmt: skip


def shape_of(guide: Guide, scale: Scale) -> dict[str, Any]:
    """Return a line or a shaded span."""
    to = guide.at if guide.to is None else guide.to
    ends = (float(scale.along(end)) for end in (guide.at, to))
    shape = {**across(guide.axis, *ends), "layer": "below"}
    if guide.name:
        shape |= {"name": words(guide.name), "showlegend": True}
    if guide.to is not None:
        span = {"type": "rect", "line": {"width": 0}, "fillcolor": "rgba(128,128,128,0.22)"}
        return {**shape, **span}
    line = {"color": GREY, "width": 1, "dash": _DASHES.get(guide.line, "solid")}
    return {**shape, "type": "line", "line": line}
