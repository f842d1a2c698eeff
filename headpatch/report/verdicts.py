"""Looking against deciding: every head's attention difference and causal effect, by verdict."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from headpatch.present.canvas import (
    BLUE,
    GREEN,
    ORANGE,
    VERMILLION,
    Target,
    check_columns,
    drawing,
    frame,
    signed,
)
from headpatch.present.labels import pixel, write_names
from headpatch.report.rhos import measured_words, true_words
from headpatch.stats.verdict_labels import CAUSAL

if TYPE_CHECKING:
    import matplotlib.axes
    import pandas

CLASSES: Final = {
    "necessary+sufficient": (VERMILLION, "o"),
    "necessary": (VERMILLION, "^"),
    "sufficient": (VERMILLION, "v"),
    "redundant": (GREEN, "D"),
    "inhibitory": ("#CC79A7", "s"),  # Okabe and Ito's purple
    "watches": (BLUE, "o"),
    "inert": ("0.75", "."),
    "undecided": (ORANGE, "x"),
}
"""Colour and marker of each verdict, in the order of the legend."""
_SAID: Final = {"redundant": "redundant: necessary only together with others"}
"""Words of the legend, where the verdict alone says too little."""
LOOKING: Final = 4
"""Heads named because attention picks them first; those that are shown to act are all named."""
_RINGS: Final = tuple(np.geomspace(1.0, 66.0, 17).tolist())  # of names round a point, to the edges
_PANELS: Final = {
    "necessity": "Necessity (noising)",
    "sufficiency": "Sufficiency (denoising)",
}


def verdict_map(
    verdicts: "pandas.DataFrame",
    path: Target,
    *,
    delta: float,
    level: float,
    pairs: int,
    of: int | None = None,
    rhos: Mapping[str, Any] | None = None,
    question: str = "",
    region: str = "",
) -> None:
    """Draw every head's mean attention difference against its mean effect, a panel a direction.

    The vertical axis is linear within ±δ (the grey band) and logarithmic beyond. Named heads carry
    their interval.

    Parameters
    ----------
    verdicts
        ``verdicts.csv``.
    path
        The file to write.
    delta
        Smallest effect of interest, in normalized units.
    level, pairs
        Coverage of the intervals, and pairs that the heads were judged on.
    of
        Pairs in all, with those that chose heads; None if that is not known.
    rhos
        ``verdict.pt``, for what it says of the correlation.
    question, region
        Words for the title.

    Raises
    ------
    ValueError
        If a column is missing or there is no row.
    """
    needed = {"layer", "head", "verdict", "attention_diff", "attention_rank"}
    needed |= {f"{name}{end}" for name in _PANELS for end in ("", "_low", "_high")}
    check_columns(verdicts, needed, "verdicts")
    if verdicts.empty:
        raise ValueError("verdicts hold no head")
    table = verdicts[verdicts["attention_diff"].notna()]
    named = _named(table)
    counts = table["verdict"].value_counts()
    with drawing(path, 3.3) as figure:
        panels = figure.subplots(1, 2, sharex=True, sharey=True)
        for axes, (name, title) in zip(panels, _PANELS.items(), strict=True):
            axes.axhspan(-delta, delta, color="0.93", zorder=0)
            axes.axhline(0.0, color="0.55", linewidth=0.6, zorder=1)
            axes.axvline(0.0, color="0.55", linewidth=0.6, zorder=1)
            for order, (verdict, (colour, marker)) in enumerate(reversed(CLASSES.items())):
                here = table[table["verdict"] == verdict]
                axes.plot(
                    here["attention_diff"],
                    here[name],
                    marker,
                    color=colour,
                    markersize=3 if verdict == "inert" else 4,
                    markeredgewidth=0.9 if marker == "x" else 0.3,
                    markeredgecolor=colour if marker == "x" else "white",
                    zorder=2 + order / 10,
                )
            for _, row in named.iterrows():
                ends = [row[f"{name}_low"], row[f"{name}_high"]]
                axes.plot([row["attention_diff"]] * 2, ends, color=CLASSES[row["verdict"]][0],
                          linewidth=0.6, zorder=1.5)  # fmt: skip
            axes.set_title(title, loc="left")
            axes.set_xlabel("Attention difference, with − without")
            axes.set_yscale("symlog", linthresh=delta, linscale=0.7)
            _ticks(axes, table, delta)
        panels[0].set_ylabel("Mean normalized effect")
        for verdict, (colour, marker) in CLASSES.items():
            if count := int(counts.get(verdict, 0)):
                panels[0].plot(
                    [], [], marker, color=colour, label=f"{_SAID.get(verdict, verdict)} ({count:,})"
                )
        frame(
            figure,
            f"Looking against deciding: {len(table):,} heads, {judging(pairs, of)}",
            question=question,
            region=region,
            legend=panels,
            note=f"Effect: share of the LD difference between the runs. Grey band: ±δ = {delta:g}, "
            "the smallest effect of interest; linear inside, logarithmic beyond. Named: every "
            f"head that is shown to act, and the first of the attention ranking; bars: {level:.0%} "
            f"intervals over pairs.{_correlation(rhos or {}, level)}",
        )
        figure.draw_without_rendering()  # labels are placed once the panels have their sizes
        for axes, name in zip(panels, _PANELS, strict=True):
            _name(axes, named, name)


def judging(pairs: int, of: int | None) -> str:
    """Say how many pairs judge, and of how many."""
    if of is None or of == pairs:
        return f"means over {pairs:,} pairs"
    return f"{of:,} pairs, {pairs:,} of them judge"


def _correlation(rhos: Mapping[str, Any], level: float) -> str:
    """Say how looking and deciding go together; results of earlier versions lack it."""
    if not {"rho", "true_rho"} <= set(rhos):
        return ""
    return (
        f" Spearman's rho, over heads, of attention difference and size of effect: of the means "
        f"shown {measured_words(rhos['rho'], level)}; of the true values "
        f"{true_words(rhos['true_rho'], level)}."
    )


def _ticks(axes: "matplotlib.axes.Axes", table: "pandas.DataFrame", delta: float) -> None:
    """Mark 0, ±δ and round numbers beyond it."""
    ends = [f"{name}{end}" for name in _PANELS for end in ("", "_low", "_high")]
    size = table[list(_PANELS)].abs().max(axis=1)
    shown = table.loc[size > delta, ends].to_numpy()
    most = max(float(np.abs(shown).max()) if shown.size else 0.0, 2 * delta)
    beyond = [tick for tick in (0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0) if 2 * delta <= tick <= most]
    ticks = sorted({0.0, delta, *beyond})
    low = float(shown.min()) if shown.size else 0.0
    below = [-tick for tick in ticks if 0 < tick <= max(-low, delta)]
    axes.set_yticks([*below, *ticks], [signed(tick, 2) for tick in [*below, *ticks]])
    axes.minorticks_off()


def _named(table: "pandas.DataFrame") -> "pandas.DataFrame":
    """Return the heads that matter: those that act, the largest effect first, and that look."""
    acting = table[table["verdict"].isin(CAUSAL)]
    size = acting[list(_PANELS)].abs().max(axis=1).sort_values(ascending=False, kind="stable")
    looking = table.sort_values("attention_rank").index[:LOOKING]
    return table.loc[list(dict.fromkeys([*size.index, *looking]))]


def _name(axes: "matplotlib.axes.Axes", named: "pandas.DataFrame", name: str) -> None:
    """Write the heads' names beside their points."""
    from matplotlib.transforms import Bbox

    points = [
        (f"{row['layer']}.{row['head']}", float(row["attention_diff"]), float(row[name]))
        for row in named.to_dict("records")
    ]
    half = 2 * pixel(axes)
    middles = axes.transData.transform([(x, y) for _, x, y in points])
    taken = [Bbox([[x - half, y - half], [x + half, y + half]]) for x, y in middles]
    write_names(
        axes,
        points,
        reach=(3.5, 3.5),
        rings=_RINGS,
        panel=axes.get_window_extent(),
        taken=taken,
        led=_RINGS[2],
    )
