"""How heads act together: a map of interactions a way, as a figure and for the page."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from jaxtyping import Bool, Float

from headpatch.kinds import kind_label
from headpatch.present.canvas import BLUE, VERMILLION, Target, drawing, frame, signed
from headpatch.present.charts import heat, slots
from headpatch.present.section import Figure, largest, words

if TYPE_CHECKING:
    import matplotlib.axes
    import pandas

MOST_HEADS: Final = 40
"""More heads than this do not fit a figure: those with the largest interactions are shown."""
MOST_ON_PAGE: Final = 30
_PRINTED: Final = 16  # heads whose figures fit their cells
_COLOURS: Final = ("#08306B", BLUE, "#F7F7F7", VERMILLION, "#7F2704")
QUESTIONS: Final = {"noising": "necessary?", "denoising": "sufficient?"}
Square = Float[np.ndarray, "heads heads"]


@dataclass(frozen=True, eq=False)
class Map:
    """One way's interactions, with effects of heads alone on the diagonal.

    Attributes
    ----------
    rows
        Of pairs of heads.
    undecided
        Where nothing is shown.
    texts
        What is said of each cell.
    """

    names: list[str]
    rows: "pandas.DataFrame"
    values: Square
    undecided: Bool[np.ndarray, "heads heads"]
    texts: list[list[str]]

    @classmethod
    def of(cls, table: "pandas.DataFrame", names: list[str]) -> "Map":
        """Fill the map of one kind and direction."""
        place = {name: index for index, name in enumerate(names)}
        values = np.full((len(names), len(names)), np.nan)
        undecided = np.zeros(values.shape, dtype=bool)
        texts = [["" for _ in names] for _ in names]
        for row in table.to_dict("records"):
            ends = [place[name] for name in str(row["heads"]).split("+") if name in place]
            if row["role"] == "head" and len(ends) == 1:
                (at,) = ends
                values[at, at] = row["normalized"]
                texts[at][at] = f"{row['heads']} alone: {signed(row['normalized'], 4)}"
            elif row["role"] == "pair" and len(ends) == 2:
                first, second = ends
                values[ends, ends[::-1]] = row["interaction"]
                undecided[ends, ends[::-1]] = row["word"] == "undecided"
                text = f"{row['heads']}: {signed(row['interaction'], 4)} ({row['word']})"
                texts[first][second] = texts[second][first] = text
        return cls(names, table[table["role"] == "pair"], values, undecided, texts)


def maps_of(table: "pandas.DataFrame", most: int) -> tuple[dict[tuple[str, str], Map], int]:
    """Return a map a kind and direction, and how many heads are left out.

    Raises
    ------
    ValueError
        If there is no pair of heads.
    """
    two = table[table["role"] == "pair"]
    if two.empty:
        raise ValueError("combinations hold no pair of heads")
    names = list(dict.fromkeys(table.loc[table["role"] == "head", "heads"].astype(str)))
    size = dict.fromkeys(names, 0.0)
    for heads, interaction in zip(two["heads"], two["interaction"], strict=True):
        for name in str(heads).split("+"):
            size[name] = max(size[name], abs(interaction) if math.isfinite(interaction) else 0.0)
    kept = set(sorted(names, key=lambda name: -size[name])[:most])
    shown = [name for name in names if name in kept]
    ways = {
        (kind, direction): Map.of(
            table[(table["kind"] == kind) & (table["direction"] == direction)], shown
        )
        for kind in two["kind"].unique()
        for direction in QUESTIONS
        if (two["direction"] == direction).any()
    }
    return ways, len(names) - len(shown)


def draw(
    table: "pandas.DataFrame",
    delta: float | None,
    path: Target,
    question: str = "",
    region: str = "",
) -> None:
    """Draw the interaction of every two heads, one map a kind and direction.

    All maps share one diverging colour scale, centred on 0. On the diagonal, framed, stands the
    effect of the head alone. Figures are printed where they fit: in grey where nothing is shown of
    an interaction (``undecided``).

    Parameters
    ----------
    delta
        Smallest effect of interest, in normalized units: marked on the scale; None marks nothing.
    """
    ways, left_out = maps_of(table, MOST_HEADS)
    kinds, directions = (list(dict.fromkeys(way)) for way in zip(*ways, strict=True))
    finite = np.concatenate([one.values[np.isfinite(one.values)] for one in ways.values()])
    most = float(np.abs(finite).max(initial=0.0)) or 1.0
    side = 3.1 if len(directions) > 1 else 4.2
    with drawing(path, 0.15 + side * len(kinds)) as figure:
        from matplotlib.colors import LinearSegmentedColormap

        colours = LinearSegmentedColormap.from_list("effect", _COLOURS, 512).with_extremes(
            bad="0.8"
        )
        panels = figure.subplots(len(kinds), len(directions), squeeze=False)
        grey = False
        for (kind, direction), one in ways.items():
            axes = panels[kinds.index(kind), directions.index(direction)]
            image = axes.imshow(one.values, cmap=colours, vmin=-most, vmax=most)
            grey |= _annotate(axes, one.values, one.undecided, most, len(directions))
            axes.set_xticks(range(len(one.names)), one.names, rotation=90)
            axes.set_yticks(range(len(one.names)), one.names)
            axes.set_title(
                f"{kind_label(kind, table).capitalize()}, {direction} ({QUESTIONS[direction]})",
                loc="left",
            )
        for axes in panels[-1]:
            axes.set_xlabel("Head (layer.head)")
        for axes in panels[:, 0]:
            axes.set_ylabel("Head (layer.head)")
        _scale(figure.colorbar(image, ax=panels, fraction=0.03, pad=0.01, aspect=30), delta, most)
        shown = len(one.names)
        frame(
            figure,
            "What two heads do together beyond what each does alone"
            + (f" ({shown} heads of {shown + left_out})" if left_out else ""),
            question=question,
            region=region,
            note="Interaction: normalized effect of changing both, less those of changing each. "
            "Framed, on the diagonal: the effect of the head alone. Noising: above 0 each stands "
            "in for the other, below 0 both are needed or in series. Denoising: above 0 both are "
            "needed, below 0 either would do or they are in series."
            + " Grey figures, in brackets: nothing is shown."
            * grey,
        )


def _scale(bar: Any, delta: float | None, most: float) -> None:
    bar.set_label("Interaction (normalized)")
    if delta is not None and delta < most:
        for end in (-delta, delta):
            bar.ax.axhline(end, color="black", linewidth=0.8)
        bar.set_label(f"Interaction (normalized); lines: ±δ = {delta:g}")
    bar.outline.set_linewidth(0.6)


def _annotate(
    axes: "matplotlib.axes.Axes",
    values: Float[np.ndarray, "heads heads"],
    undecided: Bool[np.ndarray, "heads heads"],
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


def page_figures(table: "pandas.DataFrame") -> Mapping[str, Figure]:
    """Return the page's maps by name."""
    ways, _ = maps_of(table, MOST_ON_PAGE)
    return {
        f"combinations-{index}": _page_figure(
            one, f"{kind_label(kind, table)}, {direction} ({QUESTIONS[direction]})"
        )
        for index, ((kind, direction), one) in enumerate(ways.items())
    }


def _page_figure(one: Map, title: str) -> Figure:
    axis = slots(one.names)
    layout = {"xaxis": {**axis, "tickangle": -90}, "yaxis": {**axis, "autorange": "reversed"}}
    spoken = largest(
        one.rows,
        "interaction",
        lambda row: f"{row['heads']}, {signed(row['interaction'], 4)}, {row['word']}",
    )
    texts = [[words(text) for text in row] for row in one.texts]
    label = f"Map: interaction of every two of {len(one.names)} heads, {title}.{spoken}"
    return Figure([heat(one.values, texts)], layout, 400, label, title=title)
