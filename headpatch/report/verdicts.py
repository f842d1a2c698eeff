"""Looking against deciding: every head's attention difference and causal effect, by verdict."""

from typing import TYPE_CHECKING, Final

import numpy as np

from headpatch.report.canvas import BLUE, GREEN, ORANGE, VERMILLION, Target, drawing, frame, signed

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
LABELLED: Final = 14
"""Heads named in each panel at most: the largest effects, and those that attention picks first."""
LOOKING: Final = 4
"""Of these, heads that attention picks first."""
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
    question, region
        Words for the title.

    Raises
    ------
    ValueError
        If a column is missing or there is no row.
    """
    needed = {"layer", "head", "verdict", "attention_diff", "attention_rank"}
    needed |= {f"{name}{end}" for name in _PANELS for end in ("", "_low", "_high")}
    if missing := needed - set(verdicts.columns):
        raise ValueError(f"verdicts lack the columns {', '.join(sorted(missing))}")
    if verdicts.empty:
        raise ValueError("verdicts hold no head")
    table = verdicts[verdicts["attention_diff"].notna()]
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
            axes.set_title(title, loc="left")
            axes.set_xlabel("Attention difference, with − without")
            axes.set_yscale("symlog", linthresh=delta, linscale=0.7)
            _ticks(axes, table, delta)
        panels[0].set_ylabel("Mean normalized effect")
        for verdict, (colour, marker) in CLASSES.items():
            if count := int(counts.get(verdict, 0)):
                panels[0].plot([], [], marker, color=colour, label=f"{verdict} ({count:,})")
        frame(
            figure,
            f"Looking against deciding: {len(table):,} heads, means over {pairs:,} pairs",
            question=question,
            region=region,
            legend=panels,
            note=f"Effect: share of the LD difference between the runs. Grey band: ±δ = {delta:g}, "
            "the smallest effect of interest; linear inside, logarithmic beyond. Named: the "
            f"largest effects and the first of the attention ranking; bars: {level:.0%} bootstrap "
            "intervals over pairs.",
        )
        figure.draw_without_rendering()  # labels are placed once the panels have their sizes
        for axes, name in zip(panels, _PANELS, strict=True):
            _name(axes, table, name, delta)


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


def _name(axes: "matplotlib.axes.Axes", table: "pandas.DataFrame", name: str, delta: float) -> None:
    """Write names beside the points that matter, where they hide no other name."""
    from matplotlib.patheffects import withStroke
    from matplotlib.transforms import Bbox

    size = table[list(_PANELS)].abs().max(axis=1).sort_values(ascending=False, kind="stable")
    size = size[size > delta]
    looking = table.sort_values("attention_rank")
    chosen = [*size.index[: LABELLED - LOOKING], *looking.index[:LOOKING]]
    points = {index: table.loc[index] for index in dict.fromkeys(chosen)}
    pixel = axes.get_figure().dpi / 72  # type: ignore[union-attr]  # of a point
    halo = [withStroke(linewidth=1.4, foreground="white")]
    panel = axes.get_window_extent()
    taken = []
    for row in points.values():
        x, y = axes.transData.transform((row["attention_diff"], row[name]))
        taken.append(Bbox([[x - 2 * pixel, y - 2 * pixel], [x + 2 * pixel, y + 2 * pixel]]))
        colour = CLASSES[row["verdict"]][0]
        axes.plot([row["attention_diff"]] * 2, [row[f"{name}_low"], row[f"{name}_high"]],
                  color=colour, linewidth=0.6, zorder=1.5)  # fmt: skip
    for row in points.values():
        text = axes.annotate(
            f"{row['layer']}.{row['head']}",
            (row["attention_diff"], row[name]),
            (0, 0),
            textcoords="offset points",
            fontsize=5.5,
            path_effects=halo,
            zorder=5,
            annotation_clip=False,
        )
        text.set_in_layout(False)
        for far, across, up in _PLACES:
            text.set_position((across * far, up * far))
            text.set_horizontalalignment(("right", "center", "left")[across + 1])
            text.set_verticalalignment(("top", "center", "bottom")[up + 1])
            box = text.get_window_extent()
            inside = panel.contains(box.x0, box.y0) and panel.contains(box.x1, box.y1)
            if inside and not any(box.overlaps(other) for other in taken):
                taken.append(box)
                break
        else:
            text.remove()


_SIDES: Final = ((1, 0), (-1, 0), (0, 1), (0, -1), (1, 1), (-1, 1), (1, -1), (-1, -1))
_PLACES: Final = tuple((far, *side) for far in (3.5, 7.0, 11.0) for side in _SIDES)
