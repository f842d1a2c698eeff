"""Where heads look, over a dataset's pairs: each mean difference with its interval."""

from typing import TYPE_CHECKING

from headpatch.present.canvas import DIFFERENCE, Target, drawing, frame
from headpatch.present.effects_view import (
    COVER,
    MOST_ROWS,
    check_rows,
    draw_intervals,
    mean_effects,
    pairs_in,
)

if TYPE_CHECKING:
    import pandas

__all__ = ["MOST_ROWS", "mean_attention", "mean_effects"]


def mean_attention(
    heads: "pandas.DataFrame",
    path: Target,
    top: int,
    *,
    level: float,
    question: str = "",
    region: str = "",
) -> None:
    """Draw the first heads of a ranking over pairs, with the interval of each difference.

    Parameters
    ----------
    heads
        ``heads.csv`` of a dataset: ``rank``, ``layer``, ``head``, ``diff``, ``diff_low``,
        ``diff_high``, ``diff_raw``, ``diff_raw_low``, ``diff_raw_high`` and ``pairs``.
    path
        The file to write.
    top
        Heads to draw.
    level
        Coverage of the intervals, for the note.
    question, region
        Words for the title.

    Raises
    ------
    ValueError
        If a column is missing or there is no row.
    """
    figures = ("diff", "diff_raw")
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
