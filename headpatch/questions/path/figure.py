"""Where the information about the object is over depth: one figure of both towers, and the page's.

Vision layers come first along the x axis, then those of the language model.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from jaxtyping import Float

from headpatch.present.canvas import (
    BLUE,
    GREEN,
    ORANGE,
    VERMILLION,
    Target,
    array,
    drawing,
    frame,
    signed,
)
from headpatch.present.charts import DASHES, SYMBOLS, band, layer_axis, lines
from headpatch.present.parts import arrow
from headpatch.present.section import Figure, numbers

if TYPE_CHECKING:
    import matplotlib.axes

Saved = Mapping[str, Any]
Values = Float[np.ndarray, " layers"]
_GAP: Final = 2  # columns between the towers
_TOKENS: Final = {
    "all": ("all patches", "#737373", "-", "s"),
    "region": ("the region's tokens", VERMILLION, "-", "o"),
    "other": ("the other image tokens", ORANGE, "--", "^"),
    "words": ("the question's words", GREEN, "-.", "D"),
    "answer": ("the answer position", BLUE, "-", "v"),
}
"""Tokens: label, colour, line and marker."""
_EDGES: Final = (
    (VERMILLION, "-", "o"),
    (ORANGE, "--", "^"),
    (GREEN, "-.", "D"),
    (BLUE, ":", "s"),
    ("#CC79A7", "-", "v"),
    ("#56B4E9", "--", "x"),
    ("#404040", "-.", "."),
)
"""Edges, in their order: colour, line and marker."""
_ASKED: Final = {"noising": "necessary?", "denoising": "sufficient?"}


@dataclass(frozen=True, eq=False)
class Curve:
    """A line over depth.

    Attributes
    ----------
    name
        Of the tokens, or of the edge.
    tower
        ``vision`` or ``stream``, as ``path.pt`` calls them; ``edges``.
    start
        Where its first layer stands.
    low, high
        The interval over pairs, if there is one.
    """

    name: str
    label: str
    tower: str
    start: int
    values: Values
    low: Values | None
    high: Values | None
    look: tuple[str, str, str]

    @property
    def x(self) -> Float[np.ndarray, " layers"]:
        """Return where along the axis its values stand."""
        return self.start + np.arange(len(self.values), dtype=np.float64)


def depths(saved: Saved) -> tuple[int, int, int]:
    """Return how many vision layers there are, where the language model starts, and its layers."""

    def depth(tower: str) -> int:
        curves = [curve for by_way in saved.get(tower, {}).values() for curve in by_way.values()]
        return max(map(len, curves), default=0)

    below = depth("vision")
    return below, below + _GAP if below else 0, depth("stream")


def stream_curves(saved: Saved, direction: str) -> Iterator[Curve]:
    """Yield the stream's curves, those of each class of tokens in both towers together."""
    _, start, _ = depths(saved)
    for name, (label, *look) in _TOKENS.items():
        for tower, offset in (("vision", 0), ("stream", start)):
            if direction in saved.get(tower, {}).get(name, {}):
                yield _curve(saved, tower, name, label, direction, offset, look)


def edge_curves(saved: Saved, start: int) -> Iterator[Curve]:
    """Yield what cutting each edge does, in the with-run."""
    for index, (edge, by_way) in enumerate(saved["edges"].items()):
        if "noising" in by_way:
            look = _EDGES[index % len(_EDGES)]
            yield _curve(saved, "edges", edge, arrow(edge), "noising", start, look)


def _curve(
    saved: Saved, view: str, name: str, label: str, direction: str, start: int, look: Any
) -> Curve:
    low = high = None
    if f"{view}_low" in saved:
        low, high = (array(saved[f"{view}_{end}"][name], direction, 1) for end in ("low", "high"))
    values = array(saved[view][name], direction, 1)
    return Curve(name, label, view, start, values, low, high, tuple(look))


def draw(saved: Saved, path: Target, question: str = "", region: str = "") -> None:
    """Draw all views over one axis of depth.

    From the top: the effect of swapping the stream at each class of tokens, a panel a direction;
    of cutting attention in windows of layers, in the with-run; what each layer's heads and MLP
    write straight into the logits. Of many pairs the lines are means, in a band that is the
    interval over pairs.

    Raises
    ------
    ValueError
        If there is no curve of the language model's stream.
    """
    if not saved.get("stream", {}):
        raise ValueError("results hold no curve of the stream")
    below, start, layers = depths(saved)
    attributed = "attribution_mlps" in saved
    with drawing(path, 5.6 if attributed else 4.6) as figure:
        panels = figure.subplots(3 + attributed, 1, sharex=True)
        for axes, (direction, asked) in zip(panels, _ASKED.items(), strict=False):
            for curve in stream_curves(saved, direction):
                _plot(axes, curve)
            axes.set_ylabel(f"Stream: {direction}\n({asked})")
            axes.axhline(1, color="0.55", linewidth=0.6, linestyle=":", zorder=1)
        panels[1].sharey(panels[0])
        panels[0].autoscale(axis="y")  # to what both hold
        for curve in edge_curves(saved, start):
            _plot(panels[2], curve)
        panels[2].set_ylabel("Attention cut\n(with-run)")
        panels[2].legend(loc="upper left" if start else "best", fontsize=6.5)
        if attributed:
            _bars(panels[3], saved, start)
        for axes in panels:
            axes.axhline(0, color="0.55", linewidth=0.6, zorder=1)
            if below:
                axes.axvspan(below - 0.5, start - 0.5, color="0.93", zorder=0)
            _mark_unread(axes, int(saved["feature_layer"]), below)
        _depth_axis(panels[-1], below, start, layers)
        frame(
            figure,
            _title(saved),
            question=question,
            region=region,
            legend=panels[:1],
            note=_note(saved, below),
        )


def _title(saved: Saved) -> str:
    pairs = int(saved.get("pairs", 1))
    over = f": mean over {pairs:,} pairs" if pairs > 1 else ""
    return f"Where the information about the object is, and when it moves{over}"


def _note(saved: Saved, below: int) -> str:
    note = (
        "Shares of the difference in LD between the runs (0 = nothing, 1 = all of it). "
        "Stream: the other run's residual stream put in at these tokens, leaving a vision "
        "layer or entering a language-model layer. Attention cut: from → to, in "
        f"{int(saved['window'])} layers centred there. Written straight into LD: direct logit "
        "attribution, with-run less without-run."
    )
    if below:
        note += " Hatched: vision layers that the language model does not read."
    if int(saved.get("pairs", 1)) > 1:
        note += (
            f" Bands and bars: {saved['level']:.0%} interval over pairs, of each layer by itself."
        )
    return note


def _plot(axes: "matplotlib.axes.Axes", curve: Curve) -> None:
    colour, line, marker = curve.look
    style: dict[str, Any] = {"zorder": 3}
    if curve.tower != "edges":
        wide = curve.name == "all"  # the others lie on it
        style = {"marker": marker, "markersize": 2.4, "markeredgewidth": 0,
                 "zorder": 2 if wide else 3, "linewidth": 4 if wide else 1.1,
                 "alpha": 0.4 if wide else 1}  # fmt: skip
    axes.plot(curve.x, curve.values, color=colour, linestyle=line, label=curve.label, **style)
    if curve.low is not None and curve.high is not None:
        axes.fill_between(curve.x, curve.low, curve.high, color=colour, alpha=0.22, linewidth=0,
                          zorder=2.5)  # fmt: skip


def _bars(axes: "matplotlib.axes.Axes", saved: Saved, start: int) -> None:
    """Draw what each layer's heads write for the with-run's answer and against, and its MLP."""
    heads, mlps = array(saved, "attribution_heads", 2), array(saved, "attribution_mlps", 1)
    x = start + np.arange(len(mlps))
    for least, most, label, shade in (
        (0, None, "heads, for", VERMILLION),
        (None, 0, "heads, against", ORANGE),
    ):
        share = np.clip(heads, least, most).sum(1)
        axes.bar(x - 0.2, share, 0.4, color=shade, label=label, zorder=3)
    axes.bar(x + 0.2, mlps, 0.4, color=BLUE, hatch="////", edgecolor="white", linewidth=0,
             label="MLP", zorder=3)  # fmt: skip
    if "attribution_layers" in saved:
        for shift, name in ((-0.2, "attribution_layers"), (0.2, "attribution_mlps")):
            low, high = (array(saved, f"{name}_{end}", 1) for end in ("low", "high"))
            axes.vlines(x + shift, low, high, color="0.15", linewidth=0.8, zorder=4)
        sums = array(saved, "attribution_layers", 1)
        axes.plot(x - 0.2, sums, ".", color="0.15", markersize=2.5, label="heads in sum", zorder=4)
    axes.legend(loc="upper left" if start else "best", fontsize=6.5)
    axes.set_ylabel("Written straight\ninto LD")


def _mark_unread(axes: "matplotlib.axes.Axes", feature_layer: int, below: int) -> None:
    if 0 <= feature_layer < below - 1:
        axes.axvspan(feature_layer + 0.5, below - 0.5, facecolor="0.96", edgecolor="0.65",
                     hatch="////", linewidth=0, zorder=0)  # fmt: skip


def _depth_axis(axes: "matplotlib.axes.Axes", below: int, start: int, layers: int) -> None:
    """Count each tower's layers from 0, and name the towers under their part of the axis."""
    ticks = [*range(0, below, _pace(below)), *range(start, start + layers, _pace(layers))]
    labels = [tick if tick < below else tick - start for tick in ticks]
    axes.set_xticks(ticks, [str(label) for label in labels])
    axes.set_xlim(-0.6, start + layers - 0.4)
    axes.set_xlabel("Vision layer  |  Language-model layer" if below else "Language-model layer")


def _pace(layers: int) -> int:
    return next(step for step in (1, 2, 4, 5, 10, 20) if layers <= 8 * step or step == 20)


def page_figures(saved: Saved) -> dict[str, Figure]:
    """Return the page's figures by name: of the stream, of the edges, of what writes."""
    figures = {}
    for direction, asked in _ASKED.items():
        if curves := list(stream_curves(saved, direction)):
            title = f"{direction.capitalize()}: {asked}"
            figures[f"path-{direction}"] = _stream_figure(saved, curves, title)
    if curves := list(edge_curves(saved, 0)):
        figures["path-edges"] = _edge_figure(curves)
    if "attribution_mlps" in saved:
        figures["path-direct"] = _direct_figure(saved)
    return figures


def _trace(curve: Curve, shown: bool) -> Iterator[dict[str, Any]]:
    """Yield a curve's interval and its line."""
    colour, line, marker = curve.look
    if curve.low is not None and curve.high is not None:
        yield band(curve.x, curve.low, curve.high, colour, legendgroup=curve.name)
    tower = "vision layer" if curve.tower == "vision" else "layer"
    yield lines(
        curve.values, curve.label, colour, SYMBOLS[marker], x=curve.x, dash=DASHES[line],
        legendgroup=curve.name, showlegend=shown,
        text=[f"{tower} {layer}" for layer in range(len(curve.values))],
        hovertemplate="%{fullData.name}, %{text}: %{y:.3f}<extra></extra>",
    )  # fmt: skip


def _stream_figure(saved: Saved, curves: list[Curve], title: str) -> Figure:
    below, start, layers = depths(saved)
    traces: list[dict[str, Any]] = []
    for curve in curves:
        shown = all(trace["name"] != curve.label for trace in traces)
        traces += _trace(curve, shown)
    marks = [(f"v{layer}", layer) for layer in range(0, below, 4)]
    marks += [(str(layer), start + layer) for layer in range(0, layers, 4)]
    between = {
        **dict.fromkeys(("x0", "x1"), start - 1.5),
        **{"type": "line", "xref": "x", "yref": "paper", "y0": 0, "y1": 1},
        "line": {"color": "#8A8A8A", "width": 1, "dash": "dot"},
    }
    layout = {
        "xaxis": {"title": {"text": "vision layers (v), then language-model layers"},
                  "tickmode": "array", "tickvals": [at for _, at in marks],
                  "ticktext": [text for text, _ in marks], "zeroline": False},
        "yaxis": {"title": {"text": "share of the difference"}, "zeroline": True},
        "shapes": [between] if below and layers else [],
    }  # fmt: skip
    spans = []
    for curve in curves:
        holding = np.flatnonzero(curve.values >= 0.5)
        if curve.tower == "stream" and holding.size:
            spans.append(f"{curve.label}: layers {holding[0]} to {holding[-1]}")
    spoken = (
        f"Lines over depth, {title.lower()} Tokens that carry half of the difference or more: "
        f"{'; '.join(spans) or 'none'}."
    )
    return Figure(traces, layout, 320, spoken, title=title)


def _edge_figure(curves: list[Curve]) -> Figure:
    peaks = [(abs(value), curve, layer) for curve in curves
             for layer, value in enumerate(curve.values) if np.isfinite(value)]  # fmt: skip
    spoken = "Lines: effect of cutting edges, noising."
    if peaks:
        _, curve, layer = max(peaks, key=lambda peak: peak[0])
        spoken += (
            f" Largest: {curve.name.replace('-', ' to ')} around layer {layer}, "
            f"{signed(curve.values[layer], 3)}."
        )
    layout = {
        "xaxis": layer_axis("centre of the window of layers", len(curves[0].values)),
        "yaxis": {"title": {"text": "share of the difference"}, "zeroline": True},
    }
    traces = [trace for curve in curves for trace in _trace(curve, True)]
    return Figure(traces, layout, 340, spoken, title="Cut edges, noising")


def _direct_figure(saved: Saved) -> Figure:
    """What each layer writes straight into LD: its heads in sum, its MLP."""
    sums = array(saved, "attribution_heads", 2).sum(1)
    bars = {
        "heads, in sum": (sums, VERMILLION, ""),
        "MLP": (array(saved, "attribution_mlps", 1), BLUE, "/"),
    }
    traces = [
        {"type": "bar", "name": label, "x": list(range(len(values))), "y": numbers(values),
         "marker": {"color": colour, "pattern": {"shape": pattern}}}
        for label, (values, colour, pattern) in bars.items()
    ]  # fmt: skip
    totals = ", ".join(
        f"{label} {signed(float(np.nansum(values)), 2)}" for label, (values, *_) in bars.items()
    )
    layout = {
        "barmode": "group",
        "xaxis": layer_axis("language-model layer", len(sums)),
        "yaxis": {"title": {"text": "share of the difference"}, "zeroline": True},
    }
    spoken = f"Bars: what each layer writes straight into LD, with less without. In all: {totals}."
    return Figure(traces, layout, 300, spoken, title="Written straight into LD")
