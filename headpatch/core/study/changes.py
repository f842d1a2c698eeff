"""How heads are changed: options that several questions share."""

from typing import Annotated, Literal

from pydantic import BeforeValidator, Field

from headpatch.core.study.strict import Count, Strict, sequence
from headpatch.kinds import ALPHA, DEFAULT, KINDS_HELP, WITH_ALPHA, AskedKind

AskedKinds = Annotated[
    tuple[AskedKind, ...], BeforeValidator(sequence), Field(min_length=1, description=KINDS_HELP)
]


class Kinds(Strict):
    """What stands in the place of z, and in which run."""

    kinds: AskedKinds = DEFAULT
    alpha: Annotated[float, Field(json_schema_extra={"metavar": "NUMBER"})] = ALPHA
    """What a kind with a factor (scale) multiplies z by: 0 takes all away, 1 changes nothing."""
    directions: Annotated[
        tuple[Literal["noising", "denoising"], ...], BeforeValidator(sequence), Field(min_length=1)
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


class VisionOptions(Strict):
    """Where heads of the vision tower are changed."""

    positions: Literal["class", "patches", "all"] = "all"
    """The class token, every other token, or both."""
