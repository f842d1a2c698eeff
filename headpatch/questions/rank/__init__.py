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
"""

from headpatch.core.question import Verb
from headpatch.core.study.options import Count, Positive, Strict
from headpatch.questions.rank.columns import HEADS, PER_HEAD, SPATIAL, WITH_RUN, WITHOUT_RUN


class RankOptions(Strict):
    """How heads are ranked."""

    top: Positive = 20
    """Heads listed, drawn and counted by layer."""
    overlays: Count = 3
    """Heads whose attention is drawn over the pictures."""


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
    ),
    hidden=("overlays",),
    finished="pairs",
)
