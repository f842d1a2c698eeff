"""Which pairs passed the gate: both answers right, and their LDs far enough apart."""

from typing import TYPE_CHECKING

from headpatch.core.output.folder import Results
from headpatch.present.canvas import signed
from headpatch.present.section import Section
from headpatch.report.html.example import GATE
from headpatch.stats.effects import DOUBTFUL_BELOW, NEITHER_BELOW

if TYPE_CHECKING:
    import pandas

MOST = 30
"""Failed pairs listed; ``gate.csv`` has all."""


def section(results: Results) -> Section | None:
    """Make the gate; None unless a dataset was run."""
    table = results.table("gate.csv", GATE)
    if table is None or table.empty:
        return None
    passed = table["passed"].str.lower() == "true"
    failed = table[~passed]
    rows = [
        {
            "pair": row["pair"],
            "question": row["question"],
            "with": signed(row["ld_with"], 2),
            "without": signed(row["ld_without"], 2),
            "reason": row["reason"],
        }
        for row in failed.head(MOST).to_dict("records")
    ]
    both = _both_answers(table)
    values = {
        "pairs": len(table),
        "passed": int(passed.sum()),
        "failed": rows,
        "more": len(failed) - len(rows),
        "unlikely": [
            (int((both < below).sum()), below)
            for below in (DOUBTFUL_BELOW, NEITHER_BELOW)
            if (both < below).any()
        ],
    }
    return Section("gate", "Which pairs passed", values)


def _both_answers(table: "pandas.DataFrame") -> "pandas.Series[float]":
    """P(Yes) + P(No) of each pair, in the run where it is smaller; 1 where it is not known."""
    import pandas

    runs = ("with", "without")
    if not {f"p_{word}_{run}" for word in ("yes", "no") for run in runs} <= set(table):
        return pandas.Series(1.0, table.index)
    columns = {
        run: sum(pandas.to_numeric(table[f"p_{word}_{run}"], "coerce") for word in ("yes", "no"))
        for run in runs
    }
    return pandas.DataFrame(columns).min(axis=1)
