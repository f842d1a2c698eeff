"""How heads act together, as a chart: a map of the interactions a kind and direction."""

import math
from dataclasses import replace
from itertools import product
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from headpatch.kinds import kind_label
from headpatch.present.canvas import signed
from headpatch.present.chart import Cells, Chart, Colours, HeadMap
from headpatch.present.panel import ASKED
from headpatch.present.section import largest

if TYPE_CHECKING:
    import pandas

MOST_HEADS: Final = 40  # as many fit: those with the largest interactions are shown
_PRINTED: Final = 32  # heads of all maps side by side whose figures fit their cells
_HEAD: Final = "Head (layer.head)"
_NOTE: Final = (
    "Interaction: normalized effect of changing both, less those of changing each. "
    "Framed, on the diagonal: the effect of the head alone. Noising: above 0 each stands "
    "in for the other, below 0 both are needed or in series. Denoising: above 0 both are "
    "needed, below 0 either would do or they are in series."
)


def combinations_chart(table: "pandas.DataFrame", delta: float | None) -> Chart:
    """Show the interaction of every two heads, a map a kind and direction.

    On the diagonal, framed, stands the effect of the head alone. Figures are printed where they
    fit: in grey where nothing is shown of an interaction (``undecided``). `delta`, the smallest
    effect of interest in normalized units, is marked on the scale; None marks nothing.
    """
    two = table[table["role"] == "pair"]
    if two.empty:
        raise ValueError("combinations hold no pair of heads")
    names, left_out = _shown(table)
    directions = [way for way in ASKED if (two["direction"] == way).any()]
    panels, spoken = [], []
    for kind, direction in product(two["kind"].unique(), directions):
        rows = table[(table["kind"] == kind) & (table["direction"] == direction)]
        title = f"{kind_label(kind, table).capitalize()}, {direction} ({ASKED[direction]})"
        panels.append(_map(title, rows, names, len(directions)) if len(rows) else None)
        pairs = rows[rows["role"] == "pair"]
        spoken.append(largest(pairs, "interaction", _said).strip())
    grey = any(panel.faint.any() for panel in panels if panel and panel.faint is not None)
    chart = Chart(
        "combinations",
        "combinations.png",
        "What two heads do together beyond what each does alone"
        + (f" ({len(names)} heads of {len(names) + left_out})" if left_out else ""),
        panels,
        _NOTE + " Grey figures, in brackets: nothing is shown." * grey,
        spoken,
        columns=len(directions),
        colours=Colours("Interaction (normalized)"),
    )
    if delta is None or delta >= chart.most:
        return chart
    label = f"Interaction (normalized); lines: ±δ = {delta:g}"
    return replace(chart, colours=Colours(label, lines=(-delta, delta)))


def _shown(table: "pandas.DataFrame") -> tuple[list[str], int]:
    """Name the heads with the largest interactions, in order; say how many are left out."""
    names = list(dict.fromkeys(table.loc[table["role"] == "head", "heads"].astype(str)))
    size = dict.fromkeys(names, 0.0)
    two = table[table["role"] == "pair"]
    for heads, interaction in zip(two["heads"], two["interaction"], strict=True):
        for name in str(heads).split("+"):
            size[name] = max(size[name], abs(interaction) if math.isfinite(interaction) else 0.0)
    kept = set(sorted(names, key=lambda name: -size[name])[:MOST_HEADS])
    return [name for name in names if name in kept], len(names) - len(kept)


def _map(title: str, rows: "pandas.DataFrame", names: list[str], columns: int) -> HeadMap:
    place, count = {name: index for index, name in enumerate(names)}, len(names)
    values, undecided = np.full((count, count), np.nan), np.zeros((count, count), dtype=bool)
    hover = np.full((count, count), "", dtype=object)
    for row in rows.to_dict("records"):
        ends = [place[name] for name in str(row["heads"]).split("+") if name in place]
        if row["role"] == "head" and len(ends) == 1:
            values[ends, ends] = row["normalized"]
            hover[ends, ends] = f"{row['heads']} alone: {signed(row['normalized'], 4)}"
        elif row["role"] == "pair" and len(ends) == 2:
            values[ends, ends[::-1]] = row["interaction"]
            undecided[ends, ends[::-1]] = row["word"] == "undecided"
            hover[ends, ends[::-1]] = _said(row)
    fits = count <= _PRINTED // columns
    printed = np.vectorize(_figure, otypes=[object])(values, undecided)
    return HeadMap(
        title,
        values,
        _HEAD,
        _HEAD,
        names,
        names,
        hover.tolist(),
        [Cells(range(count), range(count), "frame")],
        printed=printed.tolist() if fits else (),
        faint=undecided & np.isfinite(values) if fits else None,
    )


def _figure(value: float, undecided: bool) -> str:
    if not math.isfinite(value):
        return ""
    return f"({signed(value, 2)})" if undecided else signed(value, 2)


def _said(row: Any) -> str:
    return f"{row['heads']}: {signed(row['interaction'], 4)} ({row['word']})"
