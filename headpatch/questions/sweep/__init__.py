r"""Change every head, one after the other, and map what each does to the answer.

Every head of the language model, or of the vision tower with `--tower vision`, x zero, mean,
resample x noising (is it necessary?), denoising (is it sufficient?): the shift of LD = logit(Yes) -
logit(No), exact for each head. All heads share the untouched part of the pass, so that at the
answer position each kind and direction costs a few forward passes instead of one for each head.
Where a model does not allow this, it falls back to plain passes and says so. What is to come is
priced before the run, the reference pairs of kind mean included.

Prints the heads with the largest effects beside their attention rank. Writes effects.csv (a row for
every head, kind and direction), sweep.pt (the same as tensors), sweep.png (a map of layers x heads)
and run.yaml. Effects at or below the noise floor (patching a head with its own z) are marked.

`--tower vision` starts each batch at the layer that it changes, but runs the whole language model
for each row: it costs most of a forward pass a row. Layers past the one that the language model
reads must move nothing at all, and this is said. `--approx` adds a column to effects.csv, approx.pt
(the estimate for every head and position) and approx.png; the estimates are printed with their
agreement with the exact effects, since they can be far off.

With `--pairs`: every head of either tower, and every layer, on every pair of a dataset that passes
the gate (both answers right). Kind `mean` is then the mean over the dataset. Writes also
effects_mean.csv and mean_effects.png (means with intervals over pairs) and gate.csv. `--approx`
shows how estimates agree pair by pair, and in their means over pairs.

Ctrl-C keeps the finished rows in the output folder; the same command with `--resume` goes on.

Examples
--------
`headpatch sweep --kinds resample --out sweep_output`

`printf '21.14+23.9\n21.16+25.8\n' > sets.txt`

`headpatch sweep --sets sets.txt --kinds resample --out sets_output`

`headpatch sweep --tower vision --kinds resample --positions patches --layers`

`headpatch sweep --kinds resample --approx`

`headpatch sweep --kinds resample --pairs pairs --limit 5` (after `headpatch pairs --n 20`)
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

from headpatch.core.question import Flag, Verb
from headpatch.questions.sweep.columns import EFFECTS, MEANS
from headpatch.questions.sweep.options import SweepOptions

if TYPE_CHECKING:
    from headpatch.core.study import Study

_PLACES: Final = {"lm": "sweep.positions", "vision": "vision.positions"}


def _positions(given: Mapping[str, Any], study: "Study") -> Mapping[str, Any]:
    """Let ``--positions`` speak of the tower that is swept."""
    return {_PLACES[study.sweep.tower]: given["positions"]}


VERB = Verb(
    "sweep",
    "What does every head do to the answer?",
    SweepOptions,
    __doc__ or "",
    (EFFECTS, MEANS),
    ("sweep.pt", "approx.pt", "sweep.png", "approx.png", "mean_effects.png"),
    flags=(
        Flag(
            "positions",
            "--positions",
            "Where z is changed: answer (cheap), question, image, all (dear); with --tower vision: "
            "class (the class token), patches, all.",
            "SCOPE",
        ),
    ),
    keys=_positions,
    hidden=("positions", "noise"),
    mark="sweep.pt",
    finished="rows",
    keyed=True,
)
