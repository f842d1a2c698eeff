"""What tables and figures of changed heads share: columns, words, and means with their intervals.

`headpatch ablate` and `headpatch sweep` both write ``effects.csv`` and ``effects_mean.csv``.
"""

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Final

import numpy as np
from jaxtyping import Float

from headpatch.kinds import ASKED, kind_label
from headpatch.kinds import KINDS as CHANGES
from headpatch.present.canvas import (
    GREY,
    ORANGE,
    Target,
    check_columns,
    drawing,
    frame,
)
from headpatch.present.column import Cell, Column, Row
from headpatch.present.parts import Drawn

if TYPE_CHECKING:
    import matplotlib.axes
    import pandas

KINDS: Final = {name: (CHANGES[name].color, CHANGES[name].marker) for name in ASKED}
"""Colour and marker of a kind of change."""
DIRECTIONS: Final = {
    "noising": "Noising\n(necessary?)",
    "denoising": "Denoising\n(sufficient?)",
}
MOST_ROWS: Final = 20
"""Heads or sets in a figure of means: those with the largest effects."""
_WHOLE: Final = 3
"""Heads of a set that are all named."""
COVER: Final = "Bar: {level:.0%} interval over pairs."

ALPHA: Final = Column(
    "alpha",
    "what a kind with a factor multiplies z by; there only where `scale` ran",
    form="g",
    key=True,
    optional=True,
)
CHANGED: Final = (
    Column("pair", "name of the pair of pictures", "–", "text", key=True),
    Column(
        "heads",
        "`24.17` (layer.head), `v8.3` in the vision tower, or `24.17+23.20` if changed together. "
        "Read it as text: `24.10` is not `24.1`",
        "–",
        "text",
        key=True,
    ),
    Column(
        "layer",
        "layer of the head where a row is of one head (of the tower that `heads` names); empty for "
        "sets and for controls. `layer` and `head` tell 24.1 and 24.10 apart however a table is "
        "read",
        "layer",
        "whole",
        optional=True,
        follows=True,
    ),
    Column("head", "its number in that layer", "–", "whole", optional=True, follows=True),
    Column(
        "kind",
        "what the heads' z (input of the attention output projection) becomes: `zero`; `mean` (of "
        "a reference set of pairs); `resample` (z of the other run); `scale` (alpha times itself); "
        "`self` (its own z, for the noise floor)",
        "–",
        "text",
        key=True,
    ),
    ALPHA,
    Column(
        "direction",
        "`noising`: the base is the with-run (is the head necessary?); `denoising`: the base is "
        "the without-run (is it sufficient?)",
        "–",
        "text",
        key=True,
    ),
    Column(
        "positions",
        "where z is changed: `answer`, `question`, `image` or `all`; of the vision tower `class`, "
        "`patches` or `all`; of heads of both towers both, as `answer+v:patches`",
        "–",
        "text",
        key=True,
    ),
    Column("ld_with", "LD of the untouched run with the object", "logits", form="+.3f"),
    Column("ld_without", "LD of the untouched run without it", "logits", form="+.3f"),
    Column("ld", "LD after the intervention", "logits", form="+.3f"),
    Column("effect", "`ld` − LD of the base", "logits", form="+.4f", interval=True),
    Column(
        "normalized",
        "noising: (`ld_with` − `ld`) / (`ld_with` − `ld_without`); denoising: (`ld` − "
        "`ld_without`) / (the same). 0 = nothing, 1 = the whole difference, negative = the other "
        "way; empty if the two runs' LD are equal",
        "share",
        form="+.4f",
        interval=True,
    ),
)
"""The first columns of ``effects.csv``."""
ANSWERS: Final = (
    Column("answer_before", "first token of the base's answer", "–", "text"),
    Column("answer_after", "first token of the answer after the intervention", "–", "text"),
)
ANSWER_CHANGED: Final = Column(
    "answer_changed", "pairs whose first answer token changed", "share", form=".0%"
)


def effect_cell(floor: float) -> Cell:
    """Show an effect in logits; in brackets, by its order of magnitude, if it may be rounding."""

    def cell(row: Row) -> str:
        effect = row["effect"]
        return f"{effect:+.4f}" if abs(effect) > floor else f"({effect:+.0e})"

    return cell


def interval_cell(name: str) -> Cell:
    """Show the interval of a column over pairs; nothing where there is none."""

    def cell(row: Row) -> str:
        low, high = row[f"{name}_low"], row[f"{name}_high"]
        return "" if math.isnan(low) else f"{low:+.4f} to {high:+.4f}"

    return cell


def means_words(level: float, floor: float) -> str:
    """Say what the figures of a table of mean effects are."""
    return (
        "Means over pairs. effect: shift of LD in logits; norm.: as a share of the difference "
        f"between a pair's runs (0 = nothing, 1 = all of it), with its {level:.0%} interval over "
        f"pairs. In brackets: not above the noise floor, {floor:.1e} logits."
    )


def unread_words(layers: Sequence[int], rows: int, largest: float) -> str:
    """Say what changes of vision layers did that the language model never reads."""
    named = f"Free control: vision layer {layers[0]} never reaches the language model"
    if len(layers) > 1:
        named = (
            f"Free control: vision layers {layers[0]}-{layers[-1]} never reach the language model"
        )
    moved = "exactly 0, as it must"
    if largest:
        moved = f"up to {largest:.1e} logits, where it must be 0: DO NOT TRUST THIS RUN"
    return f"{named}; over {rows:,} rows LD moves by {moved}."


def mean_effects_drawn(file: str, means: "pandas.DataFrame", level: float) -> Drawn:
    """Return the figure `mean_effects` as a part of a view."""

    def draw(target: Target, question: str, region: str) -> None:
        mean_effects(means, target, level=level, question=question, region=region)

    return Drawn("mean_effects", file, draw)


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
    check_rows(means, needed)
    table = means.assign(row=_names(means))
    names, left_out = _largest(table)
    kinds, directions = in_order(table["kind"], KINDS), in_order(table["direction"], DIRECTIONS)
    pitch = 0.19 if len(names) <= 20 else 0.15
    with drawing(path, 0.5 + (0.25 + pitch * max(len(names), 3)) * len(directions)) as figure:
        panels = figure.subplots(
            len(directions), len(kinds), sharex=True, sharey=True, squeeze=False
        )
        for row, direction in zip(panels, directions, strict=True):
            row[0].set_ylabel(DIRECTIONS.get(direction, direction))
            for axes, kind in zip(row, kinds, strict=True):
                asked = (table["kind"] == kind) & (table["direction"] == direction)
                rows = table[asked].drop_duplicates("row").set_index("row").reindex(names)
                _mean_panel(axes, rows, *KINDS.get(kind, (ORANGE, "D")))
        for axes, kind in zip(panels[0], kinds, strict=True):
            axes.set_title(kind_label(kind, table).capitalize(), loc="left")
        panels[0, 0].set_yticks(range(len(names)), names)
        panels[0, 0].set_ylim(len(names) - 0.4, -0.6)
        for axes in panels[-1]:
            axes.set_xlabel("Normalized effect")
        title = f"Mean effect on the Yes/No answer over {pairs_in(means)}{changed_at(means)}"
        frame(
            figure,
            title + (f" ({len(names)} largest of {len(names) + left_out})" if left_out else ""),
            question=question,
            region=region,
            legend=panels.ravel(),
            note="Normalized effect: 0 = the base run's answer, 1 = the other run's (dotted line). "
            + COVER.format(level=level),
        )


def _largest(table: "pandas.DataFrame") -> tuple[list[str], int]:
    """Name the rows that are drawn, and say how many are not."""
    size = table["normalized"].abs().groupby(table["row"]).max().fillna(0.0)
    names = list(dict.fromkeys(table["row"]))
    if len(names) > MOST_ROWS:
        names = list(size.sort_values(ascending=False, kind="stable").index[:MOST_ROWS])
    return names, table["row"].nunique() - len(names)


def _mean_panel(
    axes: "matplotlib.axes.Axes", rows: "pandas.DataFrame", colour: str, marker: str
) -> None:
    for x in (0.0, 1.0):
        axes.axvline(x, color="0.55", linewidth=0.6, linestyle="-" if x == 0 else ":")
    if "control_mean" in rows:
        _controls(axes, rows)
    draw_intervals(axes, rows, "normalized", colour, marker)


def in_order(values: "pandas.Series", known: Mapping[str, object]) -> list[str]:
    """List the values that there are, the `known` ones first and in their order."""
    found = list(dict.fromkeys(values.astype(str)))
    return [name for name in known if name in found] + [n for n in found if n not in known]


def row_names(effects: "pandas.DataFrame") -> "pandas.Series":
    """Name the row of the figure that each row of the table belongs to."""
    names = effects["heads"].astype(str)
    count = names.str.count(r"\+") + 1
    names = names.where(count <= 3, "joint: " + count.astype(str) + " heads")
    if "positions" in effects and effects["positions"].nunique() > 1:
        names = names + " (" + effects["positions"].astype(str) + ")"
    return names


def changed_at(effects: "pandas.DataFrame") -> str:
    """Say for a title where z was changed; the rows say it where it was at several places."""
    if "positions" not in effects:
        return ""
    places = in_order(effects["positions"], {})
    return f"; z changed at: {places[0]}" if len(places) == 1 else "; z changed as the rows say"


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


def check_rows(table: "pandas.DataFrame", columns: Sequence[str]) -> None:
    """Refuse a table of means that lacks columns, or any row."""
    check_columns(table, columns, "means")
    if table.empty:
        raise ValueError("the table holds no row")


def pairs_in(table: "pandas.DataFrame") -> str:
    """Say over how many pairs means are."""
    return f"{int(table['pairs'].max()):,} pairs" if "pairs" in table else "pairs"


def _ends(rows: "pandas.DataFrame", name: str) -> tuple[Float[np.ndarray, " rows"], ...]:
    mean, low, high = (
        rows[f"{name}{end}"].to_numpy(dtype=np.float64) for end in ("", "_low", "_high")
    )
    return mean, low, high


def draw_intervals(
    axes: "matplotlib.axes.Axes", rows: "pandas.DataFrame", name: str, colour: str, marker: str
) -> None:
    """Draw each row's mean, and its interval as a bar."""
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


def kind_cell(row: Row) -> str:
    """Name the kind of a row, with its factor where it has one."""
    return kind_label(row["kind"], row)
