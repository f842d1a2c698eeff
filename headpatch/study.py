"""The study: everything that a run depends on, as one frozen, strict YAML file.

Defaults live here and nowhere else. Unknown keys are errors. `Study()` is the bundled default
study: the seed's question, asked of the bundled model.
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from headpatch.errors import InputError
from headpatch.heads import Selection
from headpatch.measures.claims import Claim
from headpatch.pairs.pair import BUNDLED, Pair, make_pair
from headpatch.pairs.region import Region

_BUNDLED = "bundled:"


def _sequence(value: Any) -> Any:  # YAML has lists only
    return tuple(value) if isinstance(value, list) else value


def _words(value: Any) -> Any:  # YAML 1.1 reads a bare Yes as true
    spelled = {True: "Yes", False: "No"}
    items = _sequence(value)
    if not isinstance(items, tuple):
        return items
    return tuple(spelled[item] if isinstance(item, bool) else item for item in items)


_Answer = Annotated[str, Field(min_length=1)]
_Quadrant = Literal["top-left", "top-right", "bottom-left", "bottom-right"]


class _Strict(BaseModel):
    model_config = ConfigDict(
        frozen=True, extra="forbid", strict=True, populate_by_name=True, serialize_by_alias=True
    )


class RankOptions(_Strict):
    """How heads are ranked."""

    top: Annotated[int, Field(ge=1)] = 20
    """Heads listed, drawn, and counted by layer."""
    overlays: Annotated[int, Field(ge=0)] = 3
    """Heads whose attention is drawn over the pictures."""


class _Changes(_Strict):
    """How z is changed."""

    kinds: Annotated[
        tuple[Literal["zero", "mean", "resample"], ...],
        BeforeValidator(_sequence),
        Field(min_length=1),
    ] = ("zero", "mean", "resample")
    directions: Annotated[
        tuple[Literal["noising", "denoising"], ...],
        BeforeValidator(_sequence),
        Field(min_length=1),
    ] = ("noising", "denoising")
    positions: Literal["answer", "question", "image", "all"] = "answer"
    reference: Annotated[int, Field(ge=0)] = 16
    """Drawn pairs over which `mean` averages z; 0 averages over the study's own two runs."""


class AblateOptions(_Changes):
    """Which heads are changed, and how."""

    heads: str = "top:3"
    """See `headpatch.heads.Selection`."""
    controls: Annotated[int, Field(ge=0)] = 20
    """Random sets of heads of the same layers, to compare each set with."""


class SweepOptions(_Changes):
    """How every head, or every set of a list, is changed."""

    tower: Literal["lm", "vision"] = "lm"
    """Whose heads are changed: the language model's, or the vision tower's (see `Study.vision`)."""
    sets: str | None = None
    """A file with one set of heads a line (``24.17+23.20``) instead of every single head."""
    layers: bool = False
    """Change every whole layer as well."""
    approx: bool = False
    """Estimate the same effects from gradients, and measure how the estimates agree."""
    top: Annotated[int, Field(ge=1)] = 10
    """Heads listed for each direction."""
    noise: Annotated[int, Field(ge=1)] = 32
    """Heads (drawn by the seed) that are patched with their own z, for the noise floor."""
    rows: Annotated[int, Field(ge=1)] | None = None
    """Rows that walk through the layers together; None finds how many."""
    budget: Annotated[int, Field(ge=1)] | None = None
    """MiB that these rows may take; None takes what is free."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.layers and self.sets is not None:
            raise InputError("--sets, --layers", "both of them", "one of them")
        if self.tower == "vision" and self.budget is not None:
            raise InputError(
                "--budget",
                "of no use with --tower vision, whose rows are whole passes",
                "--rows",
            )
        return self


class VisionOptions(_Strict):
    """Where heads of the vision tower are changed."""

    positions: Literal["class", "patches", "all"] = "all"
    """The class token, every other token, or both."""


EDGE_ENDS = ("answer", "question", "words", "image", "region", "other", "all")
"""Positions that an edge joins; ``words`` is the question without the answer position, ``other``
the image outside the study's region."""

_LAYERS = re.compile(r"(\d+)(?:-(\d+))?")


def edge_ends(text: str) -> tuple[str, str]:
    """Read ``answer-region``: the queries that look, and the keys that they lose.

    Raises
    ------
    InputError
        If an end is missing or unknown.
    """
    ends = text.split("-")
    if len(ends) != 2 or not all(end in EDGE_ENDS for end in ends):
        raise InputError(
            "--edges",
            repr(text) if text else "an empty edge",
            f"from-to, such as answer-region; each end one of {', '.join(EDGE_ENDS)}",
        )
    return ends[0], ends[1]


def layer_span(text: str) -> tuple[int, int]:
    """Read ``10-14`` or ``10``: the first and the last layer.

    Raises
    ------
    InputError
        If it is neither, or runs backwards.
    """
    match = _LAYERS.fullmatch(text.strip())
    if match is None:
        raise InputError("--layers", repr(text), "first-last, such as 10-14, or one layer")
    first, last = int(match[1]), int(match[2] or match[1])
    if first > last:
        raise InputError("--layers", f"{text!r} runs backwards", "the lower layer first")
    return first, last


class CutOptions(_Strict):
    """Which edges of attention are cut, and where."""

    edges: Annotated[tuple[str, ...], BeforeValidator(_sequence), Field(min_length=1)] = (
        "answer-region",
        "question-region",
        "question-other",
        "answer-question",
    )
    """Each ``from-to``, see `EDGE_ENDS`: the queries ``from`` no longer see the keys ``to``."""
    window: Annotated[int, Field(ge=1)] = 5
    """Consecutive layers that are cut together, centred on every layer in turn."""
    layers: str | None = None
    """One fixed span of layers (``10-14``) instead of the windows."""
    heads: str | None = None
    """Heads whose edges are cut, one by one and jointly, instead of the windows."""
    controls: Annotated[int, Field(ge=0)] = 10
    """Random sets of image tokens outside the region that take the region's place."""
    itself: bool = False
    """Whether a query loses its own position too, where the keys hold it."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        for edge in self.edges:
            if edge_ends(edge) == ("answer", "answer") and not self.itself:
                raise InputError(
                    "--edges",
                    "answer-answer cuts nothing: a query keeps its own position",
                    "an edge to other tokens",
                    "Use --itself to cut that position too.",
                )
        if len(set(self.edges)) < len(self.edges):
            raise InputError("--edges", "an edge is named twice", "each edge once")
        if self.heads is not None and self.layers is not None:
            raise InputError("--heads, --layers", "both of them", "one, or --window")
        if self.layers is not None:
            layer_span(self.layers)
        if self.heads is not None:
            Selection.parse(self.heads)
        return self


class _Candidates(_Strict):
    """Which heads are looked into: named ones, or the first of one or two rankings."""

    heads: str | None = None
    """Instead of the rankings; see `headpatch.heads.Selection`."""
    top: Annotated[int, Field(ge=1)] = 3
    """The first so many heads of each ranking of `by`."""
    by: Annotated[
        tuple[Literal["effect", "attention"], ...], BeforeValidator(_sequence), Field(min_length=1)
    ] = ("effect", "attention")
    """``effect``: the largest exact effects of resampling a head alone, of each direction;
    ``attention``: the largest attention differences."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.heads is not None:
            Selection.parse(self.heads)
        return self


class CombineOptions(_Candidates, _Changes):
    """Which heads are changed in pairs, and how."""

    top: Annotated[int, Field(ge=1)] = 6
    kinds: Annotated[
        tuple[Literal["zero", "mean", "resample"], ...],
        BeforeValidator(_sequence),
        Field(min_length=1),
    ] = ("resample",)
    listed: Annotated[int, Field(ge=1)] = 10
    """Pairs listed for each direction."""


class PathOptions(_Candidates):
    """What is traced, and for which heads."""

    edges: Annotated[tuple[str, ...], BeforeValidator(_sequence), Field(min_length=1)] = (
        "answer-region",
        "words-region",
        "answer-other",
        "answer-words",
    )
    """Cut in windows of layers; see `CutOptions.edges`."""
    window: Annotated[int, Field(ge=1)] = 5
    """Consecutive layers that are cut together, centred on every layer in turn."""

    @model_validator(mode="after")
    def _check_edges(self) -> Self:
        CutOptions(edges=self.edges, window=self.window)
        return self


class _Forced(_Strict):
    """Which answer both runs are made to say, word by word."""

    answer: str | None = None
    """Instead of a run's own answer."""
    tokens: Annotated[int, Field(ge=1)] = 32
    """At most so many tokens of it."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.answer is not None and not self.answer.strip():
            raise InputError("--answer", "an empty text", "words that the model could say")
        return self


class TraceOptions(_Forced):
    """Which answer is traced token by token, and how heads are changed."""

    forced: Literal["with", "without", "both"] = "with"
    """The run whose own answer it is."""
    kinds: Annotated[
        tuple[Literal["zero", "resample"], ...], BeforeValidator(_sequence), Field(min_length=1)
    ] = ("resample",)
    directions: Annotated[
        tuple[Literal["noising", "denoising"], ...],
        BeforeValidator(_sequence),
        Field(min_length=1),
    ] = ("noising", "denoising")
    top: Annotated[int, Field(ge=1)] = 3
    """Heads listed for each token."""
    noise: Annotated[int, Field(ge=1)] = 8
    """Heads a token (drawn by the seed) that are patched with their own z, for the noise floor."""


class RolloutOptions(_Forced):
    """From which token of an answer attention is rolled back to the picture, and how it is checked."""

    forced: Literal["with", "without"] = "with"
    """The run whose own answer it is."""
    token: Annotated[int, Field(ge=0)] = 0
    """Which token of it, counted from 0."""
    draws: Annotated[int, Field(ge=2)] = 20
    """Random orders of the patches, to compare the maps with."""
    fill: Literal["other", "mean"] = "other"
    """What stands in a patch that is deleted: the other picture there, or the picture's mean."""


class PairsOptions(_Strict):
    """Over which pairs a study is run."""

    manifest: str | None = None
    """A dataset's table, or a folder with one; None runs the study's one pair."""
    limit: Annotated[int, Field(ge=1)] | None = None
    """At most so many pairs of the dataset, drawn by the seed; None takes all."""
    margin: Annotated[float, Field(ge=0)] = 1.0
    """Logits by which LD_with and LD_without of a pair must lie apart."""
    level: Annotated[float, Field(gt=0, lt=1)] = 0.95
    """Coverage of the intervals over pairs."""
    resamples: Annotated[int, Field(ge=100)] = 5000
    """Bootstrap draws of an interval."""


class DrawOptions(_Strict):
    """How pairs are drawn."""

    n: Annotated[int, Field(ge=1, le=99_999)] = 200
    """Pairs."""
    regions: Annotated[
        tuple[Literal[_Quadrant, "center"], ...], BeforeValidator(_sequence), Field(min_length=1)
    ] = ("top-left", "top-right", "bottom-left", "bottom-right")
    """Asked about equally often."""
    wording: Annotated[tuple[str, ...], BeforeValidator(_sequence), Field(min_length=1)] = (
        "Is there anything {at}?",
    )
    """Used equally often; see `headpatch.pairs.generate.plan`."""
    size: Annotated[int, Field(ge=32, le=4096)] = 336
    """Width and height of the pictures, in pixels."""
    format: Literal["png", "jpg"] = "png"
    """Kind of picture file."""
    folder: str = "pairs"
    """Where `headpatch pairs` writes them."""


class VerdictOptions(_Strict):
    """How heads are judged over many pairs."""

    split: Annotated[float, Field(gt=0, lt=1)] = 0.5
    """Share of the pairs on which heads are chosen; they are judged on the others."""
    delta: Annotated[float, Field(gt=0, lt=1)] = 0.02
    """Smallest effect of interest, as a share of the difference between the runs."""
    positions: Literal["answer", "question", "image", "all"] = "answer"
    """Where z is changed."""
    top: Annotated[int, Field(ge=1)] = 20
    """Heads that attention picks out."""
    partners: Annotated[int, Field(ge=0)] = 16
    """Chosen heads of which every two are changed together, in search of redundant ones."""
    controls: Annotated[int, Field(ge=0)] = 40
    """Random sets of heads of the same layers, to compare the chosen set with."""
    noise: Annotated[int, Field(ge=1)] = 8
    """Heads a pair and direction that are patched with their own z, for the noise floor."""
    nulls: Annotated[int, Field(ge=0)] = 16
    """Pairs asked about a wrong place and mirrored."""
    vision: Annotated[int, Field(ge=0)] = 12
    """Pairs on which all heads of each vision layer are resampled."""
    attribution: Annotated[int, Field(ge=0)] = 16
    """Pairs whose gradients rank the heads, for the faithfulness curves; 0 leaves that out."""
    random: Annotated[int, Field(ge=1)] = 3
    """Random rankings beside the others in the faithfulness curves."""


class Published(_Strict):
    """A head's figures as published."""

    layer: int
    head: int
    diff: float
    with_: Annotated[float, Field(alias="with")]
    without: float


class Expected(_Strict):
    """Published figures, printed beside what is measured."""

    source: str
    heads: Annotated[tuple[Published, ...], BeforeValidator(_sequence)] = ()
    quadrants: dict[_Quadrant, Annotated[tuple[float, float], BeforeValidator(_sequence)]] = Field(
        default_factory=dict
    )
    """Quadrant: (with, without)."""
    divergence: dict[Literal["kl", "js", "js_distance"], float] = Field(default_factory=dict)
    vision_diff: dict[int, float] = Field(default_factory=dict)
    """Vision layer: difference."""
    vision_divergence: dict[int, dict[Literal["kl", "js", "js_distance"], float]] = Field(
        default_factory=dict
    )


class Study(_Strict):
    """One study. Paths in a file are relative to that file."""

    name: str = "demo"
    model: str = "demo"
    device: str = "auto"
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    device_map: str | None = None
    """Spreads a model over devices, CPU memory and disk through Accelerate: ``auto``."""
    quantize: Literal["8bit", "4bit"] | None = None
    """Quantises the weights through bitsandbytes."""
    with_: Annotated[str, Field(alias="with")] = f"{_BUNDLED}1.jpg"
    without: str = f"{_BUNDLED}2.jpg"
    question: str = "Is there anything in the top left corner?"
    region: str = "top-left"
    answers: Annotated[tuple[_Answer, _Answer], BeforeValidator(_words)] = ("Yes", "No")
    prompt: str | None = None
    """Overrides the chat template; holds {question} and the image token."""
    out: str = "attention_data"
    seed: int = 0
    force: bool = False
    """Run a study whose two answers do not differ, and mark every output."""
    rank: RankOptions = RankOptions()
    ablate: AblateOptions = AblateOptions()
    sweep: SweepOptions = SweepOptions()
    vision: VisionOptions = VisionOptions()
    cut: CutOptions = CutOptions()
    combine: CombineOptions = CombineOptions()
    path: PathOptions = PathOptions()
    trace: TraceOptions = TraceOptions()
    rollout: RolloutOptions = RolloutOptions()
    pairs: PairsOptions = PairsOptions()
    draw: DrawOptions = DrawOptions()
    verdict: VerdictOptions = VerdictOptions()
    expected: Expected | None = None
    claims: Annotated[tuple[str, ...], BeforeValidator(_sequence)] = ()
    """Sentences that `headpatch claims` judges; see `headpatch.measures.claims`."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        Region.parse(self.region)
        for text in self.claims:
            Claim.parse(text)
        Selection.parse(self.ablate.heads)
        return self

    @classmethod
    def make(cls, config: Path | None = None, flags: Mapping[str, Any] | None = None) -> "Study":
        """Read `config`, then let `flags` override it.

        Parameters
        ----------
        config
            A study file, or the ``run.yaml`` of an earlier run. None is the default study.
        flags
            Dotted keys, such as ``{"ablate.heads": "24.17"}``; None values are left out.

        Raises
        ------
        InputError
            If the file is missing or not YAML, or a key or value is wrong.
        """
        values = _read(config) if config is not None else {}
        for key in ("with", "without"):
            if config is not None and isinstance(values.get(key), str):
                values[key] = _anchored(values[key], config.parent)
        if config is not None and isinstance(values.get("model"), str):
            values["model"] = _anchored_model(values["model"], config.parent)
        swept = values.get("sweep")
        if config is not None and isinstance(swept, dict) and isinstance(swept.get("sets"), str):
            swept["sets"] = str(config.parent / swept["sets"])
        many = values.get("pairs")
        if config is not None and isinstance(many, dict) and isinstance(many.get("manifest"), str):
            many["manifest"] = str(config.parent / many["manifest"])
        return cls._merged(values, flags or {}, config)

    def override(self, flags: Mapping[str, Any]) -> "Study":
        """Return the study with some keys changed.

        Parameters
        ----------
        flags
            As for `make`.

        Raises
        ------
        InputError
            If a key or value is wrong.

        Examples
        --------
        >>> Study().override({"sweep.kinds": ["zero"], "seed": 1}).sweep.kinds
        ('zero',)
        """
        return self._merged(self.model_dump(by_alias=True), flags, None)

    @classmethod
    def _merged(
        cls, values: dict[str, Any], flags: Mapping[str, Any], config: Path | None
    ) -> "Study":
        given = {key: value for key, value in flags.items() if value is not None}
        if ("with" in given) != ("without" in given):
            raise InputError("--with, --without", "only one of them", "both pictures of the pair")
        for key, value in given.items():
            section, _, name = key.rpartition(".")
            place = values.setdefault(section, {}) if section else values
            if not isinstance(place, dict):
                raise InputError(f"{config}: {section}", repr(place), "a mapping")
            place[name] = value
        if ("with" in values) != ("without" in values):
            raise InputError(
                f"{config}: with, without", "only one of them", "both pictures of the pair"
            )
        try:
            return cls.model_validate(values)
        except ValidationError as error:
            raise _one_line(error, config, given) from None

    def pair(self) -> Pair:
        """Read the study's two pictures."""
        return make_pair(
            _image(self.with_), _image(self.without), self.question, Region.parse(self.region)
        )

    def to_yaml(self) -> str:
        """Return the study as YAML; `make` reads it back to an equal study."""
        values = self.model_dump(by_alias=True)  # not mode="json": it would quote integer keys
        return yaml.safe_dump(values, sort_keys=False, allow_unicode=True, width=100)


def _read(config: Path) -> dict[str, Any]:
    try:
        values = yaml.safe_load(config.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError("--config", f"{config}: {error.strerror}", "a study file (YAML)") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        where = str(error).replace("\n", " ")
        raise InputError("--config", f"{config} is not YAML ({where})", "a study file") from None
    if isinstance(values, dict) and set(values) == {"study", "run"}:
        values = values["study"]  # a run.yaml
    if not isinstance(values, dict) or not all(isinstance(key, str) for key in values):
        raise InputError("--config", f"{config} holds no mapping", "keys such as `question:`")
    return values


def _anchored(path: str, folder: Path) -> str:
    return path if path.startswith(_BUNDLED) else str(folder / path)


def _anchored_model(model: str, folder: Path) -> str:
    """A relative path that exists beside the file is meant; a hub id looks the same otherwise."""
    here = model != "demo" and (folder / model).is_dir()
    return str(folder / model) if here else model


def _image(path: str) -> Path:
    if path.startswith(_BUNDLED):
        return BUNDLED / path.removeprefix(_BUNDLED)
    return Path(path)


def _one_line(error: ValidationError, config: Path | None, flags: Mapping[str, Any]) -> InputError:
    first, more = error.errors()[0], error.error_count() - 1
    cause = first.get("ctx", {}).get("error")
    if isinstance(cause, InputError):
        return cause
    key = ".".join(str(part) for part in first["loc"] if part != "[key]")
    flag = next((name for name in flags if key == name or key.startswith(f"{name}.")), None)
    where = f"--{flag.rpartition('.')[2]}" if flag else f"{config}: {key}" if config else key
    hint = f"({more} more wrong)" if more else ""
    if first["type"] == "extra_forbidden":
        return InputError(where, "an unknown key", f"one of {_keys_near(first['loc'])}", hint)
    found = "nothing" if first["type"] == "missing" else repr(first["input"])
    return InputError(where, found, _expectation(first["type"], first["msg"]), hint)


def _expectation(kind: str, message: str) -> str:
    """Say in a user's words what pydantic expected."""
    if kind in _EXPECTATIONS:
        return _EXPECTATIONS[kind]
    message = message.partition(" after validation")[0].removeprefix("Input should be ")
    for pydantic, plain in (
        ("greater than or equal to", "at least"),
        ("Tuple should have", "a list of"),
        ("Value should have", "a list of"),
        ("String should have", "a text of"),
        ("valid ", ""),
    ):
        message = message.replace(pydantic, plain)
    return message


_EXPECTATIONS = {
    "missing": "a value",
    "int_type": "a whole number",
    "float_type": "a number",
    "string_type": "a text",
    "bool_type": "true or false",
    "tuple_type": "a list",
    "model_type": "a mapping",
    "dict_type": "a mapping",
}


def _keys_near(location: tuple[int | str, ...]) -> str:
    """The keys that the section at `location` does have."""
    model: type[BaseModel] = Study
    for part in location[:-1]:
        field = model.model_fields.get(str(part))
        inner = field.annotation if field else None
        if not (isinstance(inner, type) and issubclass(inner, BaseModel)):
            return "those that the documentation lists"
        model = inner
    return ", ".join(field.alias or name for name, field in model.model_fields.items())
