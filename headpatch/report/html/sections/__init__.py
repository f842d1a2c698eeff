"""The page's sections: each reads what it needs and returns the section, or None.

A question's section follows from its view; others join what several questions found.
"""

from collections.abc import Callable

from headpatch.core.output.folder import Results
from headpatch.core.question import verbs
from headpatch.present.section import Section
from headpatch.report.html.sections import derived, first, how, maps

_BEFORE = ("ablate", "combine", "rank", "sweep")
_BEHIND = ("path", "cut", "trace", "rollout")
_PLACED = ("verdict", *_BEFORE, *_BEHIND, "claims")
_UNPLACED = [verb.name for verb in verbs() if verb.files and verb.name not in _PLACED]
SECTIONS: tuple[Callable[[Results], Section | None], ...] = (
    first.section,
    derived.section("verdict"),
    maps.section,
    maps.scatter,
    maps.ranking,
    *map(derived.section, _BEFORE),
    maps.tower,
    *map(derived.section, (*_BEHIND, *_UNPLACED, "claims")),
    how.noise,
    derived.gate,
    how.section,
)
"""In the order of the page; questions without a place of their own come behind the others."""
