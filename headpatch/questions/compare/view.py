"""What people see of a comparison: what agrees, two runs at a time."""

from collections.abc import Iterator
from math import isfinite, isnan
from typing import TYPE_CHECKING, Any

import numpy as np

from headpatch.core.question import Context, Files, rows_of, table_of
from headpatch.present.chart import Chart
from headpatch.present.column import Cell, Row
from headpatch.present.panel import Look, Panel, Scale, Series
from headpatch.present.parts import Part, Words, grid
from headpatch.questions.compare.columns import COMPARE

if TYPE_CHECKING:
    import pandas

_MOST = 40  # rows of a figure
_CEILING = Look("#404040", "D", "", hollow=True)


def view(files: Files, context: Context) -> Iterator[Part]:
    """Show the table, a sentence for each figure of two runs, and rho with its interval."""
    table = table_of(files[COMPARE.file])
    cells: dict[str, str | Cell] = {
        "first": "first", "second": "second", "figure": "figure", "by": "unit", "n": "n",
        "rho": _known("rho"), "rho interval": _interval, "ceiling": _known("ceiling"),
        "first k": _first, "shared": _shared_cell, "by chance": _known("chance"),
        "p": _known("p"),
    }  # fmt: skip
    yield grid("Agreement of runs", table, cells, COMPARE)
    for line in summary(table):
        yield Words(line)
    yield Words(_legend(table, context.level))
    if (chart := _chart(table, context)) is not None:
        yield chart


def _legend(table: "pandas.DataFrame", level: float) -> str:
    """Say what the figures are; intervals and ceilings are told of where there are some."""
    words = "rho: Spearman's, of the means of both runs"
    if "rho_low" not in table or not table["rho_low"].notna().any():
        words += "; no interval, as a run kept means alone. Shared: of the first k of both"
        return f"{words}, beside what chance alone shares, and p."
    some = "; none where a run kept means alone" * bool(table["rho_low"].isna().any())
    return (
        f"{words} ({level:.0%} interval over scenes; runs over the same pairs resampled together, "
        f"others each on its own{some}). The ceiling is what lists so noisy would reach if the "
        "true ones were the same. Shared: of the first k of both, likewise with its interval, "
        "beside what chance alone shares, and p; noise pulls rho and the count down."
    )


def summary(table: "pandas.DataFrame") -> list[str]:
    """Say in a sentence what each two runs share of each figure."""
    return [_sentence(row) for row in rows_of(table) if row["unit"] != "layer"]


def _sentence(row: Row) -> str:
    both = f"{row['first']} and {row['second']}"
    if row["figure"] == "class":
        return (
            f"{both}: {row['shared']:.0f} of {row['n']:,} heads have the same class "
            f"({row['chance']:.0f} by chance)."
        )
    if row["figure"] == "acting heads":
        return (
            f"{both}: {row['k']:.0f} and {row['k_second']:.0f} heads act, {row['shared']:.0f} of "
            f"them in both ({row['chance']:.1f} by chance, p = {row['p']:.1g})."
        )
    what = {"head": "heads", "depth": "relative depths"}[row["unit"]]
    if isnan(row.get("rho", np.nan)):
        return f"{both}, {row['figure']}: too few {what}, or one side is flat."
    words = f"{both}, {row['figure']}: rho {row['rho']:+.2f}{_ends(row)} over {row['n']:,} {what}"
    if isfinite(row.get("shared", np.nan)):
        words += (
            f"; of the first {row['k']:.0f} they share {row['shared']:.0f} "
            f"({_shared_ends(row)}{row['chance']:.1f} by chance, p = {row['p']:.1g})"
        )
    return f"{words}."


def _ends(row: Row) -> str:
    if isnan(row.get("rho_low", np.nan)):
        return ""
    ceiling = row.get("ceiling", np.nan)
    most = "" if isnan(ceiling) else f"; ceiling {ceiling:.2f}"
    return f" ({row['rho_low']:+.2f} to {row['rho_high']:+.2f}{most})"


def _shared_ends(row: Row) -> str:
    if isnan(row.get("shared_low", np.nan)):
        return ""
    return f"{row['shared_low']:.0f} to {row['shared_high']:.0f}; "


def _known(name: str) -> Cell:
    """Show a figure, and nothing where there is none."""
    return lambda row: "" if isnan(row.get(name, np.nan)) else COMPARE[name].cell(row)


def _interval(row: Row) -> str:
    if isnan(row.get("rho_low", np.nan)):
        return ""
    return f"{row['rho_low']:+.2f} to {row['rho_high']:+.2f}"


def _shared_cell(row: Row) -> str:
    ends = _shared_ends(row).removesuffix("; ")
    return _known("shared")(row) + (f" ({ends})" if ends else "")


def _first(row: Row) -> str:
    k, other = row.get("k", np.nan), row.get("k_second", np.nan)
    if isnan(k):
        return ""
    return f"{k:.0f}" if k == other else f"{k:.0f}, {other:.0f}"


def _chart(table: "pandas.DataFrame", context: Context) -> Chart | None:
    """Draw rho of every two runs and figure, with its interval and ceiling."""
    if "rho" not in table or not table["rho"].notna().any():
        return None
    rows = table[table["rho"].notna()].iloc[:_MOST]
    names = [f"{one['first']}, {one['second']}: {one['figure']}, by {one['unit']}"
             for one in rows_of(rows)]  # fmt: skip
    x = np.arange(len(names), dtype=np.float64)

    def values(column: str) -> Any:
        return (
            rows[column].to_numpy(dtype=np.float64) if column in rows else np.full(len(x), np.nan)
        )

    level = f"{context.level:.0%} interval over scenes"
    series = [Series(f"rho, {level}", x, values("rho"), values("rho_low"), values("rho_high"))]
    if np.isfinite(values("ceiling")).any():
        series.append(Series("ceiling, by the noise of both", x, values("ceiling"), look=_CEILING))
    scale = Scale(low=min(0.0, float(np.nanmin(values("rho")))) - 0.05, high=1.05)
    panel = Panel("", series, "Spearman's rho of two runs", "", names, across=True, x_scale=scale)
    left = len(table[table["rho"].notna()]) - len(rows)
    note = f"The first {_MOST}; {left:,} more in compare.csv." if left else ""
    spoken = ["; ".join(summary(table))]
    return Chart("compare", "compare.png", "Do runs agree on heads and layers?", [panel], note,
                 spoken)  # fmt: skip
