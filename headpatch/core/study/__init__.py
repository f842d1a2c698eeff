"""The study: everything that a run depends on, as one frozen, strict YAML file.

Defaults live here and nowhere else. Unknown keys are errors. `Study()` is the bundled default
study: the seed's question, asked of the bundled model.
"""

from headpatch.core.study.options import (
    Candidates,
    DrawOptions,
    EdgeEnd,
    PairsOptions,
    alpha_of,
    edge_ends,
    layer_span,
)
from headpatch.core.study.reading import prompt_form
from headpatch.core.study.record import read_record
from headpatch.core.study.study import Expected, Published, Study

__all__ = [
    "Candidates", "DrawOptions", "EdgeEnd", "Expected", "PairsOptions", "Published", "Study",
    "alpha_of", "edge_ends", "layer_span", "prompt_form", "read_record",
]  # fmt: skip
