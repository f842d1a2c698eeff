"""Where the information about the object is over depth: one figure of both towers."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from jaxtyping import Float, Int

from headpatch.present.canvas import BLUE, GREEN, ORANGE, VERMILLION, Target, array, drawing, frame
from headpatch.present.parts import arrow

if TYPE_CHECKING:
    import matplotlib.axes

_GAP: Final = 2  # columns between the towers
TOKENS: Final = {
    "all": ("all patches", "#737373", "-", "s"),
    "region": ("the region's tokens", VERMILLION, "-", "o"),
    "other": ("the other image tokens", ORANGE, "--", "^"),
    "words": ("the question's words", GREEN, "-.", "D"),
    "answer": ("the answer position", BLUE, "-", "v"),
}
"""Tokens: label, colour, line and marker."""
EDGES: Final = (
    (VERMILLION, "-"),
    (ORANGE, "--"),
    (GREEN, "-."),
    (BLUE, ":"),
    ("#CC79A7", "-"),
    ("#56B4E9", "--"),
    ("#404040", "-."),
)
"""Edges, in their order: colour and line."""
_COVER: Final = " Bands and bars: {level:.0%} interval over pairs, of each layer by itself."
_DIRECTIONS: Final = {
    "noising": "Stream: noising\n(necessary?)",
    "denoising": "Stream: denoising\n(sufficient?)",
}


def path_over_depth(
    saved: Mapping[str, Any],
    path: Target,
    *,
    question: str = "",
    region: str = "",
) -> None:
    """Draw all views over one axis of depth: vision layers, then language-model layers.

    From the top: the effect of swapping the stream at each class of tokens, a panel a direction;
    of cutting attention in windows of layers, in the with-run; what each layer's heads and MLP
    write straight into the logits. Of many pairs the lines are means, in a band that is the
    interval over pairs.

    Parameters
    ----------
    saved
        ``path.pt``, of one pair or of many; see ``attention_data/README.md``.
    path
        The file to write.
    question, region
        Words for the title.

    Raises
    ------
    ValueError
        If there is no curve of the language model's stream.
    """
    stream, vision = saved.get("stream", {}), saved.get("vision", {})
    pairs = int(saved.get("pairs", 1))
    if not stream:
        raise ValueError("results hold no curve of the stream")
    below = _depth(vision)
    start = below + _GAP if below else 0
    layers = _depth(stream)
    attributed = "attribution_mlps" in saved
    with drawing(path, 5.6 if attributed else 4.6) as figure:
        panels = figure.subplots(3 + attributed, 1, sharex=True)
        for axes, (direction, label) in zip(panels, _DIRECTIONS.items(), strict=False):
            for tower, offset in (("vision", 0), ("stream", start)):
                _curves(axes, saved, tower, direction, offset)
            axes.set_ylabel(label)
            axes.axhline(1, color="0.55", linewidth=0.6, linestyle=":", zorder=1)
        panels[1].sharey(panels[0])
        panels[0].autoscale(axis="y")  # to what both hold
        _edge_curves(panels[2], saved, start)
        panels[2].set_ylabel("Attention cut\n(with-run)")
        if attributed:
            _bars(panels[3], saved, start)
            panels[3].set_ylabel("Written straight\ninto LD")
        for axes in panels:
            axes.axhline(0, color="0.55", linewidth=0.6, zorder=1)
            if below:
                axes.axvspan(below - 0.5, start - 0.5, color="0.93", zorder=0)
            _mark_unread(axes, int(saved["feature_layer"]), below)
        _depth_axis(panels[-1], below, start, layers)
        frame(
            figure,
            "Where the information about the object is, and when it moves"
            + (f": mean over {pairs:,} pairs" if pairs > 1 else ""),
            question=question,
            region=region,
            legend=panels[:1],
            note="Shares of the difference in LD between the runs (0 = nothing, 1 = all of it). "
            "Stream: the other run's residual stream put in at these tokens, leaving a vision "
            "layer or entering a language-model layer. Attention cut: from → to, in "
            f"{int(saved['window'])} layers centred there. Written straight into LD: direct logit "
            "attribution, with-run less without-run."
            + (" Hatched: vision layers that the language model does not read." if below else "")
            + (_COVER.format(level=saved["level"]) if pairs > 1 else ""),
        )


def _depth(curves: Mapping[str, Any]) -> int:
    return max((len(one) for there in curves.values() for one in there.values()), default=0)


def _curves(
    axes: "matplotlib.axes.Axes", saved: Mapping[str, Any], tower: str, direction: str, offset: int
) -> None:
    for name, (label, colour, line, marker) in TOKENS.items():
        there = saved.get(tower, {}).get(name, {})
        if direction in there:
            values = array(there, direction, 1)
            x = offset + np.arange(len(values))
            wide = name == "all"  # the others lie on it
            axes.plot(x, values, color=colour, linestyle=line, marker=marker, markersize=2.4,
                      markeredgewidth=0, label=label, zorder=2 if wide else 3,
                      linewidth=4 if wide else 1.1, alpha=0.4 if wide else 1)  # fmt: skip
            _band(axes, saved, (tower, name, direction), x, colour)


def _edge_curves(axes: "matplotlib.axes.Axes", saved: Mapping[str, Any], start: int) -> None:
    for index, (edge, there) in enumerate(saved["edges"].items()):
        if "noising" in there:
            values = array(there, "noising", 1)
            colour, line = EDGES[index % len(EDGES)]
            x = start + np.arange(len(values))
            axes.plot(x, values, color=colour, linestyle=line, label=arrow(edge), zorder=3)
            _band(axes, saved, ("edges", edge, "noising"), x, colour)
    axes.legend(loc="upper left" if start else "best", fontsize=6.5)


def _band(
    axes: "matplotlib.axes.Axes",
    saved: Mapping[str, Any],
    curve: tuple[str, str, str],
    x: Float[np.ndarray, " layers"] | Int[np.ndarray, " layers"],
    colour: str,
) -> None:
    """Shade the interval over pairs of a curve, if there is one."""
    view, name, direction = curve
    if f"{view}_low" in saved:
        low, high = (array(saved[f"{view}{end}"][name], direction, 1) for end in ("_low", "_high"))
        axes.fill_between(x, low, high, color=colour, alpha=0.22, linewidth=0, zorder=2.5)


def _bars(axes: "matplotlib.axes.Axes", saved: Mapping[str, Any], start: int) -> None:
    heads = array(saved, "attribution_heads", 2)
    mlps = array(saved, "attribution_mlps", 1)
    x = start + np.arange(len(mlps))
    up, down = _split(heads)
    for share, label in ((up, "heads, for"), (down, "heads, against")):
        shade = VERMILLION if share is up else ORANGE
        axes.bar(x - 0.2, share, 0.4, color=shade, label=label, zorder=3)
    axes.bar(x + 0.2, mlps, 0.4, color=BLUE, hatch="////", edgecolor="white", linewidth=0,
             label="MLP", zorder=3)  # fmt: skip
    if "attribution_layers" in saved:
        for shift, name in ((-0.2, "attribution_layers"), (0.2, "attribution_mlps")):
            low, high = (array(saved, f"{name}{end}", 1) for end in ("_low", "_high"))
            axes.vlines(x + shift, low, high, color="0.15", linewidth=0.8, zorder=4)
        sums = array(saved, "attribution_layers", 1)
        axes.plot(x - 0.2, sums, ".", color="0.15", markersize=2.5, label="heads in sum", zorder=4)
    axes.legend(loc="upper left" if start else "best", fontsize=6.5)


def _split(
    heads: Float[np.ndarray, "layers heads"],
) -> tuple[Float[np.ndarray, " layers"], Float[np.ndarray, " layers"]]:
    """Add up the heads of each layer that write for the with-run's answer, and those against."""
    return np.clip(heads, 0, None).sum(1), np.clip(heads, None, 0).sum(1)


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
    if below:
        axes.set_xlabel("Vision layer  |  Language-model layer")
        return
    axes.set_xlabel("Language-model layer")


def _pace(layers: int) -> int:
    return next(step for step in (1, 2, 4, 5, 10, 20) if layers <= 8 * step or step == 20)
