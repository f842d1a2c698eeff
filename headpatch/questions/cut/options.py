"""Options of `headpatch cut`."""

from typing import Annotated, Self

from pydantic import BeforeValidator, Field, model_validator

from headpatch.core.study.options import Count, Positive, Strict, check_edges, layer_span, sequence
from headpatch.errors import InputError
from headpatch.heads import Selection


class CutOptions(Strict):
    """Which edges of attention are cut, and where."""

    edges: Annotated[tuple[str, ...], BeforeValidator(sequence), Field(min_length=1)] = (
        "answer-region",
        "question-region",
        "question-other",
        "answer-question",
    )
    """Edges that are cut, from-to: the queries `from` no longer see the keys `to`. Ends as for
    --from."""
    window: Positive = 5
    """Consecutive layers that are cut together, centred on every layer in turn."""
    layers: Annotated[str | None, Field(json_schema_extra={"metavar": "FIRST-LAST"})] = None
    """One fixed span of layers instead of the windows: 10-14."""
    heads: Annotated[str | None, Field(json_schema_extra={"metavar": "HEADS"})] = None
    """Heads instead, one by one and jointly: 24.17,23.20 or 24.0-24.31 or layer:24 or top:5 (of the
    attention ranking)."""
    controls: Count = 10
    """Random sets of image tokens outside the region to compare with."""
    itself: bool = False
    """Cut a token's view of its own position too, where the keys hold it."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        check_edges(self.edges, self.itself)
        if self.heads is not None and self.layers is not None:
            raise InputError("--heads, --layers", "both of them", "one, or --window")
        if self.layers is not None:
            layer_span(self.layers)
        if self.heads is not None:
            Selection.parse(self.heads)
        return self
