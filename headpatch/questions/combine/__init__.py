"""Change heads two by two, to see whether they stand in for each other or need each other.

Interaction = effect of both together - effect of each alone, for every two of the chosen heads,
exact. Noising: above 0, either would do (each covers for the other: a head that seems idle alone
may decide together with its double); below 0, both are needed, or one reads the other. Denoising:
the reverse. Then self-repair: what the heads write straight to the logits against what follows when
they are changed, and which later heads and MLPs make the difference.

On one pair of pictures figures are known up to rounding and say nothing of other pairs; with
`--pairs` they are means with intervals over pairs, and heads that a ranking picks are picked on one
half of the pairs and judged on the other. Ctrl-C keeps what is finished of them; the same command
with `--resume` goes on and gives the same result.

Writes combinations.csv, combinations.png (a map of every two heads), selfrepair.csv,
selfrepair_parts.csv and run.yaml.

Examples
--------
`headpatch combine --top 6`

`headpatch combine --heads 20.18,21.14,23.9`

`headpatch combine --heads 21.14,23.9 --pairs pairs --limit 5` (after `headpatch pairs --n 20`)
"""

from typing import Annotated, Literal

from pydantic import Field

from headpatch.core.question import Verb
from headpatch.core.study.options import Candidates, Changes, KindsOfOnePair, Positive
from headpatch.questions.combine.columns import COMBINATIONS, PARTS, REPAIR


class CombineOptions(Candidates, Changes):
    """Which heads are changed in pairs, and how."""

    top: Positive = 6
    """Take the first N heads of each ranking."""
    kinds: KindsOfOnePair = ("resample",)
    positions: Annotated[
        Literal["answer", "question", "image", "all"],
        Field(json_schema_extra={"metavar": "SCOPE"}),
    ] = "answer"
    """Where z is changed: answer, question, image, all."""
    listed: Positive = 10
    """Pairs of heads listed for each way."""


VERB = Verb(
    "combine",
    "Do heads stand in for each other, or need each other?",
    CombineOptions,
    __doc__ or "",
    (COMBINATIONS, REPAIR, PARTS),
    ("combinations.png",),
    finished="parts",
)
