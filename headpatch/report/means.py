"""Means over a dataset's pairs, each with its interval: effects of heads, and where they look."""

from typing import TYPE_CHECKING, Final

import numpy as np
from jaxtyping import Float

from headpatch.kinds import kind_label
from headpatch.present.canvas import DIFFERENCE, GREY, ORANGE, Target, check_columns, drawing, frame
from headpatch.report.effects import DIRECTIONS, KINDS, changed_at, in_order, row_names

if TYPE_CHECKING:
    import matplotlib.axes
    import pandas

MOST_ROWS: Final = 20
"""Heads or sets in a figure: those with the largest effects."""
_WHOLE: Final = 3
"""Heads of a set that are all named."""
_COVER: Final = "Bar: {level:.0%} interval over pairs."


def mean_effects(
    means: "pandas.DataFrame",
    path: Target,
    *,
    level: float,
    question: str = "",
    region: str = "",
) -> None:
    """Draw the mean normalized effect of heads and sets, by kind and direction.

    One row of panels a direction, one column a kind. A bar is the interval over pairs. Where the
    table has them, a grey line and band are the mean over pairs of random heads of the same layers
    and its interval.

    Parameters
    ----------
    means
        ``effects_mean.csv``: ``heads``, ``kind``, ``direction``, ``normalized``,
        ``normalized_low``, ``normalized_high`` (no unit) and perhaps ``control_mean``,
        ``control_mean_low``, ``control_mean_high``, ``positions`` and ``pairs``.
    path
        The file to write.
    level
        Coverage of the intervals, for the note.
    question, region
        Words for the title.

    Raises
    ------
    ValueError
        If a column is missing or there is no row.
    """
    needed = ("heads", "kind", "direction", "normalized", "normalized_low", "normalized_high")
    _check(means, needed)
    table = means.assign(row=_names(means))
    size = table["normalized"].abs().groupby(table["row"]).max().fillna(0.0)
    names = list(dict.fromkeys(table["row"]))
    if len(names) > MOST_ROWS:
        names = list(size.sort_values(ascending=False, kind="stable").index[:MOST_ROWS])
    left_out = table["row"].nunique() - len(names)
    kinds, directions = in_order(table["kind"], KINDS), in_order(table["direction"], DIRECTIONS)
    pitch = 0.19 if len(names) <= 20 else 0.15
    with drawing(path, 0.5 + (0.25 + pitch * max(len(names), 3)) * len(directions)) as figure:
        panels = figure.subplots(
            len(directions), len(kinds), sharex=True, sharey=True, squeeze=False
        )
        for i, direction in enumerate(directions):
            panels[i, 0].set_ylabel(DIRECTIONS.get(direction, direction))
            for j, kind in enumerate(kinds):
                axes = panels[i, j]
                here = table[(table["kind"] == kind) & (table["direction"] == direction)]
                rows = here.drop_duplicates("row").set_index("row").reindex(names)
                for x in (0.0, 1.0):
                    axes.axvline(x, color="0.55", linewidth=0.6, linestyle="-" if x == 0 else ":")
                if "control_mean" in rows:
                    _controls(axes, rows)
                colour, marker = KINDS.get(kind, (ORANGE, "D"))
                _intervals(axes, rows, "normalized", colour, marker)
        for axes, kind in zip(panels[0], kinds, strict=True):
            axes.set_title(kind_label(kind, table).capitalize(), loc="left")
        panels[0, 0].set_yticks(range(len(names)), names)
        panels[0, 0].set_ylim(len(names) - 0.4, -0.6)
        for axes in panels[-1]:
            axes.set_xlabel("Normalized effect")
        title = f"Mean effect on the Yes/No answer over {_pairs(means)}{changed_at(means)}"
        frame(
            figure,
            title + (f" ({len(names)} largest of {len(names) + left_out})" if left_out else ""),
            question=question,
            region=region,
            legend=panels.ravel(),
            note="Normalized effect: 0 = the base run's answer, 1 = the other run's (dotted line). "
            + _COVER.format(level=level),
        )


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
    _check(heads, [f"{name}{end}" for name in figures for end in ("", "_low", "_high")])
    rows = heads.sort_values("rank").head(top)
    names = [f"{layer}.{head}" for layer, head in zip(rows["layer"], rows["head"], strict=True)]
    labels = ("Share of the image attention", "Share of all attention (raw)")
    with drawing(path, 0.6 + 0.16 * max(len(rows), 3)) as figure:
        panels = figure.subplots(1, 2, sharey=True)
        for axes, name, label in zip(panels, figures, labels, strict=True):
            axes.axvline(0.0, color="0.55", linewidth=0.6)
            _intervals(axes, rows, name, DIFFERENCE, "o")
            axes.set_xlabel("With − without")
            axes.set_title(label, loc="left")
        panels[0].set_yticks(range(len(names)), names)
        panels[0].set_ylim(len(names) - 0.4, -0.6)
        panels[0].set_ylabel("Head")
        frame(
            figure,
            f"Attention to the region: mean difference over {_pairs(heads)}, top {len(rows)} heads",
            question=question,
            region=region,
            note=f"{_COVER.format(level=level)} The heads were picked by these differences, which "
            "are therefore a little too large.",
        )


def _names(means: "pandas.DataFrame") -> "pandas.Series":
    """Name each row: a whole layer as such, and long sets so that each has a name of its own."""
    names = row_names(means)
    if "role" not in means:
        return names
    heads, role = means["heads"].astype(str), means["role"]
    layers = "layer:" + heads.str.partition(".")[0]
    names = names.mask(role == "layer", layers)
    long = (role == "set") & (heads.str.count(r"\+") >= _WHOLE)
    if long.any():
        known = dict.fromkeys(heads[long])
        first = {one: "+".join(one.split("+")[: _WHOLE - 1]) for one in known}
        short = {one: f"set {number}: {first[one]}+…" for number, one in enumerate(known, start=1)}
        names = names.mask(long, heads.map(short))
    return names


def _check(table: "pandas.DataFrame", columns: "tuple[str, ...] | list[str]") -> None:
    check_columns(table, columns, "means")
    if table.empty:
        raise ValueError("the table holds no row")


def _pairs(table: "pandas.DataFrame") -> str:
    if "pairs" not in table:
        return "pairs"
    count = int(table["pairs"].max())
    return f"{count:,} pairs"


def _ends(rows: "pandas.DataFrame", name: str) -> tuple[Float[np.ndarray, " rows"], ...]:
    mean, low, high = (
        rows[f"{name}{end}"].to_numpy(dtype=np.float64) for end in ("", "_low", "_high")
    )
    return mean, low, high


def _intervals(
    axes: "matplotlib.axes.Axes", rows: "pandas.DataFrame", name: str, colour: str, marker: str
) -> None:
    mean, low, high = _ends(rows, name)
    for y in np.flatnonzero(np.isfinite(mean)):
        axes.hlines(y, low[y], high[y], color=colour, linewidth=1.4, zorder=3)
    axes.plot(mean, np.arange(len(mean)), marker, color=colour, markersize=4, zorder=4)


def _controls(axes: "matplotlib.axes.Axes", rows: "pandas.DataFrame") -> None:
    mean, low, high = _ends(rows, "control_mean")
    for y in np.flatnonzero(np.isfinite(mean)):
        axes.barh(y, high[y] - low[y], 0.72, left=low[y], color="0.87", zorder=0.6)
        axes.vlines(mean[y], y - 0.36, y + 0.36, color=GREY, linewidth=1.0, zorder=1.5,
                    label="random heads of the same layers")  # fmt: skip
