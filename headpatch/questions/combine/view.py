"""What people see of heads changed together: words, tables and charts."""

import math
from collections.abc import Iterator
from dataclasses import replace
from itertools import product
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from headpatch.core.question import Context, Files, table_of
from headpatch.heads import Selection
from headpatch.kinds import kind_label, notes
from headpatch.present.canvas import signed
from headpatch.present.chart import Cells, Chart, Colours, HeadMap
from headpatch.present.column import UNDEFINED, Row
from headpatch.present.effects_view import changed_name
from headpatch.present.panel import ASKED
from headpatch.present.parts import Part, Words, grid
from headpatch.present.ratio_words import ratio_words
from headpatch.present.section import largest
from headpatch.questions.combine.columns import COMBINATIONS, PARTS, REPAIR

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


DIFFERENT: Final = "the directions differ"
_LEAST: Final = 5e-4  # a change that three digits show
_PARTS_NAMED: Final = 3
_WAY: Final = ["heads", "kind", "direction"]
_LEGEND: Final = (
    "Shares of the difference between the runs. interaction = together - the sum of each alone. "
    "One direction: redundancy (noising > 0, denoising < 0), synergy (noising < 0, denoising > 0). "
    "Only both tell what two heads are: redundancy twice, either would do; synergy twice, both are "
    "needed; one of each, a threshold or in series. opposed: one carries the answer, the other "
    "works against it; independence: shown to lie within ±{delta:g}; undecided: neither is shown. "
    "{words}"
)
_REPAIR_LEGEND: Final = (
    "Shares of the difference between the runs. direct: what the heads write, straight to the "
    "logits, all else as it was, the scale of the final normalization layer too (rescaled: with "
    "that scale computed again); total: what changing them does; repair = direct - total: above 0 "
    "later parts make up for it, below 0 they pass it on and add to it. total = direct + other "
    "heads + MLPs + final scale (what its change does) (+ biases)."
)


def view(files: Files, context: Context) -> Iterator[Part]:
    """Show the largest interactions of each way, self-repair, and what the largest one means."""
    table = table_of(files[COMBINATIONS.file])
    delta = float(context.study.get("verdict", {}).get("delta", 0.02))
    pairs = int(table["pairs"].max())
    yield Words(
        f"Every two heads changed together at: {context.options.get('positions', 'answer')}.",
        "page",
    )
    if (table["role"] == "pair").any():
        yield combinations_chart(table, delta)
    yield from _interactions(table, context, pairs)
    floor = context.noise_floor or 0.0
    words = (
        f"Means over {pairs:,} pairs of pictures, with intervals over them."
        if pairs > 1
        else f"One pair of pictures: known up to rounding ({floor:.1e} logits an effect)."
    )
    yield Words(_LEGEND.format(delta=delta, words=words))
    ends = table.rename(columns={"low": "normalized_low", "high": "normalized_high"})
    if words := ratio_words(ends.to_dict("records"), changed_name, floor):
        yield Words(words)
    if note := notes(set(table["kind"])):
        yield Words(note)
    if REPAIR.file in files:
        yield from _repairs(table_of(files[REPAIR.file]), table_of(files[PARTS.file]))
    yield Words(summary(table, context))


def _has_both(table: "pandas.DataFrame") -> bool:
    """Whether two heads are named by both directions: earlier versions did not."""
    return "both" in table and bool(table["both"].fillna("").ne("").any())


def largest_interactions(table: "pandas.DataFrame", count: int) -> "pandas.DataFrame":
    """Return, for each way, the pairs of heads with the largest interactions."""
    two = table[table["role"] == "pair"]
    size = two["interaction"].abs().sort_values(ascending=False, kind="stable")
    return two.loc[size.index].groupby(["kind", "direction"], sort=False).head(count)


def summary(table: "pandas.DataFrame", context: Context) -> str:
    """Say what the largest interaction is, and no more than is shown."""
    two = table[table["role"] == "pair"]
    group, name = ("kind", "both") if _has_both(two) else ("direction", "word")
    counts = two.drop_duplicates(["heads", "kind", group]).groupby([group, name], sort=False).size()
    listed = "; ".join(
        f"{of} " + ", ".join(f"{count} {word}" for word, count in counts[of].items())
        for of in two[group].unique()
    )
    size = two["interaction"].abs()
    words = f"{two['heads'].nunique()} pairs of heads: {listed}."
    if size.notna().any():
        heads = two["heads"].iloc[int(np.nanargmax(size.to_numpy(dtype=np.float64)))]
        words += f" {_described(table[table['heads'] == heads], str(heads))}"
    return f"{words} {_caveat(int(table['pairs'].max()), context)}"


def _described(rows: "pandas.DataFrame", heads: str) -> str:
    ways = rows.to_dict("records")
    parts = [
        f"{kind_label(row['kind'], row)} {row['direction']} {row['normalized']:+.1%} together, "
        f"{row['sum']:+.1%} alone and added up ({row['word']})"
        for row in ways
    ]
    both = f"; both directions: {name}" if (name := ways[0].get("both")) else ""
    return f"The largest interaction, {heads}: {'; '.join(parts)}{both}."


def _caveat(pairs: int, context: Context) -> str:
    words = f"Means over {pairs:,} pairs of pictures."
    if not context.valid:
        words = "The study is INVALID (its answers are not Yes and No): this says nothing."
    elif pairs == 1:
        words = "One pair of pictures shows one case, not a rule."
    heads = context.options.get("heads")
    if context.pairs is None or (heads and not Selection.parse(heads).needs_ranking):
        return words
    picked = (context.pairs + 1) // 2  # as `headpatch.core.head_selection` halves them
    return (
        f"{words} Heads were picked on {picked:,} other pairs and judged on "
        f"{context.pairs - picked:,}."
    )


def _interactions(table: "pandas.DataFrame", context: Context, pairs: int) -> Iterator[Part]:
    """Show the pairs of heads with the largest interactions, a table a way."""
    rows = largest_interactions(table, int(context.options.get("listed", 10)))
    alone = table[table["role"] == "head"].set_index(_WAY)["normalized"]
    whole = table[table["role"] == "all"]

    def each(row: Row) -> str:
        if row["role"] == "all":
            return ""
        names = str(row["heads"]).split("+")
        return ", ".join(_share(alone[name, row["kind"], row["direction"]]) for name in names)

    cells: dict[str, Any] = {
        "heads": _heads,
        "each alone": each,
        "sum": "sum",
        "together": "normalized",
        "interaction": "interaction",
        **({f"{context.level:.0%} interval": _interval} if pairs > 1 else {}),
        "this direction": "word",
    }
    if _has_both(table):
        cells["both directions"] = "both"
    for (kind, direction), of_way in rows.groupby(["kind", "direction"], sort=False):
        same = (whole["kind"] == kind) & (whole["direction"] == direction)
        shown = [*of_way.to_dict("records"), *whole[same].to_dict("records")]
        way = f"{kind_label(str(kind), of_way)}, {direction} ({ASKED[str(direction)]})"
        yield grid(f"{way}: the largest interactions", shown, cells, COMBINATIONS)


def _repairs(table: "pandas.DataFrame", parts: "pandas.DataFrame") -> Iterator[Part]:
    """Show direct and total effects, and which other parts move."""
    first = parts[(parts["change"].abs() >= _LEAST) & (parts["rank"] <= _PARTS_NAMED)]
    moved: dict[tuple[Any, ...], list[str]] = {}
    for row in first.sort_values("rank").to_dict("records"):
        key = tuple(row[name] for name in _WAY)
        moved.setdefault(key, []).append(f"{row['part']} {_share(row['change'])}")
    cells: dict[str, Any] = {
        "heads": _heads,
        "direct": "direct",
        "rescaled": "renormed",
        "total": "total",
        "repair": "repair",
        "other heads": "other_heads",
        "MLPs": "mlps",
        "final scale": "norm",
        "parts that change most": lambda row: ", ".join(
            moved.get(tuple(row[name] for name in _WAY), ())
        ),
    }
    for (kind, direction), rows in table.groupby(["kind", "direction"], sort=False):
        way = f"{kind_label(str(kind), rows)}, {direction}"
        title = f"{way}: what the heads write themselves, and what follows from it"
        yield grid(title, rows, cells, REPAIR)
    yield Words(_REPAIR_LEGEND)


def _heads(row: Row) -> str:
    count = str(row["heads"]).count("+") + 1
    return str(row["heads"]) if count <= 2 else f"all {count} heads"


def _interval(row: Row) -> str:
    return f"{row['interaction_low']:+.3f} to {row['interaction_high']:+.3f}"


def _share(value: float) -> str:
    return UNDEFINED if math.isnan(value) else signed(value, 3).replace("−", "-")
