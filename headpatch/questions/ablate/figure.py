"""What interventions on named heads do to the answer, beside their controls."""

from typing import TYPE_CHECKING, Final

import numpy as np

from headpatch.present.canvas import (
    GREY,
    ORANGE,
    Target,
    check_columns,
    drawing,
    frame,
    signed,
)
from headpatch.present.effects_view import DIRECTIONS, KINDS, changed_at, in_order, row_names

if TYPE_CHECKING:
    import matplotlib.axes
    import pandas

MOST_ROWS: Final = 40
"""More heads than this do not fit a page: those with the largest effects are shown."""


def head_effects(
    effects: "pandas.DataFrame", path: Target, question: str = "", region: str = ""
) -> None:
    """Draw the normalized effect of every head and joint set, by kind and direction.

    One row of panels a direction, one column a kind, values printed. Behind each effect lies the
    band of the same intervention on random heads of the same layers (mean, and one standard
    deviation either side) and, around 0, what patching heads with their own z does. A filled marker
    says that the first answer token changed. If the table holds several pairs, the marker is their
    mean and a small dot stands for each.

    Parameters
    ----------
    effects
        ``effects.csv``: ``heads``, ``kind``, ``direction``, ``normalized`` (no unit), ``role``
        (``head``, ``joint``, ``control``, ``noise floor``) and, where the table has them,
        ``positions``, ``answer_before``, ``answer_after``, ``control_mean``, ``control_sd`` (in
        the unit of ``normalized``). Without control columns the band is that of the rows with
        role ``control`` of the same kind and direction.

    Raises
    ------
    ValueError
        If a column is missing or no row has the role head or joint.
    """
    check_columns(effects, ("heads", "kind", "direction", "normalized", "role"), "effects")
    table = effects.assign(row=row_names(effects))
    subjects = table[table["role"].isin(["head", "joint"])]
    if subjects.empty:
        raise ValueError("effects hold no row with the role 'head' or 'joint'")
    rows, left_out = _choose_rows(subjects)
    kinds = in_order(subjects["kind"], KINDS)
    directions = in_order(subjects["direction"], DIRECTIONS)
    floor = _noise_floor(table)
    pitch = 0.19 if len(rows) <= 20 else 0.14
    with drawing(path, 0.5 + (0.25 + pitch * max(len(rows), 3)) * len(directions)) as figure:
        shape = (len(directions), len(kinds))
        panels = figure.subplots(*shape, sharex=True, sharey=True, squeeze=False)
        for i, direction in enumerate(directions):
            for j, kind in enumerate(kinds):
                axes = panels[i, j]
                here = table[(table["kind"] == kind) & (table["direction"] == direction)]
                _draw_references(axes, floor)
                _draw_effects(axes, here, rows, *KINDS.get(kind, (ORANGE, "D")))
            panels[i, 0].set_ylabel(DIRECTIONS.get(direction, direction))
        for axes, kind in zip(panels[0], kinds, strict=True):
            axes.set_title(kind.capitalize(), loc="left")
        _finish_axes(panels[0, 0], rows)
        for axes in panels[-1]:
            axes.set_xlabel("Normalized effect")
        frame(
            figure,
            _title(subjects, len(rows), left_out),
            question=question,
            region=region,
            legend=panels.ravel(),
            note="Normalized effect: 0 = the base run's answer, 1 = the other run's (dotted line).",
        )


def _title(subjects: "pandas.DataFrame", shown: int, left_out: int) -> str:
    title = "Effect of the intervention on the Yes/No answer" + changed_at(subjects)
    return title + (f" ({shown} largest of {shown + left_out})" if left_out else "")


def _choose_rows(subjects: "pandas.DataFrame") -> tuple[list[str], int]:
    """Order single heads as in the table, then joint sets; keep those that fit a page."""
    joint = subjects["role"].eq("joint")
    names = [*subjects.loc[~joint, "row"].unique(), *subjects.loc[joint, "row"].unique()]
    names = list(dict.fromkeys(names))
    size = subjects["normalized"].abs().groupby(subjects["row"]).max().fillna(0.0)
    kept = set(sorted(names, key=lambda name: -size[name])[:MOST_ROWS])
    return [name for name in names if name in kept], len(names) - len(kept)


def _noise_floor(table: "pandas.DataFrame") -> float:
    """Return the largest absolute normalized effect of the self-patches, NaN without any."""
    floor = table.loc[table["role"] == "noise floor", "normalized"].abs()
    return float(floor.max()) if floor.notna().any() else float("nan")


def _draw_references(axes: "matplotlib.axes.Axes", floor: float) -> None:
    for x in (0.0, 1.0):
        axes.axvline(x, color="0.55", linewidth=0.6, linestyle="-" if x == 0 else ":", zorder=1)
    if np.isfinite(floor):
        axes.axvspan(
            -floor,
            floor,
            facecolor="none",
            edgecolor="0.55",
            hatch="xxxx",
            linewidth=0,
            zorder=0.5,
            label=f"patched with own z (±{floor:.1g})",
        )


def _draw_effects(
    axes: "matplotlib.axes.Axes",
    table: "pandas.DataFrame",
    rows: list[str],
    color: str,
    marker: str,
) -> None:
    subjects = table[table["role"].isin(["head", "joint"])]
    for y, name in enumerate(rows):
        own = subjects[subjects["row"] == name]
        if own.empty:
            continue
        mean, sd = _control(own, table)
        if np.isfinite(mean):
            half = sd if np.isfinite(sd) else 0.0
            axes.barh(y, 2 * half, 0.72, left=mean - half, color="0.87", zorder=0.6,
                      label="random heads, mean ± SD")  # fmt: skip
            axes.vlines(mean, y - 0.36, y + 0.36, color=GREY, linewidth=1.0, zorder=1.5)
        each = own["normalized"].to_numpy(dtype=np.float64)
        each = each[np.isfinite(each)]
        if not len(each):
            axes.text(0.02, y, "undefined", va="center", fontsize=6, color="0.4")
            continue
        if len(each) > 1:
            axes.plot(each, np.full(len(each), y + 0.3), ".", color=color, alpha=0.4, zorder=2,
                      markersize=2.5, markeredgewidth=0, label="one pair")  # fmt: skip
        value = float(each.mean())
        face = color if _answer_changed(own) else "white"
        axes.plot(value, y, marker, markeredgecolor=color, markerfacecolor=face, zorder=3,
                  markersize=4.5)  # fmt: skip
        axes.annotate(_label(value), (value, y), (5 if value >= 0 else -5, 0), va="center",
                      ha="left" if value >= 0 else "right", textcoords="offset points",
                      fontsize=6, zorder=4)  # fmt: skip


def _control(own: "pandas.DataFrame", table: "pandas.DataFrame") -> tuple[float, float]:
    """Return mean and SD of the random heads that belong to these rows, NaN without any."""
    if {"control_mean", "control_sd"} <= set(own.columns):
        return float(own["control_mean"].mean()), float(own["control_sd"].mean())
    drawn = table.loc[table["role"] == "control", "normalized"].dropna()
    return float(drawn.mean()), float(drawn.std())


def _answer_changed(own: "pandas.DataFrame") -> bool:
    """Tell whether the answer changed, in most of the pairs."""
    if not {"answer_before", "answer_after"} <= set(own.columns):
        return False
    changed = own["answer_before"].astype(str) != own["answer_after"].astype(str)
    return bool(changed.mean() > 0.5)


def _finish_axes(axes: "matplotlib.axes.Axes", rows: list[str]) -> None:
    """Set the axes that all panels share, and explain the markers."""
    low, high = axes.get_xlim()
    low, high = min(low, -0.05), max(high, 1.0)
    room = 0.27 * (high - low)  # for the printed values
    axes.set_xlim(low - 1.3 * room, high + room)
    axes.locator_params(axis="x", nbins=5)
    axes.set_yticks(range(len(rows)), rows)
    axes.set_ylim(len(rows) - 0.4, -0.6)
    for face, label in ((GREY, "answer changed"), ("white", "answer kept")):
        axes.plot([], [], "o", markerfacecolor=face, markeredgecolor=GREY, label=label)


def _label(value: float) -> str:
    """Two digits after the point, or the order of magnitude of what would read as 0.00."""
    if value and abs(value) < 0.005:
        return f"{value:+.0e}".replace("e-0", "e-").replace("-", "−")
    return signed(value, 2)
