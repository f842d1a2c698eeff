"""How much of the answer the first heads of a ranking carry: curves over the number of heads."""

from textwrap import wrap
from typing import TYPE_CHECKING, Final

import numpy as np

from headpatch.present.canvas import (
    BLUE,
    GREEN,
    GREY,
    ORANGE,
    VERMILLION,
    Target,
    check_columns,
    drawing,
    frame,
)
from headpatch.report.verdicts import judging

if TYPE_CHECKING:
    import pandas

RANKINGS: Final = {
    "attention": (BLUE, "o", "attention difference"),
    "effect": (VERMILLION, "^", "exact effect"),
    "attribution": (ORANGE, "s", "attribution (estimated effect)"),
    "context": (GREEN, "D", "context: what a head adds once others are gone"),
    "random": (GREY, ".", "random"),
}
"""Colour, marker and words of each ranking."""
_WAYS: Final = {
    "keep": "Only the first k keep their z (more is better)",
    "remove": "The first k are resampled (less is better)",
}


def faithfulness_curves(
    curves: "pandas.DataFrame",
    path: Target,
    *,
    level: float,
    of: int | None = None,
    question: str = "",
    region: str = "",
) -> None:
    """Draw the share of the LD difference that is left, over the number of heads.

    Parameters
    ----------
    curves
        ``faithfulness.csv``.
    path
        The file to write.
    level
        Coverage of the intervals, for the note.
    of
        Pairs in all, with those that made the rankings; None if that is not known.
    question, region
        Words for the title.

    Raises
    ------
    ValueError
        If a column is missing or there is no row.
    """
    needed = {"ranking", "way", "k", "share", "share_low", "share_high", "area", "draws", "pairs"}
    check_columns(curves, needed, "curves")
    if curves.empty:
        raise ValueError("there is no curve")
    counts = sorted(curves["k"].unique())
    with drawing(path, 2.5) as figure:
        panels = figure.subplots(1, 2, sharex=True, sharey=True)
        for axes, (way, words) in zip(panels, _WAYS.items(), strict=True):
            areas = []
            for y in (0.0, 1.0):
                axes.axhline(y, color="0.55", linewidth=0.6)
            for ranking, (colour, marker, label) in RANKINGS.items():
                here = curves[(curves["ranking"] == ranking) & (curves["way"] == way)]
                if here.empty:
                    continue
                x = np.log2(here["k"] + 1)
                axes.fill_between(
                    x, here["share_low"], here["share_high"], color=colour, alpha=0.2, linewidth=0
                )
                axes.plot(x, here["share"], color=colour, marker=marker, label=label)
                areas.append(f"{ranking}\N{NO-BREAK SPACE}{here['area'].iloc[0]:.2f}")
            lines = wrap(f"Area: {', '.join(areas)}", 60)
            axes.set_title(words, loc="left", pad=4 + 9 * len(lines))
            axes.text(0, 1.03, "\n".join(lines), transform=axes.transAxes, fontsize=6.5,
                      color="0.3")  # fmt: skip
            axes.set_xlabel("k heads")
            axes.set_xticks(np.log2(np.array(counts) + 1), [f"{k:,}" for k in counts])
            axes.tick_params(axis="x", labelsize=6)
        panels[0].set_ylabel("Share of the LD difference left")
        pairs = int(curves["pairs"].iloc[0])
        draws = int(curves.loc[curves["ranking"] == "random", "draws"].max())
        frame(
            figure,
            f"What the first k heads of a ranking carry; {judging(pairs, of)}",
            question=question,
            region=region,
            legend=panels,
            note="0 = the without-run's answer, 1 = the with-run's. Rankings were made on other "
            f"pairs; random: mean of {draws}. Bands: {level:.0%} intervals over pairs. "
            "Area: under the curve over log2(k + 1), scaled to 0 to 1.",
        )
