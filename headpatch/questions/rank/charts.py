"""Ranked heads as charts: the first of them, and where attention falls in both runs."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from math import ceil
from typing import TYPE_CHECKING, Any, Final, TypeAlias

import numpy as np
from jaxtyping import Float

from headpatch.core.measures import measure_of
from headpatch.core.question import table_of
from headpatch.present.canvas import BLUE, DIFFERENCE, GREEN, ORANGE, array, signed
from headpatch.present.chart import Chart
from headpatch.present.effects_view import COVER, check_rows, ends_of, pairs_in
from headpatch.present.panel import (
    WITH_LOOK,
    WITHOUT_LOOK,
    Guide,
    Look,
    Panel,
    Scale,
    Series,
    unread,
)

if TYPE_CHECKING:
    import pandas

FAINT: Final = 0.05  # of a head's attention: one that gives the image less hardly looks
QUERIES: Final = {  # by key prefix in spatial_vision_analysis.pt: name and look
    "vision_cls": ("Class-token query", Look(ORANGE, "s", "-", hollow=True)),
    "vision_patch": ("Mean over patch queries", Look(BLUE, "D", "--", hollow=True)),
}
MEASURES: Final = {
    "kl": ("KL divergence", "nats"),
    "js": ("JS divergence", "nats"),
    "js_distance": ("JS distance", "√nats"),
}
_FAINT_NOTE: Final = (
    f"† Less than {FAINT:.0%} of this head's attention is on the image, in both runs: its share is "
    "a share of almost nothing."
)
RUNS: Final = {
    "with": ("with the object", WITH_LOOK),
    "without": ("without the object", WITHOUT_LOOK),
}
_LABELS: Final = {
    "region": "Region's share of the head's image attention",
    "image": "Image's part of all the head's attention (raw)",
}
_LAYER: Final = "Language-model layer"
_VISION_LAYER: Final = "Vision-encoder layer"
Values: TypeAlias = Float[np.ndarray, " values"]


def heads_chart(
    per_head: Mapping[str, Any], top: int, place: str = "region", by: str = "diff"
) -> Chart:
    """Show the first heads of the ranking with both compared values, raw mass and layers.

    Left: the region's share of each head's image attention in both runs. Right: the same raw,
    beside all the attention that the head gives the image; heads that give it less than 5% in both
    runs carry a dagger, because a share of almost nothing can top the ranking. Below: their layers.
    Where heads are compared by attention to the whole image (`place`), left is what right is.
    """
    if top < 1:
        raise ValueError(f"top must be at least 1, got {top}")
    rank = array(per_head, "rank", 2)
    layers, heads = np.unravel_index(np.argsort(rank, axis=None, kind="stable")[:top], rank.shape)
    keys = ("with", "without", "diff", "with_raw", "without_raw")
    chosen = {key: array(per_head, key, 2)[layers, heads] for key in keys}
    whole = place == "image"
    image = np.fmax(chosen["with"], chosen["without"]) if whole else _image_mass(chosen)
    faint = (image < FAINT) & (not whole)
    names = [
        f"{layer}.{head}{' †' if mark else ''}   {signed(diff, 3)}"
        for layer, head, mark, diff in zip(layers, heads, faint, chosen["diff"], strict=True)
    ]
    return Chart(
        "heads",
        "top_different_heads.png",
        f"The {len(names)} heads whose attention to the {place} rises most"
        if by == "diff"
        else f"The {len(names)} heads {measure_of(by).heads}",
        [
            _shares(chosen, names, _LABELS[place]),
            _raw(chosen, image, names),
            _layers(layers, len(rank)),
            None,
        ],
        _FAINT_NOTE if faint.any() else "",
        columns=2,
        share_x="none",
        share_y="row",
        heights=[0.3 + 0.175 * len(names), 1.0],
        widths=[2.6, 1.0],
        on_page=False,
    )


def _image_mass(chosen: Mapping[str, Values]) -> Values:
    """Attention to the whole image (raw mass over share), the larger of both runs; NaN if unknown.

    A head whose share is 0 in both runs does not tell.
    """
    runs = []
    for run in RUNS:
        share, raw = chosen[run], chosen[f"{run}_raw"]
        runs.append(np.where(share > 0, raw / np.where(share > 0, share, 1.0), np.nan))
    return np.asarray(np.fmax(*runs))


def _shares(chosen: Mapping[str, Values], names: Sequence[str], label: str) -> Panel:
    """Show the share in both runs, joined by a line; each number stands away from the other."""
    present, absent = chosen["with"], chosen["without"]
    rise = present >= absent
    series = [
        replace(run, texts=[f"{value:.3f}" for value in run.y], before=before)
        for run, before in zip(_runs(present, absent, "points"), (~rise, rise), strict=True)
    ]
    low, high = np.minimum(present, absent), np.maximum(present, absent)
    line = Look("#BFBFBF", "", width=1.4)
    series.append(_series("", low, line, low=low, high=high, mark="points"))
    reach = max(float(high.max()), 1e-6)
    scale = Scale(low=-0.12 * reach, high=1.15 * reach)
    title = "Printed: both shares, and beside each head their difference"
    return Panel(title, series, label, "Head (layer.head)", names, across=True, x_scale=scale)


def _raw(chosen: Mapping[str, Values], image: Values, names: Sequence[str]) -> Panel:
    held = np.nan_to_num(image)
    runs = chosen["with_raw"], chosen["without_raw"]
    name = "whole image, raw (larger run)"
    bars = _series(name, held, Look("#DCDCDC"), mark="bars", width=0.55)
    most = max(float(np.max([held, *runs])), 0.1)  # little attention must look little
    scale = Scale(low=-0.04 * most, high=1.06 * most)
    series = [*_runs(*runs, "points"), bars]
    return Panel("", series, "Raw attention mass", "", names, across=True, x_scale=scale)


def _layers(chosen: Any, layers: int) -> Panel:
    counts = np.bincount(chosen, minlength=layers).astype(np.float64)
    most = int(counts.max())
    ticks = {float(count): str(count) for count in range(0, most + 1, ceil(most / 4))}
    bars = _series("", counts, Look(GREEN), mark="bars")
    scale, label = Scale(low=0.0, ticks=ticks), f"Heads among\nthese {len(chosen)}"
    return Panel("", [bars], _LAYER, label, layers=layers, y_scale=scale)


def _series(name: str, values: Values, look: Look, **more: Any) -> Series:
    return Series(name, np.arange(float(len(values))), values, look=look, **more)


def _runs(present: Values, absent: Values, mark: Any = "line") -> list[Series]:
    size = 4.2 if mark == "points" else 0.0
    return [
        _series(name, values, replace(look, size=size), mark=mark)
        for (name, look), values in zip(RUNS.values(), (present, absent), strict=True)
    ]


def quadrants_chart(spatial: Mapping[str, Any]) -> Chart:
    """Show each quadrant's share of image attention by layer, placed as it is in the image.

    Its mean over all heads is printed, with, without and difference; even attention is 0.25.
    """
    names = [str(name) for name in spatial.get("quadrant_names", ())]
    means = np.stack([array(spatial, f"quadrants_{k}", 1) for k in (*RUNS, "diff")])
    by_layer = np.stack([array(spatial, f"quadrants_by_layer_{run}", 2) for run in RUNS])
    if len(names) != 4 or means.shape != (3, 4) or by_layer.shape[2] != 4:
        raise ValueError(
            "four quadrants expected, got "
            f"{len(names)} names, {means.shape[1]} means, {by_layer.shape[2]} by layer"
        )
    panels = [
        Panel(
            name.replace("-", " ").capitalize(),
            _runs(*by_layer[:, :, place]),
            _LAYER,
            "Share of image attention",
            layers=by_layer.shape[1],
            y_scale=Scale(low=0.0, high=1.06 * max(float(np.nanmax(by_layer)), 0.25)),
            guides=[Guide("y", 0.25, name="even attention", line=":")],
            note="All heads: with {:.3f}, without {:.3f}, difference ".format(*means[:2, place])
            + signed(means[2, place], 3),
        )
        for place, name in enumerate(names)
    ]
    return Chart(
        "quadrants",
        "spatial_distribution.png",
        "Where the language model looks, by layer and in the mean over all heads",
        panels,
        spoken=[panel.note for panel in panels],
        columns=2,
        heights=[1.7, 1.7],
    )


def _queries(spatial: Mapping[str, Any]) -> list[str]:
    """Return the kinds of query that the results hold."""
    keys = {prefix: f"{prefix}_with" for prefix in QUERIES if f"{prefix}_with" in spatial}
    return [prefix for prefix, key in keys.items() if np.isfinite(array(spatial, key, 1)).any()]


def vision_chart(spatial: Mapping[str, Any]) -> Chart:
    """Show the region's share of patch attention at each vision layer, in both runs.

    One column a kind of query (none of the class token where there is none); below each, the
    difference. Layers past ``feature_layer`` are shaded: the language model never reads them, so no
    difference there can cause its answer.
    """
    curves = {
        QUERIES[prefix][0]: np.stack([array(spatial, f"{prefix}_{k}", 1) for k in (*RUNS, "diff")])
        for prefix in _queries(spatial)
    }
    if not curves:
        raise ValueError("results hold no vision encoder: 'vision_patch_with' is missing")
    every = np.stack(list(curves.values()))
    feature, layers = int(array(spatial, "feature_layer", 0)), every.shape[2]
    axis: Any = {"layers": layers, "guides": unread(feature, layers)}
    low, high = np.nanmin(every[:, 2], initial=0.0), np.nanmax(every[:, 2], initial=1e-6)
    room = 0.22 * (high - low)  # for the printed value
    shares = Scale(low=0.0, high=1.06 * (float(np.nanmax(every[:, :2], initial=0.0)) or 1.0))
    differences = Scale(low=float(low - room), high=float(high + room))
    label = "Region's share\nof patch attention"
    above = [
        Panel(name, _runs(*curve[:2]), _VISION_LAYER, label, y_scale=shares, **axis)
        for name, curve in curves.items()
    ]
    label = "Difference\n(with − without)"
    below = [
        Panel("", [_difference(curve[2])], _VISION_LAYER, label, y_scale=differences, **axis)
        for curve in curves.values()
    ]
    return Chart(
        "vision",
        "vision_encoder_layers.png",
        "Attention of the vision encoder to the region (mean over each layer's heads)",
        [*above, *below],
        spoken=[*[""] * len(above), *("Largest: " + "".join(p.series[0].texts) for p in below)],
        columns=len(curves),
        share_y="row",
        heights=[1.98, 1.32],
    )


def _difference(values: Values) -> Series:
    """Return the difference by layer; the largest is printed."""
    largest = int(np.nan_to_num(np.abs(values)).argmax())
    texts = [""] * len(values)
    texts[largest] = f"layer {largest}: {signed(float(values[largest]), 3)}"
    return _series("", values, Look(DIFFERENCE), mark="bars", width=0.7, texts=texts)


def divergences_chart(spatial: Mapping[str, Any]) -> Chart:
    """Show KL, JS divergence and JS distance of every vision and language-model layer.

    One row a measure, one column a tower that there is; the title gives the overall values. KL is
    infinite where a token has attention in the with-run and none in the without-run. Vision layers
    that the language model does not read are shaded.
    """
    overall, language = (_group(spatial, name, n) for name, n in (("overall", 0), ("lm", 1)))
    vision = {prefix: _group(spatial, prefix, 1) for prefix in _queries(spatial)}
    panels = []
    for key, (name, unit) in MEASURES.items():
        if vision:
            by_query = [_series(QUERIES[q][0], vision[q][key], QUERIES[q][1]) for q in vision]
            last = int(array(spatial, "feature_layer", 0))
            panels.append(_divergence(f"Vision encoder, {name}", unit, by_query, last))
        answer = _series("Answer position", language[key], Look(GREEN, hollow=True))
        panels.append(_divergence(f"Language model, {name}", unit, [answer]))
    values = ", ".join(
        f"{name} {float(overall[key]):.4f} {unit}" for key, (name, unit) in MEASURES.items()
    )
    return Chart(
        "divergences",
        "divergence_analysis.png",
        f"Divergence of image attention between the two runs\nOverall: {values}",
        panels,
        columns=2 if vision else 1,
        share_x="col",
        share_y="none",
        heights=[1.5] * len(MEASURES),
    )


def _group(spatial: Mapping[str, Any], name: str, ndim: int) -> dict[str, Any]:
    key = f"divergence_{name}"
    if key not in spatial:
        raise ValueError(f"results lack {key!r}; they hold {', '.join(map(str, spatial))}")
    return {measure: array(spatial[key], measure, ndim) for measure in MEASURES}


def _divergence(
    title: str, unit: str, series: Sequence[Series], feature: int | None = None
) -> Panel:
    values, layers = np.concatenate([one.y for one in series]), len(series[0].y)
    most = float(values[np.isfinite(values)].max(initial=0.0)) or 1.0
    guides, label = ((), _LAYER) if feature is None else (unread(feature, layers), _VISION_LAYER)
    scale = Scale(low=0.0, high=1.1 * most)
    return Panel(title, series, label, unit, layers=layers, guides=guides, y_scale=scale)


def ranked_chart(
    columns: "pandas.DataFrame", top: int, level: float, place: str = "region", by: str = "diff"
) -> Chart:
    """Show the first heads of a ranking over pairs, with the interval of each difference."""
    figures = {"diff": "Share of the image attention", "diff_raw": "Share of all attention (raw)"}
    if place == "image":
        del figures["diff"]  # it is the other
    heads = table_of(columns)
    check_rows(heads, [f"{name}{end}" for name in figures for end in ("", "_low", "_high")])
    rows = heads.sort_values("rank").head(top)
    names = [f"{layer}.{head}" for layer, head in zip(rows["layer"], rows["head"], strict=True)]
    look = Look(DIFFERENCE, size=4.0, width=1.4)
    panels = []
    for name, title in figures.items():
        mean, low, high = ends_of(rows, name)
        series = _series("", mean, look, low=low, high=high)
        panels.append(Panel(title, [series], "With − without", "Head", names, across=True))
    first, picked = f"top {len(rows)} heads", "these differences, which"
    if by != "diff":
        first = f"the {len(rows)} heads {measure_of(by).heads}"
        picked = f"{measure_of(by).ranking} on the same pairs, figures of which"
    return Chart(
        "ranked_pairs",
        "top_different_heads.png",
        f"Attention to the {place}: mean difference over {pairs_in(heads)}, {first}",
        panels,
        f"{COVER.format(level=level)} The heads were picked by {picked} are therefore a little too "
        f"{'large' if by == 'diff' else 'good'}.",
        columns=len(panels),
        share_x="none",
    )
