"""Options of `headpatch path`."""

from typing import Annotated, Self

from pydantic import BeforeValidator, Field, model_validator

from headpatch.core.study.options import Candidates, Positive, check_edges, sequence


class PathOptions(Candidates):
    """What is followed, and the paths to which heads."""

    edges: Annotated[tuple[str, ...], BeforeValidator(sequence), Field(min_length=1)] = (
        "answer-region",
        "words-region",
        "answer-other",
        "answer-words",
    )
    """Attention to cut, from-to, comma-separated: answer-region,words-region. Ends as for
    `headpatch cut`."""
    window: Positive = 5
    """Layers that are cut together, centred on every layer in turn."""

    @model_validator(mode="after")
    def _check_edges(self) -> Self:
        check_edges(self.edges)
        return self
