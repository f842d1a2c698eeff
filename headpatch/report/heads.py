"""The heads whose attention to the region differs most between the two runs."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float, Int

from headpatch.present.canvas import (
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

if TYPE_CHECKING:
    import matplotlib.axes

FAINT = 0.05
"""A head that gives the image less of its attention than this is marked as hardly looking."""

_FAINT_NOTE = (
    f"† Less than {FAINT:.0%} of this head's attention is on the image, in both runs: its share is "
    "a share of almost nothing."
)


def top_different_heads(
    per_head: Mapping[str, Any],
    path: Target,
    top: int = 20,
    *,
    question: str = "",
    region: str = "",
) -> None:
    """Draw the top heads of the ranking with both compared values, raw mass and layers.

    Left: the region's share of each head's image attention in both runs, largest difference on
    top, values printed. Right: the same raw, beside all the attention that the head gives the
    image; heads that give it less than 5% in both runs carry a dagger, because a share of almost
    nothing can top the ranking. Below: the layers that these heads sit in.

    Parameters
    ----------
    per_head
        ``per_head_analysis.pt``: ``with``, ``without``, ``diff`` (shares), ``with_raw``,
        ``without_raw`` (fractions of all attention) and ``rank`` (1 = largest diff), each
        ``[layers, heads]``.
    path
        The file to write.
    top
        How many heads to show (fewer if the model has fewer).
    question, region
        Words for the title.

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
