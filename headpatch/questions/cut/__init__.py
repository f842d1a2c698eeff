"""Cut attention between named tokens and measure the shift of LD = logit(Yes) - logit(No).

In both runs, for all heads of a window of layers that moves through the model (attention knockout,
Geva et al. 2023), for fixed layers, or for single heads; beside the same cut of as many random
image tokens, and the noise floor. A token keeps its own position unless --itself is given; one that
loses every key gets z = 0. Writes cuts.csv, cuts.png and run.yaml.

With `--pairs`: on every pair of a dataset that passes the gate (both answers right). Writes
cuts.csv (rows of every pair), cuts_mean.csv (means with intervals over pairs), gate.csv, the figure
and run.yaml.

The cost is printed before the run. A pass starts at the first layer that is cut, where the model
allows it; else every cut takes a whole one.

Examples
--------
`headpatch cut --from answer --to region --layers 20-23 --out cut_output`

`headpatch cut --from answer,question --to region --window 5`

`headpatch cut --edges answer-region --pairs pairs --limit 3` (after `headpatch pairs --n 20`)
"""

from collections.abc import Mapping
from itertools import product
from typing import TYPE_CHECKING, Any

from headpatch.core.question import Flag, Verb
from headpatch.core.study.options import EDGE_ENDS
from headpatch.errors import InputError
from headpatch.questions.cut.columns import CUTS, MEANS
from headpatch.questions.cut.options import CutOptions

if TYPE_CHECKING:
    from headpatch.core.study import Study


def _edges(given: Mapping[str, Any], _study: "Study") -> Mapping[str, Any]:
    """Join every ``--from`` with every ``--to``."""
    queries, keys = given["queries"], given["keys"]
    if queries is None and keys is None:
        return {}
    if given["edges"] is not None:
        raise InputError("--edges", "--from or --to beside it", "either --edges or both of them")
    if queries is None or keys is None:
        raise InputError("--from, --to", "only one of them", "both ends of the edge")
    for flag, names in (("--from", queries), ("--to", keys)):
        if unknown := [name for name in names if name not in EDGE_ENDS]:
            raise InputError(flag, repr(unknown[0]), f"one of {', '.join(EDGE_ENDS)}")
    return {"cut.edges": tuple("-".join(ends) for ends in product(queries, keys))}


VERB = Verb(
    "cut",
    "Which tokens must be able to read which, and in which layers?",
    CutOptions,
    __doc__ or "",
    (CUTS, MEANS),
    ("cuts.png",),
    flags=(
        Flag(
            "queries",
            "--from",
            "Which tokens no longer look, comma-separated: answer, question (every token after the "
            "image), words (those but the answer), image, region, other (the image outside the "
            "region), all.",
            "NAMES",
            "several",
        ),
        Flag("keys", "--to", "At which tokens; the same names.", "NAMES", "several"),
    ),
    keys=_edges,
)
