"""Options of `headpatch combine`."""

from typing import Annotated, Literal

from pydantic import Field

from headpatch.core.study.options import AskedKinds, Candidates, Changes, Positive


class CombineOptions(Candidates, Changes):
    """Which heads are changed in pairs, and how."""

    top: Positive = 6
    """Take the first N heads of each ranking."""
    kinds: AskedKinds = ("resample",)
    positions: Annotated[
        Literal["answer", "question", "image", "all"],
        Field(json_schema_extra={"metavar": "SCOPE"}),
    ] = "answer"
    """Where z is changed: answer, question, image, all."""
    listed: Positive = 10
    """Pairs of heads listed for each way."""
