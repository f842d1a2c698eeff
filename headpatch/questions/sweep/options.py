"""Options of `headpatch sweep`."""

from typing import Literal, Self

from pydantic import Field, model_validator

from headpatch.core.study.options import Changes, Positive
from headpatch.core.study.reading import PathText
from headpatch.errors import InputError


class SweepOptions(Changes):
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
        if self.layers and self.sets is not None:
            raise InputError("--sets, --layers", "both of them", "one of them")
        if self.tower == "vision" and self.budget is not None:
            raise InputError(
                "--budget",
                "of no use with --tower vision, whose rows are whole passes",
                "--rows",
            )
        return self
