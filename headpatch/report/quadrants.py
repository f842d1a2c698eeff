"""How the language model's image attention spreads over the four quadrants."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float

from headpatch.present.canvas import (
    DIFFERENCE,
    WITH,
    WITHOUT,
    Target,
    array,
    drawing,
    frame,
    layer_axis,
    signed,
)

if TYPE_CHECKING:
    import matplotlib.axes


def spatial_distribution(
    spatial: Mapping[str, Any],
    path: Target,
    *,
    question: str = "",
    region: str = "",
) -> None:
    """Draw each quadrant's share of image attention, placed as the quadrants are in the image.

    Left block: mean over all heads, with, without and difference, values printed. Right block:
    the same by layer (mean over the layer's heads), beside the 0.25 of even attention.

    Parameters
    ----------
    spatial
        ``spatial_vision_analysis.pt``: ``quadrant_names`` and ``quadrants_with``,
        ``quadrants_without``, ``quadrants_diff`` (``[4]``, shares, in the order top-left,
        top-right, bottom-left, bottom-right), ``quadrants_by_layer_with`` and
        ``quadrants_by_layer_without`` (``[layers, 4]``).
    path
        The file to write.
    question, region
        Words for the title.

    Raises
    ------
    ValueError
        If a key is missing or misshapen.
    """
    names = [str(name) for name in spatial.get("quadrant_names", ())]
    means = np.stack([array(spatial, f"quadrants_{k}", 1) for k in ("with", "without", "diff")])
    by_layer = np.stack([array(spatial, f"quadrants_by_layer_{k}", 2) for k in ("with", "without")])
    if len(names) != 4 or means.shape != (3, 4) or by_layer.shape[2] != 4:
        raise ValueError(
            "four quadrants expected, got "
            f"{len(names)} names, {means.shape[1]} means, {by_layer.shape[2]} by layer"
        )
    with drawing(path, 3.4) as figure:
        panels = figure.subplots(2, 4, width_ratios=[1, 1, 1.35, 1.35])
        bars, lines = panels[:, :2].ravel(), panels[:, 2:].ravel()
        for i, name in enumerate(names):
            _draw_means(bars[i], means[:, i])
            _draw_layers(lines[i], by_layer[:, :, i])
            for axes in (bars[i], lines[i]):
                axes.set_title(name.replace("-", " ").capitalize(), loc="left", pad=3)
        _share_axes(bars, lines, means, float(by_layer.max()))
        frame(
            figure,
            "Where the language model looks: mean over all heads (left) and by layer (right)",
            question=question,
            region=region,
            legend=(lines[0],),
        )


def _share_axes(bars: Any, lines: Any, means: Float[np.ndarray, "3 4"], highest: float) -> None:
    """Give all panels of a block one scale, and label the outer ones only."""
    low, high = min(0.0, float(means.min())), max(0.0, float(means.max()), 1e-6)
    margin = 0.05 * (high - low)
    for i, axes in enumerate(bars):
        axes.set_xlim(low - margin, high + 9 * margin)
        axes.tick_params(labelleft=i in {0, 2}, labelbottom=i >= 2)
        axes.set_xlabel("Share of image\nattention" if i >= 2 else "")
    for i, axes in enumerate(lines):
        axes.set_ylim(0, 1.06 * max(highest, 0.25))
        axes.tick_params(labelleft=i in {0, 2}, labelbottom=i >= 2)
        axes.set_ylabel("Share of image attention" if i in {0, 2} else "")
        axes.set_xlabel("Language-model layer" if i >= 2 else "")


def _draw_means(axes: "matplotlib.axes.Axes", values: Float[np.ndarray, "3"]) -> None:
    looks = [(WITH, "", WITH), ("white", "/////", WITHOUT), (DIFFERENCE, "", DIFFERENCE)]
    for y, (value, (face, hatch, edge)) in enumerate(zip(values, looks, strict=True)):
        axes.barh(y, value, 0.65, facecolor=face, hatch=hatch, edgecolor=edge, linewidth=0.8)
        text = signed(value, 3) if y == 2 else f"{value:.3f}"
        axes.annotate(text, (max(value, 0.0), y), (3, 0), textcoords="offset points",
                      va="center", fontsize=6.5)  # fmt: skip
    axes.axvline(0, color="0.2", linewidth=0.6)
    axes.set_yticks(range(3), ["with", "without", "difference"])
    axes.set_ylim(2.6, -0.6)
    axes.locator_params(axis="x", nbins=3)
    axes.spines["left"].set_visible(False)
    axes.tick_params(axis="y", length=0)


def _draw_layers(axes: "matplotlib.axes.Axes", by_layer: Float[np.ndarray, "2 layers"]) -> None:
    layers = by_layer.shape[1]
    x = np.arange(layers)
    sparse = max(1, layers // 10)
    axes.plot(x, by_layer[0], color=WITH, marker="o", markevery=sparse, label="with the object")
    axes.plot(x, by_layer[1], color=WITHOUT, marker="D", markevery=sparse, linestyle="--",
              markerfacecolor="white", label="without the object")  # fmt: skip
    axes.axhline(0.25, color="0.6", linewidth=0.8, linestyle=":", label="even attention")
    layer_axis(axes, layers, "")
