"""Change heads and measure the shift of LD = logit(Yes) - logit(No).

Each head alone, then all together: zero, mean and resample; noising (is the head necessary?)
and denoising (is it sufficient?); beside random heads of the same layers and the noise
floor. Writes effects.csv, head_effects.png and run.yaml.

Heads of both towers may stand side by side. Those of the language model change at
`--positions`, those of the vision tower (v8.3) at `--vision-positions`; the column `positions`
says which. A set with a vision head costs most of a forward pass for every row and control:
this is said before the run. Heads of vision layers that the language model never reads must
move nothing at all, and this is said too.

With `--pairs`: on every pair of a dataset that passes the gate (both answers right). Kind
`mean` is then the mean over the dataset. Writes effects.csv (a row for each pair),
effects_mean.csv (means with intervals over pairs), gate.csv (the LDs of every pair),
the figure and run.yaml. Ctrl-C keeps finished pairs; the same command with `--resume` goes on
and gives the same result.

Examples
--------
`headpatch ablate --heads 24.17,23.20`

`headpatch ablate --heads v8.3,21.14 --kinds resample --controls 2`

`headpatch ablate --heads top:3 --kinds resample --pairs pairs --limit 5`
(after `headpatch pairs --n 20`)
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from headpatch.core.question import Flag, Verb
from headpatch.core.study.options import ChangesOverPairs, Count, refuse_void_scope
from headpatch.errors import InputError
from headpatch.heads import Selection
from headpatch.questions.ablate.columns import EFFECTS, MEANS

if TYPE_CHECKING:
    from headpatch.core.study.study import Study


class AblateOptions(ChangesOverPairs):
    """Which heads are changed, and how."""

    heads: str = Field("top:3", json_schema_extra={"metavar": "HEADS"})
    """Heads to change: 24.17,23.20 or 24.0-24.31 or layer:24 or top:5 (of the attention ranking);
    with a v of the vision tower: v8.3, layer:v8."""
    positions: Literal["answer", "question", "image", "all"] = "answer"
    """Where z of language-model heads is changed: answer, question, image, all."""
    controls: Count = 20
    """Random sets of heads of the same layers to compare with."""


def vision_scope(given: Mapping[str, Any], study: "Study") -> Mapping[str, Any]:
    """Take ``--vision-positions`` into the study, where a vision head is changed."""
    scope, heads = given["vision_positions"], study.ablate.heads
    refuse_void_scope(Selection.parse(heads).names_vision, heads, scope)
    if scope is None:
        return {}
    try:
        study.override({"vision.positions": scope})
    except InputError as error:  # under the name of the flag
        raise InputError("--vision-positions", error.found, error.expected, error.hint) from None
    return {"vision.positions": scope}


VERB = Verb(
    "ablate",
    "What do the named heads do to the answer?",
    AblateOptions,
    __doc__ or "",
    (EFFECTS, MEANS),
    ("head_effects.png",),
    ragged=True,
    flags=(
        Flag(
            "vision_positions",
            "--vision-positions",
            "Where z of vision heads is changed: class (the class token), patches, all.",
            "SCOPE",
        ),
    ),
    keys=vision_scope,
    finished="pairs",
)
