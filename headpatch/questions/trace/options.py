"""Options of `headpatch trace`."""

from typing import Annotated, Literal

from pydantic import Field

from headpatch.core.study.options import AskedKinds, Count, ForcedAnswer, Kinds, Positive


class TraceOptions(ForcedAnswer, Kinds):
    """Which answer is traced token by token, and how heads are changed."""

    forced: Annotated[
        Literal["with", "without", "both"], Field(json_schema_extra={"metavar": "RUN"})
    ] = "with"
    """Whose own answer both runs are made to say: with, without, or both in turn."""
    kinds: AskedKinds = ("resample",)
    top: Positive = 3
    """Heads listed for each token."""
    noise: Positive = 8
    """Heads a token (drawn by the seed) that are patched with their own z, for the noise floor."""
    reference: Count = 16
    """Drawn pairs over which kind `mean` averages z, made to say the same words; 0: this pair
    alone. Not used with --pairs: `mean` is then the mean over the dataset."""
