"""Figures of ranked heads: the first of them, the quadrants, and attention over the pictures."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float, Int
from PIL import Image

from headpatch.core.question import table_of
from headpatch.present.canvas import (
    DIFFERENCE,
    GREEN,
    WITH,
    WITHOUT,
    Target,
    array,
    drawing,
    frame,
    layer_axis,
    signed,
)
from headpatch.present.effects_view import COVER, check_rows, draw_intervals, pairs_in
from headpatch.present.overlays import attention_overlays

if TYPE_CHECKING:
    import matplotlib.axes
    import pandas

FAINT = 0.05
"""A head that gives the image less of its attention than this is marked as hardly looking."""

_FAINT_NOTE = (
    f"† Less than {FAINT:.0%} of this head's attention is on the image, in both runs: its share is "
    "a share of almost nothing."
)


def top_different_heads(
    per_head: Mapping[str, Any], top: int, path: Target, question: str = "", region: str = ""
) -> None:
    """Draw the top heads of the ranking with both compared values, raw mass and layers.

    Left: the region's share of each head's image attention in both runs, largest difference on
    top, values printed. Right: the same raw, beside all the attention that the head gives the
    image; heads that give it less than 5% in both runs carry a dagger, because a share of almost
    nothing can top the ranking. Below: the layers that these heads sit in.

    Parameters
    ----------
    per_head
        ``per_head_analysis.pt``.
    top
        How many heads to show (fewer if the model has fewer).

    Raises
    ------
    ValueError
        If a key is missing or misshapen, or top is not positive.
    """
    if top < 1:
        raise ValueError(f"top must be at least 1, got {top}")
    rank = array(per_head, "rank", 2)
    layers, heads = np.unravel_index(np.argsort(rank, axis=None, kind="stable")[:top], rank.shape)
    chosen = {
        key: array(per_head, key, 2)[layers, heads]
        for key in ("with", "without", "diff", "with_raw", "without_raw")
    }
    image = _image_mass(chosen)
    faint = image < FAINT
    with drawing(path, 1.75 + 0.175 * len(layers)) as figure:
        grid = figure.add_gridspec(
            2, 2, width_ratios=[2.6, 1], height_ratios=[0.3 + 0.175 * len(layers), 1.0]
        )
        shares = figure.add_subplot(grid[0, 0])
        raw = figure.add_subplot(grid[0, 1], sharey=shares)
        _draw_shares(shares, chosen)
        names = [
            f"{layer}.{head}{' †' if mark else ''}"
            for layer, head, mark in zip(layers, heads, faint, strict=True)
        ]
        shares.set_yticks(range(len(names)), names)
        shares.set_ylim(len(names) - 0.4, -0.6)
        shares.set_ylabel("Head (layer.head)")
        _draw_raw(raw, chosen, image)
        counts = figure.add_subplot(grid[1, :])
        _draw_layers(counts, layers, rank.shape[0])
        counts.set_ylabel(f"Heads among\nthese {len(names)}")
        frame(
            figure,
            f"The {len(names)} heads whose attention to the region rises most",
            question=question,
            region=region,
            legend=(shares, raw),
            note=_FAINT_NOTE if faint.any() else "",
        )


def _image_mass(chosen: Mapping[str, Float[np.ndarray, "n"]]) -> Float[np.ndarray, "n"]:
    """Attention to the whole image, the larger of both runs: raw mass over share.

    NaN for a head whose share is 0 in both runs, which does not tell.
    """
    runs = []
    for run in ("with", "without"):
        share, raw = chosen[run], chosen[f"{run}_raw"]
        runs.append(np.where(share > 0, raw / np.where(share > 0, share, 1.0), np.nan))
    return np.asarray(np.fmax(*runs))


def _draw_shares(
    axes: "matplotlib.axes.Axes", chosen: Mapping[str, Float[np.ndarray, "n"]]
) -> None:
    present, absent, diff = chosen["with"], chosen["without"], chosen["diff"]
    reach = max(float(np.maximum(present, absent).max()), 1e-6)
    y = np.arange(len(present))
    axes.hlines(y, present, absent, color="0.75", linewidth=1.4, zorder=1)
    _draw_runs(axes, present, absent)
    for i, (a, b) in enumerate(zip(present, absent, strict=True)):
        for value, left in ((a, a < b), (b, a >= b)):  # the label stands away from the other dot
            axes.annotate(
                f"{value:.3f}",
                (value, i),
                (-4 if left else 4, 0),
                textcoords="offset points",
                ha="right" if left else "left",
                va="center",
                fontsize=6,
            )
    beside = axes.get_yaxis_transform()
    for i, value in enumerate(diff):
        axes.text(1.0, i, signed(value, 3), ha="right", va="center", transform=beside)
    axes.text(1.0, -0.75, "difference", ha="right", va="bottom", transform=beside)
    axes.set_xlim(-0.12 * reach, 1.32 * reach)
    axes.locator_params(axis="x", nbins=6)
    axes.set_xticks([tick for tick in axes.get_xticks() if 0 <= tick <= min(1.0, 1.1 * reach)])
    axes.set_xlabel("Region's share of the head's image attention")
    axes.grid(axis="x", color="0.92", linewidth=0.6)
    axes.set_axisbelow(True)


def _draw_raw(
    axes: "matplotlib.axes.Axes",
    chosen: Mapping[str, Float[np.ndarray, "n"]],
    image: Float[np.ndarray, "n"],
) -> None:
    axes.barh(
        np.arange(len(image)),
        np.nan_to_num(image),
        height=0.55,
        color="0.88",
        edgecolor="0.6",
        linewidth=0.4,
        label="whole image, raw (larger run)",
        zorder=1,
    )
    _draw_runs(axes, chosen["with_raw"], chosen["without_raw"])
    axes.set_xlim(0, max(axes.get_xlim()[1], 0.1))  # little attention must look little
    axes.tick_params(axis="y", labelleft=False, length=0)
    axes.set_xlabel("Raw attention mass")
    axes.locator_params(axis="x", nbins=3)


def _draw_runs(
    axes: "matplotlib.axes.Axes",
    present: Float[np.ndarray, "n"],
    absent: Float[np.ndarray, "n"],
) -> None:
    y = np.arange(len(present))
    axes.scatter(absent, y, s=17, marker="D", facecolor="white", edgecolor=WITHOUT, zorder=3,
                 label="without the object")  # fmt: skip
    axes.scatter(present, y, s=17, marker="o", color=WITH, zorder=3, label="with the object")


def _draw_layers(
    axes: "matplotlib.axes.Axes", chosen_layers: Int[np.ndarray, "n"], layers: int
) -> None:
    from matplotlib.ticker import MaxNLocator

    axes.bar(np.arange(layers), np.bincount(chosen_layers, minlength=layers), 0.8, color=GREEN)
    layer_axis(axes, layers, "Language-model layer")
    axes.yaxis.set_major_locator(MaxNLocator(nbins=4, integer=True, min_n_ticks=1))


def spatial_distribution(
    spatial: Mapping[str, Any], path: Target, question: str = "", region: str = ""
) -> None:
    """Draw each quadrant's share of image attention, placed as the quadrants are in the image.

    Left block: mean over all heads, with, without and difference, values printed. Right block:
    the same by layer (mean over the layer's heads), beside the 0.25 of even attention.

    Parameters
    ----------
    spatial
        ``spatial_vision_analysis.pt``.

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
            _draw_quadrant(lines[i], by_layer[:, :, i])
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


def _draw_quadrant(axes: "matplotlib.axes.Axes", by_layer: Float[np.ndarray, "2 layers"]) -> None:
    layers = by_layer.shape[1]
    x = np.arange(layers)
    sparse = max(1, layers // 10)
    axes.plot(x, by_layer[0], color=WITH, marker="o", markevery=sparse, label="with the object")
    axes.plot(x, by_layer[1], color=WITHOUT, marker="D", markevery=sparse, linestyle="--",
              markerfacecolor="white", label="without the object")  # fmt: skip
    axes.axhline(0.25, color="0.6", linewidth=0.8, linestyle=":", label="even attention")
    layer_axis(axes, layers, "")


def mean_attention(
    columns: "pandas.DataFrame | Mapping[str, Any]",
    top: int,
    level: float,
    path: Target,
    question: str = "",
    region: str = "",
) -> None:
    """Draw the first heads of a ranking over pairs, with the interval of each difference.

    Parameters
    ----------
    columns
        ``heads.csv`` of a dataset.
    level
        Coverage of the intervals, for the note.

    Raises
    ------
    ValueError
        If a column is missing or there is no row.
    """
    heads, figures = table_of(columns), ("diff", "diff_raw")
    check_rows(heads, [f"{name}{end}" for name in figures for end in ("", "_low", "_high")])
    rows = heads.sort_values("rank").head(top)
    names = [f"{layer}.{head}" for layer, head in zip(rows["layer"], rows["head"], strict=True)]
    labels = ("Share of the image attention", "Share of all attention (raw)")
    with drawing(path, 0.6 + 0.16 * max(len(rows), 3)) as figure:
        panels = figure.subplots(1, 2, sharey=True)
        for axes, name, label in zip(panels, figures, labels, strict=True):
            axes.axvline(0.0, color="0.55", linewidth=0.6)
            draw_intervals(axes, rows, name, DIFFERENCE, "o")
            axes.set_xlabel("With − without")
            axes.set_title(label, loc="left")
        panels[0].set_yticks(range(len(names)), names)
        panels[0].set_ylim(len(names) - 0.4, -0.6)
        panels[0].set_ylabel("Head")
        frame(
            figure,
            f"Attention to the region: mean difference over {pairs_in(heads)}, "
            f"top {len(rows)} heads",
            question=question,
            region=region,
            note=f"{COVER.format(level=level)} The heads were picked by these differences, which "
            "are therefore a little too large.",
        )


def first_overlays(
    per_head: Mapping[str, Any],
    present: Mapping[str, Any],
    absent: Mapping[str, Any],
    count: int,
    path: Target,
    question: str = "",
    region: str = "",
) -> None:
    """Lay the attention of the first heads of the ranking over both pictures.

    Parameters
    ----------
    present, absent
        ``attention_with_triangle.pt`` and ``attention_without_triangle.pt``.
    """
    rank = np.asarray(per_head["rank"])
    attention_overlays(
        Image.fromarray(np.asarray(present["image"])),
        Image.fromarray(np.asarray(absent["image"])),
        present,
        absent,
        [divmod(int(index), rank.shape[1]) for index in rank.ravel().argsort()[:count]],
        path,
        question=question,
        region=region,
    )
