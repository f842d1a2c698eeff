"""A sheet of the first pairs of a dataset, to look at before they are used."""

import textwrap
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from headpatch.pairs.manifest import Entry
from headpatch.present.canvas import ORANGE, Target, drawing, frame

if TYPE_CHECKING:
    import matplotlib.axes

    from headpatch.pairs.pair import Pair

SHOWN: Final = 12
"""Pairs on a sheet."""
_COLUMNS: Final = 3


def contact_sheet(entries: Sequence[Entry], path: Target) -> None:
    """Draw the first `SHOWN` pairs side by side, each under its name and question."""
    shown = entries[:SHOWN]
    rows = -(-len(shown) // _COLUMNS)
    with drawing(path, 1.45 * rows) as figure:
        grid = figure.add_gridspec(rows, _COLUMNS, wspace=0.12, hspace=0.08)
        for index, entry in enumerate(shown):
            pair = entry.pair()
            halves = grid[divmod(index, _COLUMNS)].subgridspec(1, 2, wspace=0.03)
            left, right = figure.add_subplot(halves[0]), figure.add_subplot(halves[1])
            _show(left, pair, "with")
            _show(right, pair, "without")
            words = textwrap.wrap(textwrap.shorten(entry.question, 90, placeholder=" …"), 46)
            title = "\n".join([f"{entry.name}  {pair.region.name}", *words])
            left.set_title(title, loc="left", fontsize=6.5)
        frame(
            figure,
            f"The first {len(shown)} of {len(entries):,} pairs",
            note="Left: with the object (the answer is Yes); right: without it (No). Outlined: the "
            "region.",
        )


def _show(axes: "matplotlib.axes.Axes", pair: "Pair", run: str) -> None:
    from matplotlib.patches import Rectangle

    image = pair.with_image if run == "with" else pair.without_image
    axes.imshow(image, interpolation="antialiased")
    left, top, right, bottom = pair.region.box
    corner = (left * image.width - 0.5, top * image.height - 0.5)
    width, height = (right - left) * image.width, (bottom - top) * image.height
    axes.add_patch(Rectangle(corner, width, height, fill=False, edgecolor=ORANGE, linewidth=1.0))
    axes.set_xticks([])
    axes.set_yticks([])
    axes.set_xlabel(run, fontsize=6, labelpad=1.5)
