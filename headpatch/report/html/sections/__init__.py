"""One module a section: each reads what it needs and returns the section, or None.

A new kind of result is a new module here, a template of its name, and a line in `SECTIONS`.
"""

from collections.abc import Callable

from headpatch.core.output.folder import Results
from headpatch.present.section import Section
from headpatch.report.html.sections import (
    claims,
    derived,
    faithfulness,
    first,
    gate,
    how,
    maps,
    nulls,
    ranking,
    rollout,
    scatter,
    tower,
    trace,
    verdicts,
)

SECTIONS: tuple[Callable[[Results], Section | None], ...] = (
    first.section,
    verdicts.section,
    maps.section,
    scatter.section,
    ranking.section,
    derived.section("ablate"),
    derived.section("combine"),
    faithfulness.section,
    derived.section("rank"),
    derived.section("sweep"),
    tower.section,
    derived.section("path"),
    derived.section("cut"),
    trace.section,
    rollout.section,
    claims.section,
    nulls.section,
    gate.section,
    how.section,
)
"""In the order of the page."""
