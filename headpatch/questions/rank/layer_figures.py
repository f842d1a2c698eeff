"""Figures over depth: where the vision encoder looks, and how far apart the two runs are."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float

from headpatch.present.canvas import (
    BLUE,
    DIFFERENCE,
    GREEN,
    ORANGE,
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


def vision_encoder_layers(
    spatial: Mapping[str, Any], path: Target, question: str = "", region: str = ""
) -> None:
    """Draw the region's share of patch attention at each vision layer, in both runs.

    One column a kind of query; below each, the difference. Layers past ``feature_layer`` are
    shaded: the language model never reads them, so no difference there can cause its answer.

    Parameters
    ----------
    spatial
        ``spatial_vision_analysis.pt``. Without a class token the ``vision_cls`` keys are missing
        (or NaN) and that column is left out.

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


def divergence_analysis(
    spatial: Mapping[str, Any], path: Target, question: str = "", region: str = ""
) -> None:
    """Draw KL, JS divergence and JS distance of every vision and language-model layer.

    One row a measure, one column a tower; the title gives the overall values. An infinite KL (a
    token with attention in the with-run and none in the without-run) is drawn as an arrow at the
    upper edge. Vision layers that the language model does not read are shaded.

    Parameters
    ----------
    spatial
        ``spatial_vision_analysis.pt``. Without vision keys the language model is drawn alone.

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
