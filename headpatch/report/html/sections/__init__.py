"""One module a section: each reads what it needs and returns the section, or None.

A question's section follows from its view; the modules here join what several questions found.
"""

from collections.abc import Callable

from headpatch.core.output.folder import Results
from headpatch.core.registry import verbs
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

_PLACED = (
    "verdict", "ablate", "combine", "rank", "sweep", "path", "cut", "trace", "rollout", "claims",
)  # fmt: skip
SECTIONS: tuple[Callable[[Results], Section | None], ...] = (
    first.section,
    derived.section("verdict"),
    maps.section,
    scatter.section,
    ranking.section,
    *(derived.section(name) for name in ("ablate", "combine", "rank", "sweep")),
    tower.section,
    *(derived.section(name) for name in ("path", "cut", "trace", "rollout")),
    *(derived.section(verb.name) for verb in verbs() if verb.files and verb.name not in _PLACED),
    derived.section("claims"),
    noise.section,
    gate.section,
    how.section,
)
"""In the order of the page; questions without a place of their own come behind the others."""
