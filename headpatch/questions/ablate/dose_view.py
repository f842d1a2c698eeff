"""What people see of several doses: a table, sentences, and the curve."""

from collections.abc import Iterator
from math import isnan
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from headpatch.core.question import Context
from headpatch.heads import abridged
from headpatch.kinds import KINDS
from headpatch.present.chart import Chart
from headpatch.present.column import Cell, Schema
from headpatch.present.effects_view import ends_of, interval_cell, row_names
from headpatch.present.panel import LOOKS, Guide, Panel, Series
from headpatch.present.parts import Part, Words, grid
from headpatch.questions.ablate.columns import DOSES, DOSES_MEAN

if TYPE_CHECKING:
    import pandas

_SAID: Final = 4  # rows of which there is a sentence: those with the largest slopes
_LEGEND: Final = (
    "slope: share of the difference between the runs for one unit of alpha, by a line through the "
    "alpha that changes nothing; straight: how much of the curve such a line is (1: all of it)."
)
_TESTS: Final = (
    " Trend: Page's test over scenes, two-sided. Turns: one step of the mean curve is shown to "
    "rise and another to fall, so that no monotonic curve fits. q by Benjamini-Hochberg over these "
    "rows."
)


def dosed(table: "pandas.DataFrame") -> list[str]:
    """Return the kinds of a table that ran at several doses."""
    if "alpha" not in table:
        return []
    counts = table.groupby("kind")["alpha"].nunique()
    return [str(kind) for kind, count in counts.items() if count > 1]


def dose_parts(
    doses: "pandas.DataFrame", named: "pandas.DataFrame", context: Context
) -> Iterator[Part]:
    """Show what each set does as the dose grows; `named` are the rows of single doses."""
    many = context.pairs is not None
    schema: Schema = DOSES_MEAN if many else DOSES
    cells: dict[str, str | Cell] = {
        "heads": lambda row: abridged(str(row["heads"])).replace("+", " + "),
        "kind": "kind",
        "direction": "direction",
        "slope": "slope",
    }
    if many:
        cells[f"{context.level:.0%} interval"] = interval_cell("slope")
    cells |= {"straight": "straightness", "Spearman": "spearman"}
    if many:
        cells |= {"trend q": "trend_q", "turn q": "turn_q", "shape": "shape"}
    yield grid("Dose and response", doses, cells, schema)
    largest = doses["slope"].abs().sort_values(ascending=False, kind="stable").index[:_SAID]
    said = [_sentence(row, context) for row in doses.loc[largest].to_dict("records")]
    yield Words(" ".join(said))
    yield Words(_LEGEND + _TESTS * many)
    yield _chart(named, context)


def _sentence(row: dict[Any, Any], context: Context) -> str:
    """Say of one row how its effect goes with the dose, with its size."""
    what = f"{abridged(row['heads'])} ({row['kind']}, {row['direction']})"
    if isnan(row["slope"]):
        return f"{what}: the runs have the same LD, so that no share is defined."
    size = f"{row['slope']:+.1%} of the difference for one unit of alpha"
    if context.pairs is None:
        return f"{what}: {size}, Spearman's rho {row['spearman']:+.2f}; of one pair, no test."
    low, high = row.get("slope_low", np.nan), row.get("slope_high", np.nan)
    if not isnan(low):
        size += f" [{low:+.1%} to {high:+.1%}]"
    trend, turn = f"trend q = {row['trend_q']:.2g}", f"turn q = {row['turn_q']:.2g}"
    words = {
        "rises": f"the effect rises with alpha ({trend}), {size}; no turn is shown ({turn}).",
        "falls": f"the effect falls with alpha ({trend}), {size}; no turn is shown ({turn}).",
        "turns": f"the curve is not monotonic ({turn}): read it, not its slope ({size}).",
        "undecided": f"neither a trend ({trend}) nor a turn ({turn}) is shown; {size}.",
    }
    return f"{what}: {words[row['shape']]}"


def _chart(named: "pandas.DataFrame", context: Context) -> Chart:
    """Draw the curves: a panel a kind and direction, a line a set."""
    table = named[named["kind"].isin(dosed(named))].assign(row=row_names(named))
    size = table["normalized"].abs().groupby(table["row"]).max()
    kept = set(size.sort_values(ascending=False, kind="stable").index[: len(LOOKS)])
    names = [name for name in dict.fromkeys(table["row"]) if name in kept]
    panels, spoken = [], []
    for (kind, direction), rows in table.groupby(["kind", "direction"], sort=False):
        neutral = KINDS[str(kind)].neutral
        series = [
            _series(rows[rows["row"] == name], name, look, neutral)
            for look, name in enumerate(names)
            if (rows["row"] == name).any()
        ]
        title = f"{str(kind).capitalize()}, {direction}"
        at = Guide("x", neutral, name="changes nothing", line=":")
        panels.append(Panel(title, series, "alpha", "Normalized effect", guides=(at,)))
        spoken.append(_spoken(rows))
    title = "Dose and response of the Yes/No answer"
    if len(names) < len(size):
        title += f" ({len(names)} largest of {len(size)})"
    note = "Normalized effect: 0 = the base run's answer, 1 = the other run's."
    if context.pairs is not None:
        note += f" Means over {context.pairs:,} pairs with {context.level:.0%} intervals."
    return Chart("doses", "dose_response.png", title, panels, note, spoken)


def _series(rows: "pandas.DataFrame", name: str, look: int, neutral: float) -> Series:
    """Return a curve by dose, with the point at which nothing changes."""
    alpha = rows["alpha"].to_numpy(np.float64)
    apart, ends = alpha != neutral, ends_of(rows, "normalized")
    x = np.append(alpha[apart], neutral)
    order = np.argsort(x)
    middle, low, high = (np.append(end[apart], 0.0)[order] for end in ends)
    if "normalized_low" not in rows:
        return Series(name, x[order], middle, look=look)
    return Series(name, x[order], middle, low, high, look=look)


def _spoken(rows: "pandas.DataFrame") -> str:
    sizes = rows["normalized"].abs()
    if not np.isfinite(sizes).any():
        return ""
    row = rows.iloc[int(np.nanargmax(sizes))]
    return f"Largest: {row['row']} at alpha {row['alpha']:g}, {row['normalized']:+.3f}"
