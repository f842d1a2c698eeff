"""How heads act together: a map of interactions a way, and the tables for a terminal."""

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from jaxtyping import Float
from rich.console import Group, RenderableType
from rich.text import Text

from headpatch.kinds import kind_label
from headpatch.present.canvas import BLUE, VERMILLION, Target, check_columns, drawing, frame, signed
from headpatch.present.tables import plain_table
from headpatch.report.effects import DIRECTIONS, in_order

if TYPE_CHECKING:
    import matplotlib.axes
    import pandas

MOST_HEADS: Final = 40
"""More heads than this do not fit a page: those with the largest interactions are shown."""
_LEAST: Final = 5e-4  # a change that three digits show
_PRINTED: Final = 16  # heads whose figures fit their cells
_COLOURS: Final = ("#08306B", BLUE, "#F7F7F7", VERMILLION, "#7F2704")
_COLUMNS: Final = ("heads", "role", "kind", "direction", "normalized", "interaction", "word")
_QUESTIONS: Final = {"noising": "necessary?", "denoising": "sufficient?"}


def combination_maps(
    table: "pandas.DataFrame",
    path: Target,
    *,
    delta: float | None = None,
    question: str = "",
    region: str = "",
) -> None:
    """Draw the interaction of every two heads, one map a kind and direction.

    All maps share one diverging colour scale, centred on 0. On the diagonal, framed, stands the
    effect of the head alone. Figures are printed where they fit: in grey where nothing is shown of
    an interaction (``undecided``).

    Parameters
    ----------
    table
        ``combinations.csv``; see ``attention_data/README.md``.
    path
        The file to write.
    delta
        Smallest effect of interest, in normalized units: marked on the scale; None marks nothing.
    question, region
        Words for the title.

    Raises
    ------
    ValueError
        If a column is missing, or there is no pair of heads.
    """
    check_columns(table, _COLUMNS, "combinations")
    two = table[table["role"] == "pair"]
    if two.empty:
        raise ValueError("combinations hold no pair of heads")
    names, left_out = _chosen(table, two)
    kinds, directions = in_order(two["kind"], {}), in_order(two["direction"], DIRECTIONS)
    maps = {
        (kind, direction): _map(table, names, kind, direction)
        for kind in kinds
        for direction in directions
    }
    finite = np.concatenate([values[np.isfinite(values)] for values, _ in maps.values()])
    most = float(np.abs(finite).max(initial=0.0)) or 1.0
    side = 3.1 if len(directions) > 1 else 4.2
    with drawing(path, 0.15 + side * len(kinds)) as figure:
        from matplotlib.colors import LinearSegmentedColormap

        colours = LinearSegmentedColormap.from_list("effect", _COLOURS, 512).with_extremes(
            bad="0.8"
        )
        panels = figure.subplots(len(kinds), len(directions), squeeze=False)
        grey = False
        for (kind, direction), (values, undecided) in maps.items():
            axes = panels[kinds.index(kind), directions.index(direction)]
            image = axes.imshow(values, cmap=colours, vmin=-most, vmax=most)
            grey |= _annotate(axes, values, undecided, most, len(directions))
            axes.set_xticks(range(len(names)), names, rotation=90)
            axes.set_yticks(range(len(names)), names)
            name = kind_label(kind, two).capitalize()
            axes.set_title(f"{name}, {direction} ({_QUESTIONS[direction]})", loc="left")
        for axes in panels[-1]:
            axes.set_xlabel("Head (layer.head)")
        for axes in panels[:, 0]:
            axes.set_ylabel("Head (layer.head)")
        bar = figure.colorbar(image, ax=panels, fraction=0.03, pad=0.01, aspect=30)
        bar.set_label("Interaction (normalized)")
        if delta is not None and delta < most:
            for end in (-delta, delta):
                bar.ax.axhline(end, color="black", linewidth=0.8)
            bar.set_label(f"Interaction (normalized); lines: ±δ = {delta:g}")
        bar.outline.set_linewidth(0.6)
        title = "What two heads do together beyond what each does alone"
        frame(
            figure,
            title + (f" ({len(names)} heads of {len(names) + left_out})" if left_out else ""),
            question=question,
            region=region,
            note="Interaction: normalized effect of changing both, less those of changing each. "
            "Framed, on the diagonal: the effect of the head alone. Noising: above 0 each stands "
            "in for the other, below 0 both are needed or in series. Denoising: above 0 both are "
            "needed, below 0 either would do or they are in series."
            + " Grey figures, in brackets: nothing is shown."
            * grey,
        )


def _chosen(table: "pandas.DataFrame", two: "pandas.DataFrame") -> tuple[list[str], int]:
    """Keep the heads with the largest interactions, in the table's order."""
    names = list(dict.fromkeys(table.loc[table["role"] == "head", "heads"].astype(str)))
    size = dict.fromkeys(names, 0.0)
    for heads, interaction in zip(two["heads"], two["interaction"], strict=True):
        for name in str(heads).split("+"):
            size[name] = max(size[name], abs(interaction) if math.isfinite(interaction) else 0.0)
    kept = set(sorted(names, key=lambda name: -size[name])[:MOST_HEADS])
    return [name for name in names if name in kept], len(names) - len(kept)


def _map(
    table: "pandas.DataFrame", names: list[str], kind: str, direction: str
) -> tuple[Float[np.ndarray, "heads heads"], Any]:
    """Return one way's interactions with effects on the diagonal, and which are undecided."""
    place = {name: index for index, name in enumerate(names)}
    values = np.full((len(names), len(names)), np.nan)
    undecided = np.zeros(values.shape, dtype=bool)
    here = table[(table["kind"] == kind) & (table["direction"] == direction)]
    for row in here.to_dict("records"):
        ends = [place[name] for name in str(row["heads"]).split("+") if name in place]
        if row["role"] == "head" and len(ends) == 1:
            values[ends[0], ends[0]] = row["normalized"]
        elif row["role"] == "pair" and len(ends) == 2:
            values[ends, ends[::-1]] = row["interaction"]
            undecided[ends, ends[::-1]] = row["word"] == "undecided"
    return values, undecided


def _annotate(
    axes: "matplotlib.axes.Axes",
    values: Float[np.ndarray, "heads heads"],
    undecided: Any,
    most: float,
    panels: int,
) -> bool:
    """Frame the diagonal, and print the figures if they fit; say whether some are grey."""
    from matplotlib.patches import Rectangle

    size = len(values)
    for index in range(size):
        axes.add_patch(Rectangle((index - 0.5, index - 0.5), 1, 1, fill=False, linewidth=0.8))
    if size > _PRINTED * 2 // panels:
        return False
    points = min(6.5, 70 / size) if panels == 1 else min(6.0, 52 / size)
    for (row, column), value in np.ndenumerate(values):
        if math.isfinite(value):
            ink, text = "white" if abs(value) > 0.6 * most else "0.1", signed(value, 2)
            if undecided[row, column]:
                ink, text = "0.85" if ink == "white" else "0.5", f"({text})"
            axes.text(column, row, text, ha="center", va="center", fontsize=points, color=ink)
    return bool((undecided & np.isfinite(values)).any())


def combination_tables(
    table: "pandas.DataFrame", largest: "pandas.DataFrame", floor: float, delta: float, level: float
) -> RenderableType:
    """Show the pairs of heads with the largest interactions, a table a way.

    Parameters
    ----------
    table, largest
        ``combinations.csv``, and the rows of it that are shown.
    floor
        Noise floor, in logits.
    delta, level
        The smallest effect of interest, and the intervals' coverage.
    """
    alone = {
        (row["heads"], row["kind"], row["direction"]): row["normalized"]
        for row in table[table["role"] == "head"].to_dict("records")
    }
    several = int(table["pairs"].max()) > 1
    parts: list[RenderableType] = []
    for (kind, direction), rows in largest.groupby(["kind", "direction"], sort=False):
        shown = [*rows.to_dict("records"), *_all(table, kind, direction)]
        parts.append(
            _table(shown, alone, kind, direction, f"{level:.0%} interval" if several else "")
        )
    words = (
        f"Means over {int(table['pairs'].max()):,} pairs of pictures, with intervals over them."
        if several
        else f"One pair of pictures: known up to rounding ({floor:.1e} logits an effect)."
    )
    parts.append(
        Text(
            "Shares of the difference between the runs. interaction = together - the sum of each "
            "alone. redundancy: either would do (noising > 0, denoising < 0); synergy: both are "
            "needed (noising < 0, denoising > 0); opposed: one carries the answer, the other works "
            f"against it; independence: shown to lie within ±{delta:g}; undecided: neither is "
            f"shown. {words}"
        )
    )
    return Group(*parts)


def _all(table: "pandas.DataFrame", kind: Any, direction: Any) -> list[dict[Any, Any]]:
    here = (table["role"] == "all") & (table["kind"] == kind) & (table["direction"] == direction)
    return list(table[here].to_dict("records"))


def _table(
    rows: list[dict[Any, Any]],
    alone: Mapping[Any, float],
    kind: Any,
    direction: Any,
    interval: str,
) -> RenderableType:
    name = kind_label(kind, rows[0])
    table = plain_table(
        "heads", "each alone", "sum", "together", "interaction", *[interval] * bool(interval), "",
        title=f"{name}, {direction} ({_QUESTIONS[direction]}): the largest interactions",
    )  # fmt: skip
    for row in rows:
        names = str(row["heads"]).split("+")
        each = [_share(alone[name, kind, direction]) for name in names]
        ends = f"{row['interaction_low']:+.3f} to {row['interaction_high']:+.3f}"
        table.add_row(
            str(row["heads"]) if len(names) == 2 else f"all {len(names)} heads",
            ", ".join(each) if len(names) == 2 else "",
            _share(row["sum"]),
            _share(row["normalized"]),
            _share(row["interaction"]),
            *[ends] * bool(interval),
            str(row["word"]),
        )
    return table


def repair_tables(
    table: "pandas.DataFrame", parts: "pandas.DataFrame", named: int = 3
) -> RenderableType:
    """Show direct and total effects, and which other parts move.

    Parameters
    ----------
    table, parts
        ``selfrepair.csv`` and ``selfrepair_parts.csv``.
    named
        Parts named for each set.
    """
    shown: list[RenderableType] = []
    for (kind, direction), rows in table.groupby(["kind", "direction"], sort=False):
        listed = plain_table(
            "heads", "direct", "norm anew", "total", "repair", "other heads", "MLPs", "norm",
            "parts that change most",
            title=f"{kind_label(str(kind), rows)}, {direction}: what the heads write themselves, "
            "and what follows from it",
        )  # fmt: skip
        for row in rows.to_dict("records"):
            names = str(row["heads"])
            same = (
                (parts["heads"] == row["heads"])
                & (parts["kind"] == kind)
                & (parts["direction"] == direction)
            )
            seen = parts["change"].abs() >= _LEAST
            most = parts[same & seen & (parts["rank"] <= named)].to_dict("records")
            listed.add_row(
                names if names.count("+") < 2 else f"all {names.count('+') + 1} heads",
                *(_share(row[name]) for name in ("direct", "renormed", "total", "repair")),
                *(_share(row[name]) for name in ("other_heads", "mlps", "norm")),
                ", ".join(f"{one['part']} {_share(one['change'])}" for one in most),
            )
        shown.append(listed)
    shown.append(
        Text(
            "Shares of the difference between the runs. direct: what the heads write, straight to "
            "the logits, all else as it was, the final norm's scale too (norm anew: that computed "
            "anew); total: what changing them does; repair = direct - total: above 0 later parts "
            "make up for it, below 0 they pass it on and add to it. total = direct + other heads "
            "+ MLPs + norm (+ biases)."
        )
    )
    return Group(*shown)


def _share(value: float) -> str:
    return "undefined" if math.isnan(value) else signed(value, 3).replace("−", "-")
