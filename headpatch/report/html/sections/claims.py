"""Claims that a study lists, and what became of them."""

from headpatch.core.output.folder import Results
from headpatch.present.section import Section, listed

_NEEDED = {"claim": "text", "outcome": "text", "figure": "text"}


def section(results: Results) -> Section | None:
    """Make the claims; None unless `claims` ran."""
    table = results.table("claims.csv", _NEEDED)
    if table is None or table.empty:
        return None
    counts = table["outcome"].value_counts()
    values = {
        "rows": table.to_dict("records"),
        "summary": listed(f"{count} {name}" for name, count in counts.items()),
    }
    return Section("claims", "The claims", values)
