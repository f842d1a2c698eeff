"""Map where a token of the answer comes from, over both pictures, and check the maps.

Two methods, each followed back from the answer position through the language model to the image
tokens, and on through the vision tower to the patches: attention rollout (Abnar & Zuidema 2020) and
relevance, attention weighted by its gradient (Chefer et al. 2021). With `--token 3`, both runs have
been made to say the tokens before it.

Maps persuade whether or not they are right, so they are tested: patches are deleted in a map's
order, and shown alone in that order, and LD = logit(token) - logit(the token that a run would say
instead) is watched, beside random orders and the region's own patches. In a deleted patch stands
the other picture of the pair. That keeps every picture possible, and all patches together give the
other run; a grey patch may itself be an object (`--fill mean` shows it).

Rollout knows where attention goes, not what it carries: tokens without content that draw attention
(attention sinks) get weight, and where tokens see only earlier ones the first tokens gather it
layer by layer. So a rollout may point at the first patches, the top left corner, whatever is there.
A vision tower's class token is followed, but has no place in the picture; what ends there is given
beside the maps. For towers that see a picture in parts, maps stop at the image tokens.

Writes rollout.csv (every patch's value), perturbation.csv (LD of every picture tried), rollout.pt,
rollout.png, perturbation.png and run.yaml.

With `--pairs`: on every pair of a dataset that passes the gate (both answers right), each saying
its own answer. Writes rollout.csv and perturbation.csv (rows of every pair), rollout_mean.csv
(shares of the maps, means with intervals over pairs), perturbation_mean.csv (areas under the
curves beside those of random orders, and their difference), gate.csv, both figures and run.yaml.
Ctrl-C keeps finished pairs; the same command with `--resume` goes on and gives the same result.

Examples
--------
`headpatch rollout --token 0 --draws 5 --out rollout_output`

`headpatch rollout --draws 2 --pairs pairs --limit 3` (after `headpatch pairs --n 20`)
"""

from typing import Annotated, Literal

from pydantic import Field

from headpatch.core.question import Verb
from headpatch.core.study.options import Count, ForcedAnswer
from headpatch.questions.rollout.columns import AREA_MEANS, MEANS, PERTURBATION, ROLLOUT


class RolloutOptions(ForcedAnswer):
    """From which token attention is rolled back to the picture, and how that is checked."""

    token: Count = 0
    """Which token of the answer, counted from 0."""
    forced: Annotated[Literal["with", "without"], Field(json_schema_extra={"metavar": "RUN"})] = (
        "with"
    )
    """Whose own answer both runs are made to say: with, without."""
    draws: Annotated[int, Field(ge=2, le=1_000_000)] = 20
    """Random orders of the patches to compare the maps with."""
    fill: Annotated[Literal["other", "mean"], Field(json_schema_extra={"metavar": "NAME"})] = (
        "other"
    )
    """What stands in a deleted patch: other (the other picture, at that place), mean (the picture's
    mean colour)."""


VERB = Verb(
    "rollout",
    "Which patches of the picture does a token of the answer come from?",
    RolloutOptions,
    __doc__ or "",
    (ROLLOUT, PERTURBATION, MEANS, AREA_MEANS),
    ("rollout.pt", "rollout.png", "perturbation.png"),
    finished="pairs",
    one_picture=True,
    every_layer="attention is followed through all of them, and one without heads has none",
)
