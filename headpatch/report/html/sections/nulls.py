"""What must come out as nothing, and whether it did; and the noise floor of every run."""

from headpatch.core.output.folder import Results
from headpatch.present.section import Section

_NEEDED = {
    "null": "text",
    "figure": "text",
    "value": "number",
    "limit": "text",
    "outcome": "text",
    "note": "text",
}


def section(results: Results) -> Section | None:
    """Make the nulls; None if no run measured any, nor a noise floor."""
    table = results.table("nulls.csv", _NEEDED)
    rows = [] if table is None else table.to_dict("records")
    for row in rows:
        row["value"] = (
            "" if row["value"] != row["value"] else f"{row['value']:.3g}".replace("-", "−")
        )
    floors = []
    for part in results.parts:
        floor = part.run.get("noise_floor")
        if isinstance(floor, int | float):
            gap = abs(part.run.get("ld_with", 0) - part.run.get("ld_without", 0))
            floors.append(
                {
                    "where": part.name or "this folder",
                    "logits": f"{floor:.1e}",
                    "share": f"{floor / gap:.1e}" if gap else "",
                    "dtype": f"{part.run.get('dtype', '')}, {part.run.get('device', '')}",
                }
            )
    if not rows and not floors:
        return None
    title = "Nulls and noise floor" if rows else "Noise floor"
    notes = any(row["note"] for row in rows)
    return Section("nulls", title, {"rows": rows, "floors": floors, "notes": notes})
