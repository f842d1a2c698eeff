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
agreement with the exact effects, since they can be far off. `--edges 20` estimates every edge
between two heads as well, and patches the 20 largest and 20 random ones: edges.csv.

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

`headpatch sweep --kinds resample --approx --ig 5`

`headpatch sweep --kinds resample --approx --edges 10`

`headpatch sweep --kinds resample --pairs pairs --limit 5` (after `headpatch pairs --n 20`)
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final, Literal, Self

from pydantic import Field, model_validator

from headpatch.core.question import Flag, Verb
from headpatch.core.study.options import ChangesOverPairs, Positive
from headpatch.core.study.reading import PathText
from headpatch.errors import InputError
from headpatch.kinds import REWEIGHTED
from headpatch.questions.sweep.columns import EDGES, EFFECTS, MEANS

if TYPE_CHECKING:
    from headpatch.core.study.study import Study


class SweepOptions(ChangesOverPairs):
    """How every head, or every set of a list, is changed."""

    tower: Literal["lm", "vision"] = "lm"
    """Whose heads are changed: lm (the language model's) or vision."""
    sets: PathText | None = Field(None, json_schema_extra={"metavar": "FILE"})
    """Change the sets of this file instead of every single head: one set a line, such as
    24.17+23.20; # starts a comment."""
    layers: bool = False
    """Change every whole layer as well (all its heads at once)."""
    approx: bool = False
    """Also estimate the same effects from one backward pass (attribution patching), and measure how
    the estimates agree with the exact effects."""
    ig: Positive | None = None
    """Estimate them by integrated gradients as well, in so many steps between the two pictures;
    of kind resample alone."""
    edges: Positive | None = None
    """Estimate every edge between two heads as well, and patch so many of the largest, and as many
    random ones: of kind resample alone, and of one pair."""
    top: Positive = 10
    """Heads or sets listed for each direction."""
    noise: Positive = 32
    """Heads (drawn by the seed) that are patched with their own z, for the noise floor."""
    rows: Positive | None = None
    """Rows that are run together; found by itself if left out."""
    budget: Positive | None = Field(None, json_schema_extra={"metavar": "MIB"})
    """Memory that these rows may take, in MiB."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.ig is not None and not self.approx:
            raise InputError("--ig", "no --approx", "--approx as well")
        if self.ig is not None and {*self.kinds} != {"resample"}:
            found = f"--kinds {','.join(self.kinds)}"
            raise InputError("--ig", found, "--kinds resample: steps lead to the other picture")
        if self.edges is not None and not (self.approx and self.tower == "lm"):
            found = "no --approx" if self.tower == "lm" else "the vision tower"
            raise InputError("--edges", found, "--approx as well, of the language model's heads")
        if self.edges is not None and {*self.kinds} != {"resample"}:
            found = f"--kinds {','.join(self.kinds)}"
            raise InputError("--edges", found, "--kinds resample: heads hear the other picture")
        if self.layers and self.sets is not None:
            raise InputError("--sets, --layers", "both of them", "one of them")
        if self.tower == "vision" and self.budget is not None:
            raise InputError(
                "--budget",
                "of no use with --tower vision, whose rows are whole passes",
                "--rows",
            )
        if names := [kind for kind in self.kinds if kind in REWEIGHTED]:
            if self.tower == "vision":
                found, expected = "vision tower", "lm, whose heads attend to the image's tokens"
                raise InputError("--tower, --kinds", f"{names[0]} of the {found}", expected)
            if self.approx:
                raise InputError("--approx, --kinds", f"both of them, and {names[0]}", _ESTIMATED)
        return self


_ESTIMATED: Final = "kinds of which gradients give estimates"
_PLACES: Final = {"lm": "sweep.positions", "vision": "vision.positions"}


def _positions(given: Mapping[str, Any], study: "Study") -> Mapping[str, Any]:
    """Let ``--positions`` speak of the tower that is swept."""
    return {_PLACES[study.sweep.tower]: given["positions"]}


VERB = Verb(
    "sweep",
    "What does every head do to the answer?",
    SweepOptions,
    __doc__ or "",
    (EFFECTS, MEANS, EDGES),
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
    keeps_one=True,
    keyed=True,
)
