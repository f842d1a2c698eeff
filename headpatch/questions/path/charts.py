"""Where the information about the object is over depth, as charts over one axis of both towers.

Vision layers come first along the x axis, then those of the language model.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

import numpy as np
from jaxtyping import Float

from headpatch.present.canvas import BLUE, GREEN, ORANGE, VERMILLION, array, signed
from headpatch.present.chart import Chart
from headpatch.present.panel import ASKED, Guide, Look, Panel, Series, unread
from headpatch.present.parts import arrow
from headpatch.present.scales import Scale

Saved = Mapping[str, Any]
_GAP: Final = 2  # columns between the towers
_TOKENS: Final = {
    "region": ("the region's tokens", Look(VERMILLION, "o", "-")),
    "other": ("the other image tokens", Look(ORANGE, "^", "--")),
    "words": ("the question's words", Look(GREEN, "D", "-.")),
    "answer": ("the answer position", Look(BLUE, "v", "-")),
    "all": ("all patches", Look("#737373", "s", "-", width=4.0, alpha=0.4)),  # the others lie on it
}
"""Label and look of each class of tokens."""
_BARS: Final = {
    "heads, for": Look(VERMILLION),
    "heads, against": Look(ORANGE),
    "MLP": Look(BLUE, hatch="////", width=0.8),
}
_SUM: Final = Look("#262626", "o", size=2.5, width=0.8)
_HEIGHT: Final = 1.5  # inches
_SHARE: Final = "Share of the\ndifference"


def path_chart(saved: Saved) -> Chart:
    """Show all views over one axis of depth.

    From the top: the effect of swapping the stream at each class of tokens, a panel a direction;
    of cutting attention in windows of layers, in the with-run; what each layer's heads and MLP
    write straight into the logits. Of many pairs the lines are means, in a band that is the
    interval over pairs.

    Parameters
    ----------
    saved
        ``path.pt``.

    Raises
    ------
    ValueError
        If there is no curve of the language model's stream.
    """
    if not saved.get("stream", {}):
        raise ValueError("results hold no curve of the stream")
    below, start, layers = depths(saved)
    streams = {way: list(_stream(saved, way, start)) for way in ASKED}
    edges = list(_edges(saved, start))
    whole = [Guide("y", 1.0, line=":")]
    panels = _same_scale(
        [
            Panel(f"Stream: {way} ({ASKED[way]})", series, "", _SHARE, guides=whole)
            for way, series in streams.items()
        ]
    )
    panels.append(Panel("Attention cut, with-run", edges, "", _SHARE, legend=True))
    spoken = [*(_holding(series, start) for series in streams.values()), _largest(edges, start)]
    if "attribution_mlps" in saved:
        written, totals = _written(saved, start)
        panels.append(Panel("Written straight into LD", written, "", _SHARE, legend=True))
        spoken.append(totals)
    ticks = {float(tick): str(tick) for tick in range(0, below, _pace(below))}
    ticks |= {float(start + tick): str(tick) for tick in range(0, layers, _pace(layers))}
    scale = Scale(low=-0.6, high=start + layers - 0.4, ticks=ticks)
    label = "Vision layer  |  Language-model layer" if below else "Language-model layer"
    towers = list(_towers(saved, below, start))
    pairs = int(saved.get("pairs", 1))
    over = f": mean over {pairs:,} pairs" if pairs > 1 else ""
    return Chart(
        "path",
        "path.png",
        f"Where the information about the object is, and when it moves{over}",
        [replace(panel, x_label=label, x_scale=scale, guides=[*panel.guides, *towers])
         for panel in panels],
        _note(saved, below),
        spoken,
        share_y="none",
        heights=[_HEIGHT] * len(panels),
    )  # fmt: skip


def depths(saved: Saved) -> tuple[int, int, int]:
    """Return how many vision layers there are, where the language model starts, and its layers."""

    def depth(tower: str) -> int:
        curves = [curve for by_way in saved.get(tower, {}).values() for curve in by_way.values()]
        return max(map(len, curves), default=0)

    below = depth("vision")
    return below, below + _GAP if below else 0, depth("stream")


def _stream(saved: Saved, direction: str, start: int) -> Iterator[Series]:
    """Yield the curves of each class of tokens, in both towers."""
    for name, (label, look) in _TOKENS.items():
        for tower, first, layer in (("stream", start, "layer"), ("vision", 0, "vision layer")):
            if direction in saved.get(tower, {}).get(name, {}):
                yield _curve(saved, (tower, name, direction), label, look, first, layer)


def _edges(saved: Saved, start: int) -> Iterator[Series]:
    """Yield what cutting each edge does, in the with-run."""
    for index, (edge, by_way) in enumerate(saved["edges"].items()):
        if "noising" in by_way:
            yield _curve(saved, ("edges", edge, "noising"), arrow(edge), index, start, "layer")


def _curve(
    saved: Saved, keys: tuple[str, str, str], label: str, look: int | Look, first: int, layer: str
) -> Series:
    view, name, direction = keys
    values = array(saved[view][name], direction, 1)
    low = high = None
    if f"{view}_low" in saved:
        low, high = (array(saved[f"{view}_{end}"][name], direction, 1) for end in ("low", "high"))
    x = first + np.arange(len(values), dtype=np.float64)
    return Series(label, x, values, low, high, look=look, hover=_hover(label, layer, values))


def _hover(label: str, layer: str, values: Float[np.ndarray, " layers"]) -> list[str]:
    return [f"{label}, {layer} {index}: {value:.3f}" for index, value in enumerate(values)]


def _same_scale(panels: Sequence[Panel]) -> list[Panel]:
    """Give panels one y axis, which the others of the chart do not share."""
    numbers = np.concatenate([np.array([0.0, 1.0]), *(panel.numbers_on("y") for panel in panels)])
    low, high = float(np.nanmin(numbers)), float(np.nanmax(numbers))
    room = 0.05 * (high - low)
    return [replace(panel, y_scale=Scale(low=low - room, high=high + room)) for panel in panels]


def _written(saved: Saved, start: int) -> tuple[list[Series], str]:
    """Return what each layer's heads write for the with-run's answer and against, and its MLP."""
    heads, mlps = array(saved, "attribution_heads", 2), array(saved, "attribution_mlps", 1)
    x = start + np.arange(len(mlps), dtype=np.float64)
    sums = {
        "heads, for": (x - 0.2, np.clip(heads, 0, None).sum(1)),
        "heads, against": (x - 0.2, np.clip(heads, None, 0).sum(1)),
        "MLP": (x + 0.2, mlps),
    }
    ends: dict[str, Any] = {}
    series = []
    if "attribution_layers" in saved:
        low, high, *of_mlps = (
            array(saved, f"attribution_{part}_{end}", 1)
            for part in ("layers", "mlps")
            for end in ("low", "high")
        )
        ends["MLP"] = dict(zip(("low", "high"), of_mlps, strict=True))
        mean, name = array(saved, "attribution_layers", 1), "heads in sum"
        series.append(Series(name, x - 0.2, mean, low, high, look=_SUM, mark="points",
                             hover=_hover(name, "layer", mean)))  # fmt: skip
    series += [
        Series(name, place, values, look=_BARS[name], mark="bars", width=0.4,
               hover=_hover(name, "layer", values), **ends.get(name, {}))
        for name, (place, values) in sums.items()
    ]  # fmt: skip
    totals = {"heads": float(np.nansum(heads)), "MLPs": float(np.nansum(mlps))}
    spoken = ", ".join(f"{name} {signed(total, 2)}" for name, total in totals.items())
    return series, f"In all: {spoken}"


def _towers(saved: Saved, below: int, start: int) -> Iterator[Guide]:
    """Part the towers, and mark the vision layers that are not read."""
    if below:
        yield Guide("x", below - 0.5, start - 0.5)
        feature = int(saved["feature_layer"])
        for guide in unread(feature, below) if feature >= 0 else ():
            yield replace(guide, name="")  # the note says it


def _pace(layers: int) -> int:
    return next(step for step in (1, 2, 4, 5, 10, 20) if layers <= 8 * step or step == 20)


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


def _holding(series: Sequence[Series], start: int) -> str:
    """Say in which layers of the language model tokens carry half of the difference or more."""
    spans = []
    for curve in series:
        layers = np.flatnonzero(curve.y >= 0.5)
        if curve.x[0] == start and layers.size:
            spans.append(f"{curve.name}: layers {layers[0]} to {layers[-1]}")
    return f"Tokens that carry half of the difference or more: {'; '.join(spans) or 'none'}"


def _largest(edges: Sequence[Series], start: int) -> str:
    """Name the edge whose cut does most, and where."""
    peaks = [(abs(value), curve.name, int(x) - start, value)
             for curve in edges for x, value in zip(curve.x, curve.y, strict=True)
             if np.isfinite(value)]  # fmt: skip
    if not peaks:
        return ""
    _, name, layer, value = max(peaks)
    return f"Largest: {name.replace('→', 'to')} around layer {layer}, {signed(value, 3)}"
