"""Which heads are ranked and changed, and how: the options of ablate and sweep."""

from typing import Annotated, Literal, Self

from pydantic import BeforeValidator, Field, model_validator

from headpatch.core.study.paths import PathText
from headpatch.core.study.strict import Count, Positive, Strict, sequence
from headpatch.errors import InputError
from headpatch.kinds import ALPHA, DEFAULT, KINDS_HELP, WITH_ALPHA, AskedKind

AskedKinds = Annotated[
    tuple[AskedKind, ...],
    BeforeValidator(sequence),
    Field(min_length=1, description=KINDS_HELP),
]


class Kinds(Strict):
    """What stands in the place of z, and in which run."""

    kinds: AskedKinds = DEFAULT
    alpha: float = ALPHA
    """What a kind with a factor (scale) multiplies z by: 0 takes all away, 1 changes nothing."""
    directions: Annotated[
        tuple[Literal["noising", "denoising"], ...],
        BeforeValidator(sequence),
        Field(min_length=1),
    ] = ("noising", "denoising")
    """noising (change the with-run: necessary?), denoising (change the without-run:
    sufficient?)."""
    reference: Count = 16
    """Drawn pairs over which kind `mean` averages z; 0: this pair alone. With --pairs, used only
    where the positions of the pairs do not correspond."""


def alpha_of(options: Kinds) -> dict[str, float]:
    """Return ``alpha`` as tensors keep it: there only if a kind was run that takes it."""
    return {"alpha": options.alpha} if {*options.kinds} & {*WITH_ALPHA} else {}


class Changes(Kinds):
    """How z is changed, and where."""

    positions: Literal["answer", "question", "image", "all"] = "answer"


class SweepOptions(Changes):
    """How every head, or every set of a list, is changed."""

    tower: Literal["lm", "vision"] = "lm"
    """Whose heads are changed: the language model's, or the vision tower's (see `Study.vision`)."""
    sets: PathText | None = None
    """A file with one set of heads a line (``24.17+23.20``) instead of every single head."""
    layers: bool = False
    """Change every whole layer as well."""
    approx: bool = False
    """Estimate the same effects from gradients, and measure how the estimates agree."""
    top: Positive = 10
    """Heads listed for each direction."""
    noise: Positive = 32
    """Heads (drawn by the seed) that are patched with their own z, for the noise floor."""
    rows: Positive | None = None
    """Rows that walk through the layers together; None finds how many."""
    budget: Positive | None = None
    """MiB that these rows may take; None takes what is free."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.layers and self.sets is not None:
            raise InputError("--sets, --layers", "both of them", "one of them")
        if self.tower == "vision" and self.budget is not None:
            raise InputError(
                "--budget",
                "of no use with --tower vision, whose rows are whole passes",
                "--rows",
            )
        return self


class VisionOptions(Strict):
    """Where heads of the vision tower are changed."""

    positions: Literal["class", "patches", "all"] = "all"
    """The class token, every other token, or both."""
