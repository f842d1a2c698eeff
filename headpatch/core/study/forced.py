"""Which answer the runs are made to say, word by word: options of trace and of rollout."""

from typing import Annotated, Self

from pydantic import Field, model_validator

from headpatch.core.study.strict import Positive, Strict
from headpatch.errors import InputError


class ForcedAnswer(Strict):
    """Which answer both runs are made to say, word by word."""

    answer: Annotated[str | None, Field(json_schema_extra={"metavar": "TEXT"})] = None
    """What both runs are made to say, instead of a run's own answer."""
    tokens: Positive = 32
    """At most so many tokens of it."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.answer is not None and not self.answer.strip():
            raise InputError("--answer", "an empty text", "words that the model could say")
        return self
