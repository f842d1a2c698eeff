"""Which answer the runs are made to say, word by word: the options of trace and rollout."""

from typing import Annotated, Literal, Self

from pydantic import BeforeValidator, Field, model_validator

from headpatch.core.study.changes import Kinds
from headpatch.core.study.strict import Count, Positive, Strict, sequence
from headpatch.errors import InputError
from headpatch.kinds import AskedKind


class _Forced(Strict):
    """Which answer both runs are made to say, word by word."""

    answer: str | None = None
    """Instead of a run's own answer."""
    tokens: Positive = 32
    """At most so many tokens of it."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.answer is not None and not self.answer.strip():
            raise InputError("--answer", "an empty text", "words that the model could say")
        return self


class TraceOptions(_Forced, Kinds):
    """Which answer is traced token by token, and how heads are changed."""

    forced: Literal["with", "without", "both"] = "with"
    """The run whose own answer it is."""
    kinds: Annotated[tuple[AskedKind, ...], BeforeValidator(sequence), Field(min_length=1)] = (
        "resample",
    )
    top: Positive = 3
    """Heads listed for each token."""
    noise: Positive = 8
    """Heads a token (drawn by the seed) that are patched with their own z, for the noise floor."""


class RolloutOptions(_Forced):
    """From which token attention is rolled back to the picture, and how that is checked."""

    forced: Literal["with", "without"] = "with"
    """The run whose own answer it is."""
    token: Count = 0
    """Which token of it, counted from 0."""
    draws: Annotated[int, Field(ge=2, le=1_000_000)] = 20
    """Random orders of the patches, to compare the maps with."""
    fill: Literal["other", "mean"] = "other"
    """What stands in a patch that is deleted: the other picture there, or the picture's mean."""
