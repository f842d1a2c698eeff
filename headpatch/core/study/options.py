"""What every section of a study is, and options that several questions share."""

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Any, Literal, Self, get_args

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from headpatch.core.measures import By
from headpatch.core.study.reading import PathText, places, words
from headpatch.core.study.reading import sequence as sequence  # noqa: PLC0414, for sections
from headpatch.errors import InputError
from headpatch.heads import Selection
from headpatch.kinds import (
    ALPHA,
    ASKED,
    DEFAULT,
    DONATED,
    OF_ONE_PAIR,
    WITH_ALPHA,
    AskedKind,
    KindOfOnePair,
    kinds_help,
    refuse_alphas,
)
from headpatch.text import checked_text

Quadrant = Literal["top-left", "top-right", "bottom-left", "bottom-right"]
_MOST = 1_000_000
Count = Annotated[int, Field(ge=0, le=_MOST)]
"""How many there are of something that may be left out."""
Positive = Annotated[int, Field(ge=1, le=_MOST)]
"""How many there are of something."""


class Strict(BaseModel):
    """A section: its keys are fixed, unknown ones are errors, values are never converted."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        strict=True,
        populate_by_name=True,
        serialize_by_alias=True,
        allow_inf_nan=False,
        use_attribute_docstrings=True,
    )

    def __repr_args__(self) -> Iterator[tuple[str | None, Any]]:
        """Yield what is not as by default: the whole takes a screen."""
        for name, field in type(self).model_fields.items():
            if (value := getattr(self, name)) != field.get_default(call_default_factory=True):
                yield name, value

    @model_validator(mode="before")
    @classmethod
    def _check_texts(cls, values: Any) -> Any:
        for key, value in values.items() if isinstance(values, Mapping) else ():
            for text in _texts([key, value]):
                checked_text(text, str(key)[:80])
        return values


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, list | tuple):
        for one in value:
            yield from _texts(one)
    elif isinstance(value, Mapping):
        yield from _texts([*value.keys(), *value.values()])


KindsOfOnePair = Annotated[
    tuple[KindOfOnePair, ...],
    BeforeValidator(words),
    Field(min_length=1, description=kinds_help(OF_ONE_PAIR)),
]
AskedKinds = Annotated[
    tuple[AskedKind, ...],
    BeforeValidator(words),
    Field(min_length=1, description=kinds_help(ASKED)),
]


class Kinds(Strict):
    """What stands in the place of z, and in which run."""

    kinds: KindsOfOnePair = DEFAULT
    alpha: Annotated[float, Field(json_schema_extra={"metavar": "X"})] = ALPHA
    """What a kind with a factor (scale) multiplies z by: 0 takes all away, 1 changes nothing."""
    directions: Annotated[
        tuple[Literal["noising", "denoising"], ...], BeforeValidator(words), Field(min_length=1)
    ] = ("noising", "denoising")
    """noising (change the with-run: necessary?), denoising (change the without-run:
    sufficient?)."""
    reference: Count | None = None
    """Drawn pairs over which kind `mean` averages z; 0: this pair alone. 16 of the bundled pictures
    and 0 of your own, if left out. Of many pairs it is their own mean, and this is used only where
    their positions do not correspond."""


def alphas_of(alpha: float | Sequence[float]) -> tuple[float, ...]:
    """Return one alpha, or several, as a tuple."""
    return tuple(alpha) if isinstance(alpha, Sequence) else (alpha,)


def alpha_of(options: Kinds) -> dict[str, float]:
    """Return ``alpha`` as tensors keep it: there only if a kind was run that takes it."""
    return {"alpha": options.alpha} if {*options.kinds} & {*WITH_ALPHA} else {}


class Changes(Kinds):
    """How z is changed, and where."""

    positions: Literal["answer", "question", "image", "all"] = "answer"


class ChangesOverPairs(Changes):
    """How z is changed where it may come from another pair of the dataset."""

    kinds: AskedKinds = DEFAULT
    source: Literal["twin", "other"] = "twin"
    """Where kind resample takes z: twin (the pair's own other run), or other (over pairs: another
    random pair's runs, by kinds resample-other and resample-same in its place)."""
    toward: Literal["image", "region"] = "image"
    """To what kind reweight multiplies attention by 1 + alpha (-1 takes it away, 0 changes
    nothing): image (every image token), region (those of the pair's region)."""

    @model_validator(mode="before")
    @classmethod
    def _take_from_others(cls, values: Any) -> Any:
        if not isinstance(values, Mapping) or values.get("source") != "other":
            return values
        kinds = values.get("kinds", DEFAULT)
        if not isinstance(kinds, list | tuple):
            return values  # for others to refuse
        each = [DONATED if kind == "resample" else (kind,) for kind in kinds]
        return {**values, "kinds": tuple(dict.fromkeys(kind for one in each for kind in one))}

    @model_validator(mode="after")
    def _check_alpha(self) -> Self:
        refuse_alphas(self.kinds, alphas_of(self.alpha))
        return self


class VisionOptions(Strict):
    """Where heads of the vision tower are changed."""

    positions: Literal["class", "patches", "all"] = "all"
    """The class token, every other token, or both."""


EdgeEnd = Literal["answer", "question", "words", "image", "region", "other", "sinks", "all"]
"""Positions that an edge joins; ``words`` is the question without the answer position, ``other``
the image outside the study's region, ``sinks`` the image tokens that are attention sinks."""
SINK_TAU = 20.0
"""How many times its root mean square a sink's stream is at a sink dimension, as published."""
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


def check_edges(edges: Sequence[str], itself: bool = False, sinks: bool = False) -> None:
    """Refuse edges that are unknown, named twice, or cut nothing; `itself` cuts one more.

    Ends that are `sinks` are of those alone who look for them.
    """
    for edge in edges:
        if "sinks" in edge_ends(edge) and not sinks:
            raise InputError("--edges", f"{edge}: sinks", "headpatch cut, which looks for sinks")
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


class PairsOptions(Strict):
    """Over which pairs a study is run."""

    manifest: PathText | None = None
    """A dataset's table, or a folder with one; None runs the study's one pair."""
    limit: Positive | None = None
    """At most so many pairs of the dataset, drawn by the seed; None takes all."""
    margin: Annotated[float, Field(ge=0)] = 1.0
    """Logits by which LD_with and LD_without of a pair must lie apart."""
    level: Annotated[float, Field(gt=0, lt=1)] = 0.95
    """Coverage of the intervals over pairs."""
    resamples: Annotated[int, Field(ge=100, le=1_000_000)] = 5000
    """Bootstrap draws of an interval."""
    hold: Annotated[float, Field(ge=0)] | None = None
    """GiB of memory in which pairs stay open, so that their pictures are not run again. If left
    out, 4 and at most a quarter of what is free on a CPU, 12 and at most half on a GPU."""
    record: bool = True
    """Whether a GPU records passes that run again pair after pair: sooner, the same to rounding."""


class DrawOptions(Strict):
    """How pairs are drawn."""

    n: Annotated[int, Field(ge=1, le=99_999)] = 200
    """Pairs."""
    regions: Annotated[tuple[str, ...], BeforeValidator(places), Field(min_length=1)] = tuple(
        f"{corner}-corner" for corner in get_args(Quadrant)
    )
    """Places asked about equally often, as for the study's `region`; `top-left` is short for
    `top-left-corner`. A box has no name: it comes alone, with a wording that names the place."""
    wording: Annotated[tuple[str, ...], BeforeValidator(sequence), Field(min_length=1)] = (
        "Is there anything {at}?",
    )
    """Used equally often; see `headpatch.pairs.generate.plan`."""
    size: Annotated[int, Field(ge=32, le=4096)] = 336
    """Width and height of the pictures, in pixels."""
    format: Literal["png", "jpg"] = "png"
    """Kind of picture file."""
    folder: PathText = "pairs"
    """Where `headpatch pairs` writes them."""


class VerdictOptions(Strict):
    """How heads are judged over many pairs."""

    split: Annotated[float, Field(gt=0, lt=1)] = 0.5
    """Share of the pairs that is the first of two parts; each judges what the other chooses."""
    delta: Annotated[float, Field(gt=0, lt=1)] = 0.02
    """Smallest effect of interest, as a share of the difference between the runs."""
    attention_delta: Annotated[float, Field(gt=0, lt=1)] = 0.05
    """Smallest attention difference of interest, as a share of the image attention."""
    positions: Annotated[
        Literal["answer", "question", "image", "all"], Field(json_schema_extra={"metavar": "SCOPE"})
    ] = "answer"
    """Where z is changed: answer, question, image, all."""
    source: Literal["twin", "other"] = "twin"
    """Where resampled z comes from: twin (the pair's own other run), or other (a random other
    pair's run with the other answer)."""
    until_decided: Annotated[int, Field(ge=1, le=_MOST)] | None = None
    """Judge after every so many pairs, and stop when no head is undecided, or after all pairs; the
    error rates hold whenever it stops."""
    decide: Annotated[str | None, Field(json_schema_extra={"metavar": "HEADS"})] = None
    """With --until-decided: the heads that are to be decided, such as 24.17,23.20; all if left
    out."""
    top: Positive = 20
    """Heads that attention picks out."""
    rankings: Annotated[tuple[By, ...], BeforeValidator(words)] = ()
    """Rankings of `headpatch rank --by` whose first heads are judged as well, together and in the
    faithfulness curves, comma-separated: diff, raw, entropy, localization, text-image."""
    groups: Count = 100
    """Random sets of heads on each pair, which show what a head adds once others are
    gone; 0 seeks partners by the effects of heads alone."""
    partners: Count = 32
    """Heads among which redundant ones are sought: half of them add most once others are gone, half
    have the largest effects alone."""
    search: Count = 12
    """Pairs of each part on which sets of redundant heads are sought."""
    controls: Count = 40
    """Random sets of heads of the same layers, to compare sets that were chosen with."""
    noise: Positive = 8
    """Heads a pair and direction that are patched with their own z, for the noise floor."""
    nulls: Count = 16
    """Pairs asked about a wrong place and mirrored."""
    vision: Count = 12
    """Pairs on which all heads of each vision layer are resampled."""
    followed: Annotated[int, Field(ge=2, le=1_000_000)] = 20
    """Pairs that judge, one a scene, on which claims are tested that need more than a verdict."""
    attribution: Count = 8
    """Pairs of each part whose gradients rank the heads, for the faithfulness curves; 0: none."""
    random: Positive = 3
    """Random rankings beside the others in the faithfulness curves."""


class ForcedAnswer(Strict):
    """Which answer both runs are made to say, word by word."""

    answer: Annotated[str | None, Field(json_schema_extra={"metavar": "TEXT"})] = None
    """What both runs are made to say, instead of a run's own answer."""
    tokens: Positive = 32
    """At most so many tokens of the answer."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.answer is not None and not self.answer.strip():
            raise InputError("--answer", "an empty text", "words that the model could say")
        return self


_EITHER = (
    ("heads", "top", "named heads, or rankings"),
    ("heads", "by", "named heads, or rankings"),
    ("answer", "forced", "one of them"),
)


def refuse_both(given: Mapping[str, Any]) -> None:
    """Refuse options of which each makes the other void; None is not given."""
    for first, second, expected in _EITHER:
        if given.get(first) is not None and given.get(second) is not None:
            raise InputError(f"--{first}, --{second}", "both of them", expected)


def refuse_void_scope(names_vision: bool, heads: str, scope: str | None) -> None:
    """Refuse a scope of the vision tower's tokens where no vision head is changed."""
    if scope is not None and not names_vision:
        found, expected = f"no vision head in --heads {heads}", "a vision head there, such as v8.3"
        raise InputError("--vision-positions", found, expected)
