"""How far apart the two runs' spatial attention is, layer by layer."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float

from headpatch.present.canvas import (
    BLUE,
    GREEN,
    ORANGE,
    Target,
    array,
    drawing,
    frame,
    layer_axis,
    mark_unread,
)
from headpatch.report.vision import QUERIES, queries

if TYPE_CHECKING:
    import matplotlib.axes

MEASURES = {
    "kl": ("KL divergence", "nats"),
    "js": ("JS divergence", "nats"),
    "js_distance": ("JS distance", "√nats"),
}
"""Key of each divergence in ``spatial_vision_analysis.pt``, its name and its unit."""

_LOOKS = {
    QUERIES["vision_cls"]: (ORANGE, "s", "-"),
    QUERIES["vision_patch"]: (BLUE, "D", "--"),
}


def divergence_analysis(
    spatial: Mapping[str, Any],
    path: Target,
    *,
    question: str = "",
    region: str = "",
) -> None:
    """Draw KL, JS divergence and JS distance of every vision and language-model layer.

    One row a measure, one column a tower; the title gives the overall values. An infinite KL (a
    token with attention in the with-run and none in the without-run) is drawn as an arrow at the
    upper edge. Vision layers that the language model does not read are shaded.

    Parameters
    ----------
    spatial
        ``spatial_vision_analysis.pt``: ``divergence_overall``, ``divergence_lm``,
        ``divergence_vision_patch`` and, if the encoder has a class token,
        ``divergence_vision_cls``: dicts with ``kl``, ``js`` (nats) and ``js_distance`` (square
        root of nats), numbers in the first and ``[layers]`` in the others; ``feature_layer``;
        ``vision_cls_with`` and ``vision_patch_with``, which tell what the encoder has (without
        either, the language model is drawn alone).
    path
        The file to write.
    question, region
        Words for the title.

    Raises
    ------
    ValueError
        If a key is missing or misshapen.
    """
    overall = _group(spatial, "divergence_overall", 0)
    language = _group(spatial, "divergence_lm", 1)
    vision = {
        name: _group(spatial, f"divergence_{prefix}", 1)
        for prefix, name in queries(spatial).items()
    }
    with drawing(path, 4.5) as figure:
        panels = figure.subplots(3, 2 if vision else 1, sharex="col", squeeze=False)
        for row, (key, (name, unit)) in zip(panels, MEASURES.items(), strict=True):
            if vision:
                _draw_vision(row[0], spatial, {query: vision[query][key] for query in vision})
            _draw_curve(row[-1], language[key], "Answer position", GREEN, "o", "-")
            _set_height(row[-1], language[key])
            layer_axis(row[-1], len(language[key]), "")
            row[0].set_ylabel(f"{name}\n({unit})")
        if vision:
            panels[0, 0].set_title("Vision encoder", loc="left")
            panels[2, 0].set_xlabel("Vision-encoder layer")
        panels[0, -1].set_title("Language model", loc="left")
        panels[2, -1].set_xlabel("Language-model layer")
        figure.align_ylabels(panels[:, 0])
        values = ", ".join(
            f"{name} {float(overall[key]):.4f} {unit}" for key, (name, unit) in MEASURES.items()
        )
        frame(
            figure,
            f"Divergence of image attention between the two runs\nOverall: {values}",
            question=question,
            region=region,
            legend=panels[0],
        )


def _group(
    spatial: Mapping[str, Any], key: str, ndim: int
) -> dict[str, Float[np.ndarray, "*layers"]]:
    if key not in spatial:
        raise ValueError(f"results lack {key!r}; they hold {', '.join(map(str, spatial))}")
    return {measure: array(spatial[key], measure, ndim) for measure in MEASURES}


def _draw_vision(
    axes: "matplotlib.axes.Axes",
    spatial: Mapping[str, Any],
    curves: Mapping[str, Float[np.ndarray, "layers"]],
) -> None:
    layers = len(next(iter(curves.values())))
    for query, curve in curves.items():
        _draw_curve(axes, curve, query, *_LOOKS[query])
    _set_height(axes, *curves.values())
    mark_unread(axes, layers, int(array(spatial, "feature_layer", 0)))
    layer_axis(axes, layers, "")


def _set_height(axes: "matplotlib.axes.Axes", *curves: Float[np.ndarray, "layers"]) -> None:
    """Start at 0 and leave room above the highest finite value."""
    values = np.concatenate(curves)
    axes.set_ylim(0, 1.1 * (float(values[np.isfinite(values)].max(initial=0.0)) or 1.0))


def _draw_curve(
    axes: "matplotlib.axes.Axes",
    values: Float[np.ndarray, "layers"],
    label: str,
    color: str,
    marker: str,
    linestyle: str,
) -> None:
    x = np.arange(len(values))
    finite = np.where(np.isfinite(values), values, np.nan)
    axes.plot(x, finite, color=color, marker=marker, linestyle=linestyle, label=label,
              markevery=max(1, len(x) // 30), markerfacecolor="white")  # fmt: skip
    infinite = x[np.isposinf(values)]
    axes.plot(infinite, np.full(len(infinite), 0.97), linestyle="none", marker="^", color=color,
              transform=axes.get_xaxis_transform())  # fmt: skip
    for layer in infinite:
        axes.text(layer, 0.9, "∞", ha="center", va="top", color=color,
                  transform=axes.get_xaxis_transform())  # fmt: skip
