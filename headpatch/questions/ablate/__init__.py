"""Change heads and measure the shift of LD = logit(Yes) - logit(No).

Each head alone, then all together: zero, mean and resample; noising (is the head necessary?)
and denoising (is it sufficient?); beside random heads of the same layers and the noise
floor. Writes effects.csv, head_effects.png and run.yaml.

Heads of both towers may stand side by side. Those of the language model change at
`--positions`, those of the vision tower (v8.3) at `--vision-positions`; the column `positions`
says which. A set with a vision head costs most of a forward pass for every row and control:
this is said before the run. Heads of vision layers that the language model never reads must
move nothing at all, and this is said too.

Kind `reweight` leaves z to attention: that of the heads to the image's tokens (or, `--toward
region`, the region's) is multiplied by 1 + `--alpha`, and each row is divided by its new sum.

Several `--alpha` make a dose-response curve of kinds scale and reweight: also doses.csv (what each
head does as the dose grows: its slope, how straight the curve is, and whether it only rises or
only falls) and dose_response.png.

With `--pairs`: on every pair of a dataset that passes the gate (both answers right). Kind
`mean` is then the mean over the dataset. Writes effects.csv (a row for each pair),
effects_mean.csv (means with intervals over pairs), gate.csv (the LDs of every pair),
the figure and run.yaml; of several doses also doses_mean.csv, with tests over pairs. Ctrl-C keeps
finished pairs; the same command with `--resume` goes on and gives the same result.

Examples
--------
`headpatch ablate --heads 24.17,23.20`

`headpatch ablate --heads v8.3,21.14 --kinds resample --controls 2`

`headpatch ablate --heads 21.14,23.9 --kinds scale --alpha 0,0.5,1.5,2 --controls 0`

`headpatch ablate --heads 21.14 --kinds reweight --alpha -0.5 --toward region --controls 2`

`headpatch ablate --heads top:3 --kinds resample --pairs pairs --limit 5`
(after `headpatch pairs --n 20`)
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal, Self

from pydantic import Field, model_validator

from headpatch.core.question import Flag, Verb
from headpatch.core.study.options import ChangesOverPairs, Count, refuse_void_scope
from headpatch.core.study.reading import Alphas
from headpatch.errors import InputError
from headpatch.heads import Selection
from headpatch.kinds import ALPHA, REWEIGHTED
from headpatch.questions.ablate.columns import DOSES, DOSES_MEAN, EFFECTS, MEANS

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
    alpha: Alphas = ALPHA  # type: ignore[assignment]  # one, as elsewhere, or several
    """How far a kind with a factor goes. scale multiplies z by it: 0 takes all away, 1 changes
    nothing; reweight multiplies attention by 1 + it: -1 takes it away, 0 changes nothing. Several,
    as 0,0.25,0.5,1.5,2: the effect of each dose."""

    @model_validator(mode="after")
    def _check_heads(self) -> Self:
        reweights = [kind for kind in self.kinds if kind in REWEIGHTED]
        if reweights and Selection.parse(self.heads).names_vision:
            found = f"{reweights[0]} of vision heads"
            raise InputError("--heads, --kinds", found, "heads that attend to the image's tokens")
        return self


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
    (EFFECTS, MEANS, DOSES, DOSES_MEAN),
    ("head_effects.png", "dose_response.png"),
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
