"""What people see of answers with heads changed: words, a table and a chart."""

from collections.abc import Iterator, Mapping
from math import isfinite, isnan
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from headpatch.core.question import Context, Files, table_of
from headpatch.heads import Selection
from headpatch.kinds import KINDS, REWEIGHTED, kind_label
from headpatch.present.chart import Chart
from headpatch.present.column import Cell, Row
from headpatch.present.effects_view import ends_of, kind_cell
from headpatch.present.panel import LOOKS, Guide, Panel, Scale, Series
from headpatch.present.parts import Part, Words, grid
from headpatch.questions.evaluate.columns import EVALUATION, REFUSED

if TYPE_CHECKING:
    import pandas

FILE: Final = "behaviour.png"
MOST: Final = 20  # sets in the chart: the first ones
TOLD: Final = 6  # sentences: one a set and kind
_SHOWN: Final = ("accuracy", "score", "paired_accuracy", "group_accuracy", "yes_rate", "f1",
                 "chair_i", "chair_s")  # fmt: skip
"""Metrics that a chart shows, as far as there are any."""
_SCORINGS: Final = {
    "word": "by the likeliest first token of all",
    "choice": "by the likeliest of the row's choices",
    "exact": "texts that are the answer",
    "contains": "texts that hold the answer's words",
    "pope": "texts as POPE reads them",
    "chair": "objects that texts name",
}
Rows = Mapping[Any, Any]


def view(files: Files, context: Context) -> Iterator[Part]:
    """Show what became of every metric, beside random heads of the same layers."""
    table = table_of(files[EVALUATION.file])
    facts = context.facts
    yield Words(_asked(context), strong=True)
    yield Words(_asked(context), "page")
    yield from map(Words, _sentences(table, context))
    if (picked := Selection.parse(context.options.get("heads", "top:1"))).needs_ranking:
        own = context.options.get("verdict") is None and context.options.get("ranking") is None
        if own:
            yield Words(f"{picked}: these heads were picked by attention on the same pictures.")
    yield Words(_legend(context), "terminal")
    cells: dict[str, str | Cell] = {
        "set": "set",
        "kind": kind_cell,
        "metric": _metric,
        "untouched": "base",
        "changed": "value",
        "difference": lambda row: _points(row["difference"]),
        f"{context.level:.0%} interval": _interval,
        "lost, gained": _turned,
        "p": lambda row: _small(row["p"]),
        "q": lambda row: _small(row["q"]),
        "random heads": _controls,
        "place p": lambda row: _small(row["control_p"]),
    }
    for scoring, part in table.groupby("scoring", sort=False):
        title = f"{scoring}: {_SCORINGS.get(str(scoring), 'your scores')}"
        yield grid(title, part, cells, EVALUATION)
    if REFUSED.file in files:
        refused = table_of(files[REFUSED.file])
        reasons = {"row": "row", "line": "line", "reason": "reason"}
        yield grid("Rows that could not be asked", refused, reasons, REFUSED, wrapped="reason")
    if facts.get("rows"):
        yield behaviour_chart(table, context)


def summary(table: "pandas.DataFrame", context: Context) -> str:
    """Say what became of the first metric, for each set and kind."""
    return " ".join(_sentences(table, context))


def _sentences(table: "pandas.DataFrame", context: Context) -> Iterator[str]:
    """Say what became of the first sets; of the others how many there are."""
    first = _headlines(table)
    for row in first[:TOLD].to_dict("records"):
        yield sentence(row, context)
    if len(first) > TOLD:
        yield f"{len(first) - TOLD:,} further changes stand in the table."


def _headlines(table: "pandas.DataFrame") -> "pandas.DataFrame":
    """Return the rows of the first scoring's first metric, of all rows of the dataset."""
    whole = table[table["subset"].fillna("") == ""]
    first = whole.iloc[0]
    own = (whole["scoring"] == first["scoring"]) & (whole["metric"] == first["metric"])
    found: pandas.DataFrame = whole.loc[own]
    return found


def sentence(row: Rows, context: Context) -> str:
    """Say of one set and metric: size, interval, counts, tests, place among random sets."""
    options, kind = context.options, str(row["kind"])
    toward = f" to the {row['toward']}" if kind in REWEIGHTED else ""
    factor = f"{toward} by {row['alpha']:g}" if KINDS[kind].alpha else ""
    where = str(options.get("positions", "answer"))
    if options.get("generate") and options.get("through") == "text":
        where += " and every generated token"
    name = str(row["metric"]).replace("_", " ")
    low, high = row["difference_low"], row["difference_high"]
    over = f" [{_points(low)} to {_points(high)}]" if isfinite(low) else " (no interval)"
    words = (
        f"{KINDS[kind].doing} {row['set']}{factor} ({where}): {name} {_share(row['base'])} → "
        f"{_share(row['value'])} of {row['rows']:,}, {_points(row['difference'])} points{over}"
    )
    if not isnan(row["lost"]):
        tested = f"p = {row['p']:.2g}" + ("" if isnan(row["q"]) else f", q = {row['q']:.2g}")
        words += (
            f"; right answers lost {row['lost']:.0f}, gained {row['gained']:.0f} (McNemar's exact "
            f"test by scene, {tested})"
        )
    if isfinite(row["control_mean"]):
        sd = "" if isnan(row["control_sd"]) else f" ± {100 * row['control_sd']:.1f}"
        least = 2 / (row["control_n"] + 1)
        words += (
            f"; random heads of the same layers {_points(row['control_mean'])}{sd} points "
            f"({row['control_n']:.0f} sets; place p = {row['control_p']:.2g}, never below "
            f"{least:.2g})"
        )
    return f"{words}."


def _asked(context: Context) -> str:
    facts = context.facts
    scenes = (
        "" if facts.get("scenes") == facts.get("rows") else f" of {facts.get('scenes'):,} scenes"
    )
    refused = f"; {facts['refused']:,} could not be asked" if facts.get("refused") else ""
    scored = _SCORINGS.get(str(facts.get("scored")), f"by {facts.get('scored')}")
    return f"{facts.get('rows', 0):,} rows{scenes} asked{refused}; right and wrong {scored}."


def _legend(context: Context) -> str:
    return (
        "untouched, changed: the metric with nothing changed and with the heads changed; "
        f"difference in points of a hundred, with its {context.level:.0%} interval over scenes. "
        "lost, gained: rows (or groups) that turn wrong, and right; p: McNemar's exact test by "
        "scene, q: corrected over sets and kinds (Benjamini-Hochberg). random heads: mean "
        "difference ± sd of as many heads of the same layers; place p: rank of the difference "
        "among them."
    )


def _metric(row: Row) -> str:
    by = row.get("subset")
    return str(row["metric"]) + (f" ({by})" if isinstance(by, str) and by else "")


def _interval(row: Row) -> str:
    low, high = row["difference_low"], row["difference_high"]
    return "" if isnan(low) else f"{_points(low)} to {_points(high)}"


def _turned(row: Row) -> str:
    return "" if isnan(row["lost"]) else f"{row['lost']:.0f}, {row['gained']:.0f}"


def _controls(row: Row) -> str:
    if isnan(row["control_mean"]):
        return "none"
    sd = "" if isnan(row["control_sd"]) else f" ± {100 * row['control_sd']:.1f}"
    return f"{_points(row['control_mean'])}{sd}"


def _small(value: float) -> str:
    return "" if isnan(value) else f"{value:.2g}"


def _points(value: float) -> str:
    if isnan(value):
        return "undefined"
    text = f"{100 * value:+.1f}".replace("-", "−")
    return "0.0" if not text.strip("+−0.") else text


def _share(value: float) -> str:
    return "undefined" if isnan(value) else f"{value:.1%}"


def behaviour_chart(table: "pandas.DataFrame", context: Context) -> Chart:
    """Show the difference of the main metrics for each set, beside random heads, by scoring."""
    whole = table[table["subset"].fillna("") == ""]
    keys = [name for name in ("heads", "kind", "alpha") if name in whole]
    names = [f"{row['set']} ({kind_label(row['kind'], row)})"
             for row in whole.drop_duplicates(keys).to_dict("records")]  # fmt: skip
    panels, scale = [], _common_scale(whole)
    for scoring, part in whole.groupby("scoring", sort=False):
        metrics = [name for name in _SHOWN if name in set(part["metric"])]
        series = [
            _series(part[part["metric"] == name], name, place, len(metrics))
            for place, name in enumerate(metrics)
        ]
        title = f"{scoring}: {_SCORINGS.get(str(scoring), 'your scores')}"
        panels.append(
            Panel(
                title,
                series,
                "Changed − untouched (share)",
                "Heads",
                names[:MOST],
                across=True,
                guides=(Guide("x", 0.0),),
                x_scale=scale,
            )
        )
    rows = f"{context.facts.get('rows', 0):,} rows"
    note = f"Bar: {context.level:.0%} interval over scenes; grey: random heads, mean ± SD."
    return Chart(
        "behaviour", FILE, f"What changing heads does to the answers of {rows}", panels, note,
        [_spoken(panel) for panel in panels], columns=max(len(panels), 1),
    )  # fmt: skip


def _common_scale(table: "pandas.DataFrame") -> Scale:
    """One axis for all that is compared; no rounding error fills it."""
    ends = [table[f"difference{end}"].to_numpy(np.float64) for end in ("", "_low", "_high")]
    mean, sd = (table[f"control_{end}"].to_numpy(np.float64) for end in ("mean", "sd"))
    sizes = np.abs(np.concatenate([*ends, mean - sd, mean + sd]))
    reach = max(0.05, 1.1 * float(np.nan_to_num(sizes).max(initial=0.0)))
    return Scale(low=-reach, high=reach)


def _series(rows: "pandas.DataFrame", name: str, place: int, count: int) -> Series:
    rows = rows.iloc[:MOST]
    middle, low, high = ends_of(rows, "difference")
    mean, sd = (rows[f"control_{end}"].to_numpy(np.float64) for end in ("mean", "sd"))
    at = np.arange(len(rows)) + (place - (count - 1) / 2) * 0.6 / count
    half = np.nan_to_num(sd)
    return Series(
        name.replace("_", " "), at, middle, low, high, mean - half, mean + half,
        LOOKS[place % len(LOOKS)], mean, "random heads",
    )  # fmt: skip


def _spoken(panel: Panel) -> str:
    """Name the largest difference of a panel's first metric."""
    if not panel.series or not np.isfinite(panel.series[0].y).any():
        return ""
    sizes = np.nan_to_num(np.abs(panel.series[0].y))
    largest = int(sizes.argmax())
    value = float(panel.series[0].y[largest])
    return f"Largest of {panel.series[0].name}: {panel.names[largest]}, {_points(value)} points"
