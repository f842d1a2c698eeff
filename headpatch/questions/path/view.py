"""What people see of a path: curves layer by layer, paths to heads, sentences, a figure.

The figure has one axis of depth: vision layers first, then those of the language model.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

import numpy as np
from jaxtyping import Float

from headpatch.core.question import Context, Files
from headpatch.present.canvas import BLUE, GREEN, ORANGE, VERMILLION, array, signed
from headpatch.present.chart import Chart
from headpatch.present.panel import ASKED, Guide, Look, Panel, Scale, Series, unread
from headpatch.present.parts import Grid, Part, Words, arrow

Saved = Mapping[str, Any]
"""``path.pt``."""
_STREAM: Final = (
    "The residual stream of one run is put into the other, at one class of tokens of one layer. 1 "
    "= at this depth these tokens hold all that tells the runs apart."
)
_HEARD: Final = (
    "Shares of the difference between the runs; rows of zeros are left out. `all, all` is "
    "resampling the head. `straight`: the image as the projector gives it, without what the "
    "language model's layers add to it on the way."
)
_GAP: Final = 2  # columns between the towers
_TOKENS: Final = {
    "region": ("the region's tokens", Look(VERMILLION, "o", "-")),
    "other": ("the other image tokens", Look(ORANGE, "^", "--")),
    "words": ("the question's words", Look(GREEN, "D", "-.")),
    "answer": ("the answer position", Look(BLUE, "v", "-")),
    "all": ("all patches", Look("#737373", "s", "-", width=4.0, alpha=0.4)),  # the others lie on it
}
_BARS: Final = {
    "heads, for": Look(VERMILLION),
    "heads, against": Look(ORANGE),
    "MLP": Look(BLUE, hatch="////", width=0.8),
}
_SUM: Final = Look("#262626", "o", size=2.5, width=0.8)
_HEIGHT: Final = 1.5  # inches
_SHARE: Final = "Share of the\ndifference"


def view(files: Files, context: Context) -> Iterator[Part]:
    """Show the curves of the language model, paths to heads, and what they say."""
    saved = files["path.pt"]
    pairs = int(saved.get("pairs", 1))
    means = f" Means over {pairs:,} pairs; bands are intervals over pairs." if pairs > 1 else ""
    yield Words(f"{_STREAM}{means}", "page")
    yield path_chart(saved)
    yield Words(
        f"Edges are cut in {int(saved['window'])} layers at a time, in the with-run; a cut also "
        "takes away what both runs share.",
        "page",
    )
    yield _over_depth(saved, pairs)
    if saved["heads"]:
        yield _head_paths(saved, intervals=False)
        yield _head_paths(saved, intervals=True)
        yield Words(_HEARD)
    yield from map(Words, saved.get("summary", filter(None, [context.caveat])))


def _over_depth(saved: Saved, pairs: int) -> Grid:
    stream, edges = saved["stream"], saved["edges"]
    names = [name for name in stream if name != "before"]
    layers = len(next(iter(stream.values()))["noising"])
    rows = [
        (
            str(layer),
            *("/".join(_share(stream[name][way][layer]) for way in ASKED) for name in names),
            *(_share(edges[edge]["noising"][layer]) for edge in edges),
        )
        for layer in range(layers)
    ]
    means = f"Means over {pairs:,} pairs; their intervals are in path_mean.csv.\n"
    title = (
        "Language model. Left: the stream of the other run put in, entering the layer: noising / "
        "denoising\nRight: attention cut in windows centred on the layer, with-run"
    )
    headings = ("layer", *names, *map(arrow, edges))
    numeric = (True,) * len(headings)
    return Grid(means * (pairs > 1) + title, headings, tuple(rows), numeric, place="terminal")


def _head_paths(saved: Saved, intervals: bool) -> Grid:
    """Show what named heads hear; on the page with intervals, which a terminal has no room for."""
    columns = [(way, place) for place in range(len(saved["heads"])) for way in ASKED]

    def with_interval(way: str, at: tuple[int, int]) -> str:
        text = signed(float(saved["head_paths"][way][at]), 3)
        if "head_paths_low" not in saved:
            return text
        ends = (float(saved[f"head_paths_{end}"][way][at]) for end in ("low", "high"))
        return "{} [{}, {}]".format(text, *(signed(end, 3) for end in ends))

    rows = []
    for index, (inputs, sender) in enumerate(saved["ways"]):
        shares = [_share(saved["head_paths"][way][index, place]) for way, place in columns]
        if any(share != "0.00" for share in shares):
            if intervals:
                shares = [with_interval(way, (index, place)) for way, place in columns]
            rows.append((inputs, sender, *shares))
    pairs = int(saved.get("pairs_heads", 1))
    long = {heads: heads.count("+") + 1 for heads in saved["heads"] if heads.count("+") > 1}
    names = [f"all {long[heads]}" if heads in long else heads for heads in saved["heads"]]
    return Grid(
        "Paths to heads: the input of these heads alone changed to the other run's"
        + (f"; means over {pairs:,} pairs" if pairs > 1 else ""),
        ("input", "from", *(f"{names[place]} {way}" for way, place in columns)),
        tuple(rows),
        (False, False, *(True for _ in columns)),
        place="page" if intervals else "terminal",
    )


def _share(value: Any) -> str:
    text = f"{float(value):.2f}".replace("nan", "\N{EN DASH}")  # a layer without heads
    return "0.00" if text == "-0.00" else text


def path_chart(saved: Saved) -> Chart:
    """Show all views over one axis of depth.

    From the top: the effect of swapping the stream at each class of tokens, a panel a direction;
    of cutting attention in windows of layers, in the with-run; what each layer's heads and MLP
    write straight into the logits. Of many pairs the lines are means, in a band that is the
    interval over pairs. Raises a ValueError if there is no curve of the language model's stream.
    """
    if not saved.get("stream", {}):
        raise ValueError("results hold no curve of the stream")
    below, layers = _depth(saved, "vision"), _depth(saved, "stream")
    start = below + _GAP if below else 0
    streams = {way: list(_stream(saved, way, start)) for way in ASKED}
    edges = [
        _curve(saved, ("edges", edge, "noising"), arrow(edge), index, start, "layer")
        for index, (edge, by_way) in enumerate(saved["edges"].items())
        if "noising" in by_way
    ]
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
    towers = []
    if below:
        towers.append(Guide("x", below - 0.5, start - 0.5))
        feature = int(saved["feature_layer"])
        hatched = unread(feature, below) if feature >= 0 else ()
        towers += [replace(guide, name="") for guide in hatched]  # the note says it
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


def _depth(saved: Saved, tower: str) -> int:
    curves = [curve for by_way in saved.get(tower, {}).values() for curve in by_way.values()]
    return max(map(len, curves), default=0)


def _stream(saved: Saved, direction: str, start: int) -> Iterator[Series]:
    """Yield the curves of each class of tokens, in both towers."""
    for name, (label, look) in _TOKENS.items():
        for tower, first, layer in (("stream", start, "layer"), ("vision", 0, "vision layer")):
            if direction in saved.get(tower, {}).get(name, {}):
                yield _curve(saved, (tower, name, direction), label, look, first, layer)


def _curve(
    saved: Saved, keys: tuple[str, str, str], label: str, look: int | Look, first: int, layer: str
) -> Series:
    part, name, direction = keys
    values = array(saved[part][name], direction, 1)
    low = high = None
    if f"{part}_low" in saved:
        low, high = (array(saved[f"{part}_{end}"][name], direction, 1) for end in ("low", "high"))
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
        mean, name = array(saved, "attribution_layers", 1), "heads in sum"
        low, high = (array(saved, f"attribution_layers_{end}", 1) for end in ("low", "high"))
        ends["MLP"] = {end: array(saved, f"attribution_mlps_{end}", 1) for end in ("low", "high")}
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
        note += " Shaded: vision layers that the language model does not read."
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
