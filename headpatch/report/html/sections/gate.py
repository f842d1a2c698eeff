"""Which pairs passed the gate: both answers right, and their LDs far enough apart."""

from headpatch.report.canvas import signed
from headpatch.report.html.example import GATE
from headpatch.report.html.folder import Results
from headpatch.report.html.section import Section

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
    values = {
        "pairs": len(table),
        "passed": int(passed.sum()),
        "failed": rows,
        "more": len(failed) - len(rows),
    }
    return Section("gate", "Which pairs passed", values)
