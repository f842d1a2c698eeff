"""The study: everything that a run depends on, as one frozen, strict YAML file.

Defaults live here and nowhere else. Unknown keys are errors. `Study()` is the bundled default
study: the seed's question, asked of the bundled model.
"""

from headpatch.core.study.changes import alpha_of
from headpatch.core.study.edges import Candidates, EdgeEnd, edge_ends, layer_span
from headpatch.core.study.many_pairs import DrawOptions, PairsOptions
from headpatch.core.study.reading import prompt_form
from headpatch.core.study.study import Expected, Published, Study
from headpatch.core.study.yaml_tree import read_record

__all__ = [
    "Candidates", "DrawOptions", "EdgeEnd", "Expected", "PairsOptions", "Published", "Study",
    "alpha_of", "edge_ends", "layer_span", "prompt_form", "read_record",
]  # fmt: skip
