"""The noise floor of every run."""

from headpatch.core.output.folder import Results
from headpatch.present.section import Section


def section(results: Results) -> Section | None:
    """List the noise floors; None if no run measured one."""
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
    return Section("noise", "Noise floor", {"floors": floors}) if floors else None
