"""Which pairs passed the gate: both answers right, and their LDs far enough apart."""

import pandas as pd

from headpatch.core.gate_view import GATE, gate
from headpatch.core.output.folder import Results
from headpatch.present.section import Section
from headpatch.report.html.sections.derived import blocks

_SHARES = [f"p_{answer}_{run}" for run in ("with", "without") for answer in ("yes", "no")]


def section(results: Results) -> Section | None:
    """Make the gate; None unless a dataset was run."""
    table = results.table("gate.csv", GATE.needed)
    if table is None or table.empty:
        return None
    if set(_SHARES) <= set(table):  # one that is not known is not unlikely
        table[_SHARES] = table[_SHARES].apply(pd.to_numeric, errors="coerce").fillna(1.0)
    margin = float(results.main.study.get("pairs", {}).get("margin", 1.0))
    columns = {str(name): table[name].tolist() for name in table}
    parts = gate(columns, margin)
    return Section(
        "gate",
        "Which pairs passed",
        {"blocks": [block for part in parts for block in blocks(part, {})]},
        template="view",
    )
