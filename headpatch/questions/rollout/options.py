"""Options of `headpatch rollout`."""

from typing import Annotated, Literal

from pydantic import Field

from headpatch.core.study.options import Count, ForcedAnswer


class RolloutOptions(ForcedAnswer):
    """From which token attention is rolled back to the picture, and how that is checked."""

    token: Count = 0
    """Which token of the answer, counted from 0."""
    forced: Annotated[Literal["with", "without"], Field(json_schema_extra={"metavar": "RUN"})] = (
        "with"
    )
    """Whose own answer both runs are made to say: with, without."""
    draws: Annotated[int, Field(ge=2, le=1_000_000)] = 20
    """Random orders of the patches to compare the maps with."""
    fill: Annotated[Literal["other", "mean"], Field(json_schema_extra={"metavar": "NAME"})] = (
        "other"
    )
    """What stands in a deleted patch: other (the other picture, at that place), mean (the picture's
    mean colour)."""
