"""The study: everything that a run depends on, as one frozen, strict YAML file.

Defaults live here and nowhere else. Unknown keys are errors. `Study()` is the bundled default
study: the seed's question, asked of the bundled model.
"""

from headpatch.core.study.changes import VisionOptions, alpha_of
from headpatch.core.study.edges import (
    EDGE_ENDS,
    Candidates,
    EdgeEnd,
    check_edges,
    edge_ends,
    layer_span,
)
from headpatch.core.study.expected import Expected, Published
from headpatch.core.study.many_pairs import DrawOptions, PairsOptions, VerdictOptions
from headpatch.core.study.reading import prompt_form
from headpatch.core.study.study import Study
from headpatch.core.study.yaml_tree import read_record

__all__ = [
    "EDGE_ENDS",
    "Candidates",
    "DrawOptions",
    "EdgeEnd",
    "Expected",
    "PairsOptions",
    "Published",
    "Study",
    "VerdictOptions",
    "VisionOptions",
    "alpha_of",
    "check_edges",
    "edge_ends",
    "layer_span",
    "prompt_form",
    "read_record",
]
