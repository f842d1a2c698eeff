"""One module a section: each reads what it needs and returns the section, or None.

A new kind of result is a new module here, a template of its name, and a line in `SECTIONS`.
"""

from collections.abc import Callable

from headpatch.core.output.folder import Results
from headpatch.present.section import Section
from headpatch.report.html.sections import (
    derived,
    first,
    gate,
    how,
    maps,
    noise,
    ranking,
    scatter,
    tower,
)

SECTIONS: tuple[Callable[[Results], Section | None], ...] = (
    first.section,
    derived.section("verdict"),
    maps.section,
    scatter.section,
    ranking.section,
    derived.section("ablate"),
    derived.section("combine"),
    derived.section("rank"),
    derived.section("sweep"),
    tower.section,
    derived.section("path"),
    derived.section("cut"),
    derived.section("trace"),
    derived.section("rollout"),
    derived.section("claims"),
    noise.section,
    gate.section,
    how.section,
)
"""In the order of the page."""
