"""Figures of ranked heads on the page."""

from collections.abc import Mapping
from typing import Any, Final

import numpy as np

from headpatch.present.canvas import (
    BLUE,
    DIFFERENCE,
    GREEN,
    ORANGE,
    VERMILLION,
    WITH,
    WITHOUT,
    signed,
)
from headpatch.present.charts import layer_axis, lines, unread
from headpatch.present.section import Figure, numbers, words
from headpatch.questions.rank.layer_figures import queries

_COLORS: Final = (VERMILLION, BLUE, GREEN, ORANGE)
_SYMBOLS: Final = ("circle", "square", "diamond", "triangle-up")
_MEASURES: Final = {
    "kl": ("KL (nats)", VERMILLION, "circle"),
    "js": ("JS divergence (nats)", BLUE, "square"),
    "js_distance": ("JS distance", GREEN, "diamond"),
}
_TOWERS: Final = {
    "lm": ("Language model, mean over each layer's heads", "language-model layer"),
    "vision_patch": ("Vision encoder, mean over patch queries", "vision layer"),
    "vision_cls": ("Vision encoder, class-token query", "vision layer"),
}


def quadrants(spatial: Mapping[str, Any]) -> dict[str, Figure]:
    """Draw each quadrant's share, and its difference by layer."""
    names = [str(name) for name in spatial["quadrant_names"]]
    by_layer = _array(spatial["quadrants_by_layer_with"])
    by_layer = by_layer - _array(spatial["quadrants_by_layer_without"])
    if by_layer.shape[1] != len(names):
        raise ValueError("it does not hold four quadrants")
    bars = [
        {
            "type": "bar",
            "name": label,
            "x": [words(name) for name in names],
            "y": numbers(_array(spatial[f"quadrants_{run}"])),
            "marker": {"color": color, "pattern": {"shape": shape}},
        }
        for run, label, color, shape in (
            ("with", "with the object", WITH, ""),
            ("without", "without", WITHOUT, "/"),
        )
    ]
    axis = {"title": {"text": "share of image attention"}, "rangemode": "tozero"}
    spoken = "Bars: share of image attention by quadrant."
    curves = [lines(by_layer[:, i], name, _COLORS[i], _SYMBOLS[i]) for i, name in enumerate(names)]
    layers = {
        "xaxis": layer_axis("language-model layer", len(by_layer)),
        "yaxis": {"title": {"text": "with − without"}, "zeroline": True},
    }
    listed = ", ".join(names)
    return {
        "quadrants": Figure(bars, {"barmode": "group", "yaxis": axis}, 280, spoken),
        "quadrants-by-layer": Figure(
            curves,
            layers,
            280,
            f"Lines: difference in share of image attention by layer, for {listed}.",
        ),
    }


def vision(spatial: Mapping[str, Any]) -> dict[str, Figure]:
    """Draw the region's share of patch attention by vision layer, a figure a kind of query."""
    feature = int(spatial["feature_layer"])
    return {
        prefix.replace("_", "-"): _vision(spatial, prefix, name, feature)
        for prefix, name in queries(spatial).items()
    }


def _vision(spatial: Mapping[str, Any], prefix: str, name: str, feature: int) -> Figure:
    present, absent, diff = (
        _array(spatial[f"{prefix}_{run}"]) for run in ("with", "without", "diff")
    )
    layers = len(diff)
    largest = int(np.nan_to_num(np.abs(diff)).argmax())
    bars = {
        "type": "bar",
        "x": list(range(layers)),
        "y": numbers(diff),
        "name": "difference",
        "marker": {"color": DIFFERENCE},
        "xaxis": "x",
        "yaxis": "y2",
    }
    return Figure(
        [
            lines(present, "with the object", WITH),
            lines(absent, "without", WITHOUT, "diamond-open", dash="dash"),
            bars,
        ],
        {
            "xaxis": {**layer_axis("vision layer", layers), "anchor": "y2"},
            "yaxis": {"domain": [0.46, 1], "title": {"text": "region's share"},
                      "rangemode": "tozero"},
            "yaxis2": {"domain": [0, 0.36], "title": {"text": "difference"}, "zeroline": True},
            "shapes": unread(feature, layers),
        },
        360,
        f"{name}: the region's share of patch attention by vision layer; largest difference "
        f"{signed(float(diff[largest]), 4)} at layer {largest}.",
        title=name,
    )  # fmt: skip


def divergences(spatial: Mapping[str, Any]) -> dict[str, Figure]:
    """Draw the divergences of both runs by layer, a figure a tower and kind of query."""
    return {
        f"divergence-{tower.replace('_', '-')}": _divergence(group, title, axis)
        for tower, (title, axis) in _TOWERS.items()
        if (group := spatial.get(f"divergence_{tower}")) is not None
    }


def _divergence(group: Mapping[str, Any], title: str, axis: str) -> Figure:
    values = {name: _array(group[name]) for name in _MEASURES}
    layers = len(values["js"])
    largest = int(np.nan_to_num(values["js"]).argmax())
    return Figure(
        [
            lines(values[name], label, color, symbol)
            for name, (label, color, symbol) in _MEASURES.items()
        ],
        {
            "xaxis": layer_axis(axis, layers),
            "yaxis": {"title": {"text": "with against without"}, "rangemode": "tozero"},
        },
        280,
        f"{title}: divergence by layer; JS is largest at layer {largest}, "
        f"{values['js'][largest]:.4f} nats.",
        title=title,
    )


def _array(values: Any) -> Any:
    return np.asarray(values, np.float64)
