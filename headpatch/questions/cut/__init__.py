"""Cut attention between named tokens and measure the shift of LD = logit(Yes) - logit(No).

In both runs, for all heads of a window of layers that moves through the model (attention knockout,
Geva et al. 2023), for fixed layers, or for single heads; beside the same cut of as many random
image tokens, and the noise floor. Ends that are `sinks` are the image tokens of each run whose
stream is massive at a few dimensions (attention sinks), beside as many random ones that are none. A
token keeps its own position unless --itself is given; one that loses every key gets z = 0. Writes
cuts.csv, cuts.png and run.yaml.

With `--pairs`: on every pair of a dataset that passes the gate (both answers right). Writes
cuts.csv (rows of every pair), cuts_mean.csv (means with intervals over pairs), gate.csv, the figure
and run.yaml. Ctrl-C keeps finished pairs; the same command with `--resume` goes on and gives the
same result.

The cost is printed before the run. A pass starts at the first layer that is cut, where the model
allows it; else every cut takes a whole one.

Examples
--------
`headpatch cut --from answer --to region --layers 20-23 --out cut_output`

`headpatch cut --from answer,question --to region --window 5`

`headpatch cut --from answer --to sinks --sink-dims 104 --sink-tau 7 --layers 10-14 --controls 2`

`headpatch cut --edges answer-region --pairs pairs --limit 3` (after `headpatch pairs --n 20`)
"""

from collections.abc import Mapping
from itertools import product
from typing import TYPE_CHECKING, Annotated, Any, Self

from pydantic import BeforeValidator, Field, model_validator

from headpatch.core.question import Flag, Verb
from headpatch.core.study.options import (
    EDGE_ENDS,
    SINK_TAU,
    Count,
    Positive,
    Strict,
    check_edges,
    layer_span,
    sequence,
)
from headpatch.errors import InputError
from headpatch.heads import Selection
from headpatch.questions.cut.columns import CUTS, MEANS
from headpatch.text import whole_number

if TYPE_CHECKING:
    from headpatch.core.study.study import Study


def _whole_numbers(value: Any) -> Any:
    """Read words of whole numbers, as flags give them."""
    if not isinstance(value, list | tuple):
        return value
    if not value:
        raise InputError("--sink-dims", "none", "dimensions of the stream, such as 1415,2533")
    return tuple(
        one if (not isinstance(one, str)) or (read := whole_number(one)) is None else read
        for one in value
    )


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
    sink_dims: Annotated[
        tuple[Annotated[int, Field(ge=0)], ...] | None,
        BeforeValidator(_whole_numbers),
        Field(json_schema_extra={"metavar": "NUMBERS"}),
    ] = None
    """Dimensions of the stream by which sinks are told; left out, the two that are largest at the
    prompt's first token."""
    sink_tau: Annotated[float, Field(gt=0)] = SINK_TAU
    """How many times its root mean square a token's stream must be there for a sink."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        check_edges(self.edges, self.itself, sinks=True)
        if self.heads is not None and self.layers is not None:
            raise InputError("--heads, --layers", "both of them", "one, or --window")
        if self.layers is not None:
            layer_span(self.layers)
        if self.heads is not None:
            Selection.parse(self.heads)
        return self


def _edges(given: Mapping[str, Any], _study: "Study") -> Mapping[str, Any]:
    """Join every ``--from`` with every ``--to``."""
    queries, keys = given["queries"], given["keys"]
    if queries is None and keys is None:
        return {}
    if given["edges"] is not None:
        raise InputError("--edges", "--from or --to beside it", "either --edges or both of them")
    if queries is None or keys is None:
        raise InputError("--from, --to", "only one of them", "both ends of the edge")
    for flag, names in (("--from", queries), ("--to", keys)):
        if unknown := [name for name in names if name not in EDGE_ENDS]:
            raise InputError(flag, repr(unknown[0]), f"one of {', '.join(EDGE_ENDS)}")
    return {"cut.edges": tuple("-".join(ends) for ends in product(queries, keys))}


VERB = Verb(
    "cut",
    "Which tokens must be able to read which, and in which layers?",
    CutOptions,
    __doc__ or "",
    (CUTS, MEANS),
    ("cuts.png",),
    flags=(
        Flag(
            "queries",
            "--from",
            "Which tokens no longer look, comma-separated: answer, question (every token after the "
            "image), words (those but the answer), image, region, other (the image outside the "
            "region), sinks (image tokens with massive activations), all.",
            "NAMES",
            "several",
        ),
        Flag("keys", "--to", "At which tokens; the same names.", "NAMES", "several"),
    ),
    keys=_edges,
    finished="pairs",
)
