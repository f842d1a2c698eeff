"""What people see of cut edges: a sentence, tables, a chart over depth or head by head."""

from collections.abc import Iterator, Mapping
from math import isnan
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from headpatch.core.question import Context, Files, table_of
from headpatch.present.chart import Chart
from headpatch.present.column import Row, Schema
from headpatch.present.effects_view import answer_cell, control_cell, effect_cell, interval_cell
from headpatch.present.panel import Panel, Series, beside
from headpatch.present.parts import Part, Words, arrow, grid
from headpatch.present.ratio_words import ratio_words
from headpatch.questions.cut.columns import CUTS, MEANS

if TYPE_CHECKING:
    import pandas

_NAMED: Final = ("window", "layers", "head", "joint")
_RUNS: Final = ("with", "without")
_MOST_PLACES: Final = 40
"""More heads than this do not fit a page: those with the largest effects are shown."""
_CONTROLS: Final = (
    "the same cut with as many random image tokens in the region's place, mean ± SD, in the "
    "edge's colour."
)
_LEGEND: Final = (
    "normalized: effect as a share of the difference between the runs, towards the other run's LD "
    "(0 = nothing, 1 = all of it, negative = away from it). random tokens: the same with as many "
    "random image tokens in the region's place, mean{sd}. `question` is every token after the "
    "image, the answer position included. Effects below the noise floor ({floor:.1e} logits) are "
    "in brackets."
)


def view(files: Files, context: Context) -> Iterator[Part]:
    """Show the effect of every cut by edge and run, and the largest of each in full."""
    schema = MEANS if MEANS.file in files else CUTS
    table = table_of(files[schema.file])
    table = table[table["role"].isin(_NAMED)].reset_index(drop=True)
    floor = context.noise_floor or 0.0
    ld = ""
    if schema is CUTS:
        first = table.iloc[0]
        ld = f"; LD with {first['ld_with']:+.3f}, without {first['ld_without']:+.3f}"
    yield Words(
        f"Cutting attention from → to: effect on LD = logit(Yes) - logit(No){ld}", strong=True
    )
    windows = bool(table["role"].eq("window").all())
    shown = table
    if windows:
        for run in dict.fromkeys(table["run"]):
            yield _over_depth(table[table["run"] == run], run, floor)
        size = table["effect"].abs().dropna()
        shown = table.loc[size.groupby([table["edge"], table["run"]], sort=False).idxmax()]
    yield _in_full(shown, schema, context, windows)
    if (sinks := context.facts.get("sinks")) is not None:
        yield Words(_sink_words(sinks, context.pairs is not None))
    yield Words(_LEGEND.format(sd=" ± sd" if schema is CUTS else " over pairs", floor=floor))
    if schema is MEANS and (words := ratio_words(shown.to_dict("records"), _name, floor)):
        yield Words(words)
    yield Words(summary(table, context))
    yield _chart(table, context, windows)


def summary(table: "pandas.DataFrame", context: Context) -> str:
    """Say what the largest effect on the with-run was; of one pair, or means over pairs."""
    named = table[table["run"] == "with"]
    row = max(named.to_dict("records"), key=lambda row: abs(row["effect"]))
    if abs(row["effect"]) <= (context.noise_floor or 0.0):
        return (
            "No cut moves LD of the with-run beyond the noise floor "
            f"({context.noise_floor:.1e}). {context.caveat}"
        ).strip()
    heads = row["heads"] if row["heads"].count("+") < 3 else "all named heads"
    where = f"in layers {row['layers']}" if row["layers"] else f"of {heads}"
    chosen = f", the largest of {len(named)} cuts tried," if len(named) > 1 else ""
    caveat = context.caveat
    if context.pairs is not None and chosen:
        caveat = f"{caveat} The largest of many cuts is partly lucky.".strip()
    return (
        f"Cutting {arrow(row['edge'])} {where}{chosen} moves LD of the with-run "
        f"by {row['effect']:+.3f} logits{_share(row, context)}; {_answer(row, context)}. {caveat}"
    ).strip()


def _sink_words(sinks: Mapping[str, Any], many: bool) -> str:
    """Say which tokens sinks are, and how many."""
    at = ", ".join(map(str, sinks["dimensions"]))
    counts = [f"{sinks[run]:.1f}" if many else f"{sinks[run]:.0f}" for run in _RUNS]
    per = " a pair on average" if many else ""
    return (
        f"sinks: image tokens whose stream, entering a layer from the third on, is more than "
        f"{sinks['tau']:g} times its root mean square at dimension {at}: {counts[0]} with the "
        f"object, {counts[1]} without it{per}. Their random tokens are image tokens that are none."
    )


def _name(row: Row) -> str:
    """Name a cut in a sentence."""
    where = f"layers {row['layers']}" if row["layers"] else row["heads"]
    return f"{arrow(row['edge'])} ({where}, run {row['run']})"


def _share(row: Mapping[Any, Any], context: Context) -> str:
    if isnan(row["normalized"]):
        return ""
    words = f" ({row['normalized']:+.1%} of the difference between the runs"
    if context.pairs is not None:
        low, high = row["normalized_low"], row["normalized_high"]
        interval = f", {context.level:.0%} interval {low:+.1%} to {high:+.1%}"
        words += f", mean over {row['pairs']:,} pairs{'' if isnan(low) else interval}"
    elif row["control_n"] > 1:
        mean, sd = row["control_mean"], row["control_sd"]
        words += f"; as many other image tokens instead: {mean:+.1%} ± {sd:.1%}"
    return words + ")"


def _answer(row: Mapping[Any, Any], context: Context) -> str:
    if context.pairs is not None:
        return f"the answer changes in {row['answer_changed']:.0%} of the pairs"
    changed = row["answer_before"] != row["answer_after"]
    return f"the answer {'becomes' if changed else 'stays'} {row['answer_after']!r}"


def _over_depth(rows: "pandas.DataFrame", run: str, floor: float) -> Part:
    """Show effects by window of layers, a column an edge."""
    by_window = [
        {"layers": layers, **dict(zip(of_one["edge"], of_one["effect"], strict=True))}
        for layers, of_one in rows.groupby("layers", sort=False)
    ]
    cells: dict[str, Any] = {"layers": "layers"}
    cells |= {arrow(edge): effect_cell(floor, edge) for edge in dict.fromkeys(rows["edge"])}
    title = f"Run {run} the object: effect by window of layers (logits)"
    return grid(title, by_window, cells, CUTS, place="terminal")


def _in_full(shown: "pandas.DataFrame", schema: Schema, context: Context, largest: bool) -> Part:
    layers = bool(shown["layers"].astype(bool).all())
    cells: dict[str, Any] = {
        "from → to": lambda row: arrow(row["edge"]),
        "run": "run",
        "layers" if layers else "heads": "layers" if layers else _heads,
    }
    one = schema is CUTS
    cells |= {"LD": "ld"} if one else {}
    cells |= {"effect": effect_cell(context.noise_floor or 0.0), "normalized": "normalized"}
    cells |= {} if one else {f"{context.level:.0%} interval": interval_cell("normalized")}
    cells["random tokens"] = control_cell
    cells |= {"answer": answer_cell} if one else {"answer changed": "answer_changed"}
    title = "The window with the largest effect of each edge" if largest else "Every cut"
    return grid(title, shown, cells, schema)


def _heads(row: Row) -> str:
    heads = str(row["heads"])
    return f"joint: {heads.count('+') + 1} heads" if heads.count("+") > 2 else heads


def _chart(table: "pandas.DataFrame", context: Context, windows: bool) -> Chart:
    """Draw the normalized effect of every cut, a line an edge, a panel a run."""
    table = table.assign(place=_place_names(table))
    names, left_out = ([], 0) if windows else _largest_places(table)
    edges = list(dict.fromkeys(table["edge"]))
    layers = int(table["centre"].max()) + 1 if windows else None
    by_layers = bool(table["role"].eq("layers").all())
    x_label = "Language-model layer on which the window is centred"
    if not windows:
        x_label = "Layers cut" if by_layers else "Heads cut (layer.head)"
    panels, spoken = [], []
    for run in (run for run in _RUNS if (table["run"] == run).any()):
        rows = table[table["run"] == run]
        series = [
            _series(rows[rows["edge"] == edge], arrow(edge), index, names, len(edges))
            for index, edge in enumerate(edges)
        ]
        panels.append(
            Panel(f"Run {run} the object", series, x_label, "Normalized effect", names, layers,
                  _logits_per_share(rows, run), "Effect on LD (logits)")
        )  # fmt: skip
        spoken.append(_spoken(rows))
    return Chart("cuts", "cuts.png", _title(table, windows, left_out, len(names)), panels,
                 _note(table, context, windows), spoken)  # fmt: skip


def _series(
    rows: "pandas.DataFrame", name: str, index: int, names: list[str], edges: int
) -> Series:
    def values(column: str) -> Any:
        return rows[column].to_numpy(dtype=np.float64)

    x = values("centre")
    if names:  # edges side by side at each place; NaN for a place that is left out
        at = {head: place + beside(index, edges) for place, head in enumerate(names)}
        x = np.array([at.get(head, np.nan) for head in rows["place"]])
    ends: dict[str, Any] = {}
    if "normalized_low" in rows:
        ends = {"low": values("normalized_low"), "high": values("normalized_high")}
    if "control_sd" in rows:
        mean, sd = values("control_mean"), np.nan_to_num(values("control_sd"))
        ends |= {"null_low": mean - sd, "null_high": mean + sd}
    return Series(name, x, values("normalized"), look=index, **ends)


def _place_names(table: "pandas.DataFrame") -> Any:
    """Name where edges are cut: the layers, or the heads, a large set by its size."""
    count = table["heads"].astype(str).str.count(r"\+") + 1
    heads = table["heads"].where(count <= 2, "joint: " + count.astype(str))
    layers = table["layers"].where(table["layers"] != "")
    return heads.where(layers.isna(), layers)


def _largest_places(table: "pandas.DataFrame") -> tuple[list[str], int]:
    """Keep the places with the largest effects, in the table's order."""
    names = list(dict.fromkeys(table["place"]))
    size = table["effect"].abs().groupby(table["place"]).max()
    kept = set(sorted(names, key=lambda name: -size[name])[:_MOST_PLACES])
    return [name for name in names if name in kept], len(names) - len(kept)


def _logits_per_share(rows: "pandas.DataFrame", run: str) -> float:
    """Logits that a share of 1 is: LD falls in the with-run as normalized rises; 0: not known."""
    if "ld_with" not in rows:
        return 0.0
    gap = float((rows["ld_with"] - rows["ld_without"]).mean())
    return -gap if run == "with" else gap


def _note(table: "pandas.DataFrame", context: Context, windows: bool) -> str:
    note = (
        "Normalized effect: shift of LD towards the other run's, as a share of the difference "
        "between the runs (0 = nothing, 1 = the other run's LD, negative = away from it)."
    )
    if windows:
        note += " Windows are clipped at the first and the last layer."
    if context.pairs is not None:
        return f"{note} Means over {context.pairs:,} pairs with {context.level:.0%} intervals."
    if table["control_mean"].notna().any():
        note += f" {'Bands' if windows else 'Bars'}: {_CONTROLS}"
    return note


def _title(table: "pandas.DataFrame", windows: bool, left_out: int, shown: int) -> str:
    title = "Effect of cutting attention edges on the Yes/No answer"
    if windows:
        ends = table["layers"].astype(str).str.split("-")
        widest = int(ends.map(lambda span: int(span[-1]) - int(span[0])).max()) + 1
        title += f"; all heads of {widest} consecutive layers"
    return title + (f" ({shown} largest of {shown + left_out})" if left_out else "")


def _spoken(rows: "pandas.DataFrame") -> str:
    size = rows["normalized"].abs()
    if not np.isfinite(size).any():
        return ""
    row = rows.iloc[int(np.nanargmax(size))]
    return f"Largest: {arrow(row['edge'])} at {row['place']}, {row['normalized']:+.3f}"
