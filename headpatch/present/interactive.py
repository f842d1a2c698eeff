"""Charts for the page, as Plotly reads them: a figure a panel."""

from collections.abc import Iterator
from typing import Any

from headpatch.present.charts import DASHES, SYMBOLS, band, layer_axis, lines, slots
from headpatch.present.figure import LOOKS
from headpatch.present.parts import Chart, Drawn, Panel, Series
from headpatch.present.section import Figure

_SYMBOLS = {**SYMBOLS, "P": "cross", "X": "x"}


def figures(chart: Chart | Drawn) -> dict[str, Figure]:
    """Return a chart's panels by name."""
    if isinstance(chart, Drawn):
        return {} if chart.interactive is None else dict(chart.interactive())
    spoken = [*chart.spoken, *[""] * len(chart.panels)]
    return {
        f"{chart.name}-{number}": _figure(panel, f"{chart.title}. {panel.title}. {words}".strip())
        for number, (panel, words) in enumerate(zip(chart.panels, spoken, strict=False))
    }


def _figure(panel: Panel, label: str) -> Figure:
    if panel.names:
        axis: dict[str, Any] = {**slots(panel.names), "title": {"text": panel.x_label}}
    elif panel.layers is not None:
        axis = layer_axis(panel.x_label, panel.layers)
    else:
        axis = {"title": {"text": panel.x_label}, "zeroline": False}
    traces = [trace for series in panel.series for trace in _traces(series, bool(panel.names))]
    layout = {"xaxis": axis, "yaxis": {"title": {"text": panel.y_label}, "zeroline": True}}
    return Figure(traces, layout, 340, label, title=panel.title)


def _traces(series: Series, apart: bool) -> Iterator[dict[str, Any]]:
    color, marker, line = LOOKS[series.look % len(LOOKS)]
    color = "#404040" if color == "0.25" else color
    for low, high in ((series.null_low, series.null_high), (series.low, series.high)):
        if low is not None and high is not None and not apart:
            yield band(series.x, low, high, color)
    made = lines(series.y, series.name, color, _SYMBOLS[marker], x=series.x, dash=DASHES[line])
    if apart:
        made["mode"] = "markers"
        if series.low is not None and series.high is not None:
            made["error_y"] = {
                "type": "data",
                "symmetric": False,
                "array": (series.high - series.y).tolist(),
                "arrayminus": (series.y - series.low).tolist(),
            }
    yield made
