"""Rank heads by how much more they look at the region when the object is there.

Correlational: it shows where heads look, not what they do (that is `headpatch ablate`).
Writes heads.csv, four .pt files, five figures and run.yaml.

With `--pairs`: means over a dataset of pairs, with intervals over pairs. Pairs whose
two answers are not both right are listed and left out. Writes heads.csv, gate.csv (the LDs of
every pair), a figure and run.yaml. Ctrl-C keeps finished pairs; the same command with
`--resume` goes on and gives the same result.

Examples
--------
`headpatch rank --with bundled:1.jpg --without bundled:2.jpg --region top-left
--question "Is there anything in the top left corner?"` (pictures that come with headpatch;
yours are paths)

`headpatch rank --pairs pairs --limit 8` (after `headpatch pairs --n 20`)

`headpatch rank --by localization`
"""

from typing import Annotated, Self

from pydantic import Field, model_validator

from headpatch.core.measures import NAMES
from headpatch.core.question import Verb
from headpatch.core.study.options import Count, Positive, Strict
from headpatch.core.study.reading import PathText
from headpatch.errors import InputError
from headpatch.questions.rank.columns import HEADS, PER_HEAD, SPATIAL, WITH_RUN, WITHOUT_RUN


class RankOptions(Strict):
    """How heads are ranked."""

    top: Positive = 20
    """Heads listed, drawn and counted by layer."""
    overlays: Count = 3
    """Heads whose attention is drawn over the pictures, and as many of the vision tower."""
    by: PathText = Field("diff", json_schema_extra={"metavar": "RANKING"})
    """What heads are ranked by, here and wherever heads are picked by attention (top:5): diff (by
    how much the region's share rises with the object), or of the with-run alone raw (attention to
    the region, undivided), entropy (least spatial entropy of the image attention), localization
    (enough image attention, then least entropy), text-image (image against text attention); or
    FILE.csv, a table with columns layer, head, score."""
    tau: Annotated[float | None, Field(ge=0, le=1)] = None
    """Image attention that localization asks of a head; where the sums bend most if left out."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.by not in NAMES and not self.by.endswith(".csv"):
            expected = f"{', '.join(NAMES)}, or a table of scores, FILE.csv"
            raise InputError("--by", repr(self.by), expected)
        return self


VERB = Verb(
    "rank",
    "Where do heads look when the object is there?",
    RankOptions,
    __doc__ or "",
    (HEADS,),
    (
        WITH_RUN,
        WITHOUT_RUN,
        PER_HEAD,
        SPATIAL,
        "top_different_heads.png",
        "spatial_distribution.png",
        "vision_encoder_layers.png",
        "divergence_analysis.png",
        "attention_overlays.png",
        "vision_overlays.png",
        "model_view.png",
    ),
    hidden=("overlays",),
    finished="pairs",
)
