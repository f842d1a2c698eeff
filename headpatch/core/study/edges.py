"""Which edges of attention are cut, and which heads are looked into: cut, combine and path."""

import re
from collections.abc import Mapping, Sequence
from typing import Annotated, Literal, Self, get_args

from pydantic import BeforeValidator, Field, model_validator

from headpatch.core.study.strict import Positive, Strict, sequence
from headpatch.errors import InputError
from headpatch.heads import Selection

EdgeEnd = Literal["answer", "question", "words", "image", "region", "other", "all"]
"""Positions that an edge joins; ``words`` is the question without the answer position, ``other``
the image outside the study's region."""
EDGE_ENDS: Mapping[str, EdgeEnd] = {name: name for name in get_args(EdgeEnd)}
"""The ends by their names."""

_LAYERS = re.compile("([0-9]{1,99})(?:-([0-9]{1,99}))?")


def edge_ends(text: str) -> tuple[EdgeEnd, EdgeEnd]:
    """Read ``answer-region``: the queries that look, and the keys that they lose."""
    start, _, end = text.partition("-")
    if start not in EDGE_ENDS or end not in EDGE_ENDS:
        expected = f"from-to, such as answer-region; each end one of {', '.join(EDGE_ENDS)}"
        raise InputError("--edges", repr(text) if text else "an empty edge", expected)
    return EDGE_ENDS[start], EDGE_ENDS[end]


def layer_span(text: str) -> tuple[int, int]:
    """Read ``10-14`` or ``10``: the first and the last layer."""
    match = _LAYERS.fullmatch(text.strip())
    if match is None:
        raise InputError("--layers", repr(text), "first-last, such as 10-14, or one layer")
    first, last = int(match[1]), int(match[2] or match[1])
    if first > last:
        raise InputError("--layers", f"{text!r} runs backwards", "the lower layer first")
    return first, last


def check_edges(edges: Sequence[str], itself: bool = False) -> None:
    """Refuse edges that are unknown, named twice, or cut nothing; `itself` cuts one more."""
    for edge in edges:
        if edge_ends(edge) == ("answer", "answer") and not itself:
            found = "answer-answer cuts nothing: a query keeps its own position"
            expected, hint = "an edge to other tokens", "Use --itself to cut that position too."
            raise InputError("--edges", found, expected, hint)
    if len(set(edges)) < len(edges):
        raise InputError("--edges", "an edge is named twice", "each edge once")


class Candidates(Strict):
    """Which heads are looked into: named ones, or the first of one or two rankings."""

    heads: Annotated[str | None, Field(json_schema_extra={"metavar": "HEADS"})] = None
    """Named heads instead of --top and --by: 24.17,23.20 or 24.0-24.5 or layer:24 or top:5 (of the
    attention ranking)."""
    top: Positive = 3
    """Take the first N heads of each ranking."""
    by: Annotated[
        tuple[Literal["effect", "attention"], ...],
        BeforeValidator(sequence),
        Field(min_length=1, json_schema_extra={"metavar": "RANKINGS"}),
    ] = ("effect", "attention")
    """Rankings that --top takes heads of, comma-separated: effect (the largest exact effects of one
    head alone, of each direction), attention."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.heads is not None:
            Selection.parse(self.heads)
        return self
