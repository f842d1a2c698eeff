"""Follow the object through the model: where what tells the pictures apart is, and when.

Four views over depth, each exact. The stream: the residual stream of one run put into the other at
the region's image tokens, the other image tokens, the question's words or the answer position,
entering every layer (and at patches, leaving every vision layer); 1 means that these tokens hold
the whole difference there. Edges: attention between tokens cut in windows of layers. Direct
attribution: what each head and MLP writes straight into LD = logit(Yes) - logit(No). Paths to
heads: through which input (query, keys, values), and from which tokens or vision layer, named heads
hear of the object.

One pair of pictures shows one case. With `--pairs` all of it is measured on every pair that passes
the gate, and figures are means with intervals over pairs; the region's tokens are each pair's own.
Heads that rankings pick are picked on one half of the pairs, and the paths to them are those of the
other half. Ctrl-C keeps finished pairs; the same command with `--resume` goes on and gives the same
result.

Prints what it found in sentences. Writes path.csv, path.pt, path.png (one figure over depth) and
run.yaml; with `--pairs` path_mean.csv and gate.csv too.

Examples
--------
`headpatch path`

`headpatch path --heads 24.17,23.20 --edges answer-region,words-region --window 3`

`headpatch path --pairs pairs --limit 4` (after `headpatch pairs --n 20`)
"""

from typing import Annotated, Self

from pydantic import BeforeValidator, Field, model_validator

from headpatch.core.question import Verb
from headpatch.core.study.options import Candidates, Positive, check_edges, sequence
from headpatch.questions.path.columns import MEANS, PATH


class PathOptions(Candidates):
    """What is followed, and the paths to which heads."""

    edges: Annotated[tuple[str, ...], BeforeValidator(sequence), Field(min_length=1)] = (
        "answer-region",
        "words-region",
        "answer-other",
        "answer-words",
    )
    """Attention to cut, from-to, comma-separated: answer-region, words-region. Ends as for
    `headpatch cut`."""
    window: Positive = 5
    """Layers that are cut together, centred on every layer in turn."""

    @model_validator(mode="after")
    def _check_edges(self) -> Self:
        check_edges(self.edges)
        return self


VERB = Verb(
    "path",
    "Where is what tells the pictures apart, and when does it move?",
    PathOptions,
    __doc__ or "",
    (PATH, MEANS),
    ("path.pt", "path.png"),
    finished="pairs",
    one_picture=True,
)
