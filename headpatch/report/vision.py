"""The vision encoder, layer by layer: how much its attention goes to the region."""

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
    mark_unread,
    signed,
)

if TYPE_CHECKING:
    import matplotlib.axes

QUERIES = {"vision_cls": "Class-token query", "vision_patch": "Mean over patch queries"}
"""Key prefix of each kind of query in ``spatial_vision_analysis.pt``, and its name."""


def vision_encoder_layers(
    spatial: Mapping[str, Any],
    path: Target,
    *,
    question: str = "",
    region: str = "",
) -> None:
    """Draw the region's share of patch attention at each vision layer, in both runs.

    One column a kind of query; below each, the difference. Layers past ``feature_layer`` are
    shaded: the language model never reads them, so no difference there can cause its answer.

    Parameters
    ----------
    spatial
        ``spatial_vision_analysis.pt``: ``vision_cls_with``, ``vision_cls_without``,
        ``vision_cls_diff``, the same three of ``vision_patch``, each ``[vision_layers]`` (shares,
        mean over heads), and ``feature_layer``. Without a class token the ``vision_cls`` keys
        are missing (or NaN) and that column is left out.
    path
        The file to write.
    question, region
        Words for the title.

    Raises
    ------
    ValueError
        If a key is missing or misshapen, or there is no vision encoder at all.
    """
    curves = {
        name: np.stack([array(spatial, f"{prefix}_{k}", 1) for k in ("with", "without", "diff")])
        for prefix, name in queries(spatial).items()
    }
    if not curves:
        raise ValueError("results hold no vision encoder: 'vision_patch_with' is missing")
    feature_layer = int(array(spatial, "feature_layer", 0))
    with drawing(path, 3.3) as figure:
        panels = figure.subplots(
            2, len(curves), sharex=True, sharey="row", squeeze=False, height_ratios=[1.5, 1]
        )
        for column, (name, curve) in enumerate(curves.items()):
            above, below = panels[:, column]
            _draw_runs(above, curve[:2])
            _draw_difference(below, curve[2])
            above.set_title(name, loc="left")
            for axes in (above, below):
                mark_unread(axes, curve.shape[1], feature_layer)
                layer_axis(axes, curve.shape[1], "")
            below.set_xlabel("Vision-encoder layer")
        highest = max(float(np.nanmax(curve[:2], initial=0.0)) for curve in curves.values())
        panels[0, 0].set_ylim(0, 1.06 * (highest or 1.0))
        panels[0, 0].set_ylabel("Region's share\nof patch attention")
        panels[1, 0].set_ylabel("Difference\n(with − without)")
        figure.align_ylabels(panels[:, 0])
        frame(
            figure,
            "Attention of the vision encoder to the region (mean over each layer's heads)",
            question=question,
            region=region,
            legend=(panels[0, 0],),
        )


def queries(spatial: Mapping[str, Any]) -> dict[str, str]:
    """Return the part of :data:`QUERIES` that the results hold."""
    return {
        prefix: name
        for prefix, name in QUERIES.items()
        if f"{prefix}_with" in spatial and np.isfinite(array(spatial, f"{prefix}_with", 1)).any()
    }


def _draw_runs(axes: "matplotlib.axes.Axes", runs: Float[np.ndarray, "2 layers"]) -> None:
    x = np.arange(runs.shape[1])
    sparse = max(1, len(x) // 30)
    axes.plot(x, runs[0], color=WITH, marker="o", markevery=sparse, label="with the object")
    axes.plot(x, runs[1], color=WITHOUT, marker="D", markevery=sparse, linestyle="--",
              markerfacecolor="white", label="without the object")  # fmt: skip


def _draw_difference(axes: "matplotlib.axes.Axes", difference: Float[np.ndarray, "layers"]) -> None:
    axes.bar(np.arange(len(difference)), difference, 0.7, color=DIFFERENCE)
    axes.axhline(0, color="0.2", linewidth=0.6)
    largest = int(np.nan_to_num(np.abs(difference)).argmax())
    value = float(difference[largest])
    place = (largest + 0.5) / len(difference)  # the label stays inside the panel
    axes.annotate(
        f"layer {largest}: {signed(value, 3)}",
        (largest, value),
        (0, 2 if value >= 0 else -2),
        textcoords="offset points",
        ha="left" if place < 0.2 else "right" if place > 0.8 else "center",
        va="bottom" if value >= 0 else "top",
        fontsize=6.5,
    )
    axes.margins(y=0.22)
