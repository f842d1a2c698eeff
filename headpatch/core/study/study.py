"""The study itself: its sections, how flags override it, and its YAML."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import yaml
from pydantic import (
    BeforeValidator,
    Field,
    PrivateAttr,
    ValidationError,
    model_validator,
)

from headpatch.core.claims_grammar import Claim
from headpatch.core.study.figure_options import FigureOptions
from headpatch.core.study.options import (
    DrawOptions,
    PairsOptions,
    Quadrant,
    Strict,
    VerdictOptions,
    VisionOptions,
    sequence,
)
from headpatch.core.study.reading import (
    BUNDLED_PICTURE,
    PathText,
    absolute,
    change_paths,
    flag_of,
    one_line,
    picture,
    prompt_form,
    read,
    study_file,
)
from headpatch.errors import InputError
from headpatch.heads import Selection
from headpatch.pairs.framing import Framing
from headpatch.pairs.manifest import Entry
from headpatch.pairs.pair import Pair, make_pair
from headpatch.pairs.region import Region
from headpatch.questions.ablate import AblateOptions
from headpatch.questions.combine import CombineOptions
from headpatch.questions.cut import CutOptions
from headpatch.questions.evaluate import EvaluateOptions
from headpatch.questions.path import PathOptions
from headpatch.questions.rank import RankOptions
from headpatch.questions.rollout import RolloutOptions
from headpatch.questions.sweep import SweepOptions
from headpatch.questions.trace import TraceOptions
from headpatch.text import checked_text, spelling

_ASKED = ("model", "question", "prompt", "system", "context_images")
"""What a prompt's text hangs on."""
_Answer = Annotated[str, Field(min_length=1)]


class Published(Strict):
    """A head's figures as published."""

    layer: int
    head: int
    diff: float
    with_: Annotated[float, Field(alias="with")]
    without: float


class Expected(Strict):
    """Published figures, printed beside what is measured; and what a paper's statements are of."""

    source: str
    data: str = ""
    """How to get the pairs, for who does not have them: a command, or words."""
    counting: str = ""
    """How the source counts layers and heads, and how the claims do."""
    metric: str = ""
    figures: Annotated[tuple[str, ...], BeforeValidator(sequence)] = ()
    """What the source reports, in words."""
    left_out: Annotated[tuple[str, ...], BeforeValidator(sequence)] = ()
    """Statements of the source that no claim tests, and why."""
    heads: Annotated[tuple[Published, ...], BeforeValidator(sequence)] = ()
    quadrants: dict[Quadrant, Annotated[tuple[float, float], BeforeValidator(sequence)]] = Field(
        default_factory=dict
    )
    """Quadrant: (with, without)."""
    divergence: dict[Literal["kl", "js", "js_distance"], float] = Field(default_factory=dict)
    vision_diff: dict[int, float] = Field(default_factory=dict)
    """Vision layer: difference."""
    vision_divergence: dict[int, dict[Literal["kl", "js", "js_distance"], float]] = Field(
        default_factory=dict
    )

    @property
    def beside_a_ranking(self) -> bool:
        """Whether there are figures that `headpatch rank` measures."""
        ranked = self.heads, self.quadrants, self.divergence, self.vision_diff
        return any((*ranked, self.vision_divergence))


class Study(Strict):
    """One study. Paths in a file are relative to that file; ``~`` is the user's own folder.

    Examples
    --------
    >>> study = Study.make(flags={"region": "top-left", "sweep.positions": "question"})
    >>> study.sweep.positions, study.model
    ('question', 'demo')
    """

    name: str = "demo"
    model: PathText = "demo"
    device: str = "auto"
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    device_map: str | None = None
    """Spreads a model over devices, CPU memory and disk through Accelerate: ``auto``."""
    quantize: Literal["8bit", "4bit"] | None = None
    """Quantises the weights through bitsandbytes."""
    allow_unused_weights: bool = False
    """Loads a checkpoint without the weights that the model has no place for."""
    with_: Annotated[PathText, Field(alias="with")] = f"{BUNDLED_PICTURE}1.jpg"
    without: PathText = f"{BUNDLED_PICTURE}2.jpg"
    question: str = "Is there anything in the top left corner?"
    question_without: str | None = None
    """Asked in the run without the object, if something else; the two pictures may then be one."""
    region: str = "top-left"
    """Where the object is; `none`: where the two pictures differ."""
    answers: Annotated[tuple[_Answer, _Answer], BeforeValidator(sequence)] = ("Yes", "No")
    sum_variants: bool = False
    """Adds up, in every logit difference, the spellings of each answer that differ from it in case
    or in space around it alone: LD = logsumexp(logits of Yes) - logsumexp(logits of No)."""
    prompt: str | None = None
    r"""Overrides the chat template; holds {question} and the image token. A backslash and an n, as
    YAML's single quotes leave ``\n``, stand for a line end."""
    system: Annotated[str, Field(min_length=1)] | None = None
    """What a system turn says before the question, where the chat template has such a turn."""
    context_images: Annotated[tuple[PathText, ...], BeforeValidator(sequence)] = ()
    """Pictures that come before the one in question, the same in every run: the prompt then shows
    several, and all that is said of the image is of the last one."""
    out: PathText = "attention_data"
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
    evaluate: EvaluateOptions = EvaluateOptions()
    figures: FigureOptions = FigureOptions()
    pairs: PairsOptions = PairsOptions()
    draw: DrawOptions = DrawOptions()
    verdict: VerdictOptions = VerdictOptions()
    expected: Expected | None = None
    claims: Annotated[tuple[str, ...], BeforeValidator(sequence)] = ()
    """Sentences that `headpatch claims` judges; see `headpatch.core.claims_grammar`."""

    _recorded_prompt: str | None = PrivateAttr(default=None)

    def reworded(self, asked: str) -> tuple[str, ...]:
        """Say that another prompt is asked than in the run whose ``run.yaml`` this study is."""
        if self._recorded_prompt is None:
            return ()
        was = prompt_form(self._recorded_prompt, self.question)
        why = "the prompt is not that of the run that is run again"
        why += " (a chat template that holds the date?)"
        return () if was == asked else (f"{why}: {asked!r} now, {was!r} then",)

    def __init__(self, **values: Any) -> None:
        try:
            super().__init__(**values)
        except ValidationError as error:
            raise one_line(type(self), error, None, {}) from None

    # else pydantic reads files through it as well, where errors name the file
    vars(__init__)["__pydantic_base_init__"] = True

    @model_validator(mode="after")
    def _check(self) -> Self:
        Region.parse(self.region)
        for text in self.claims:
            Claim.parse(text)
        Selection.parse(self.ablate.heads)
        self.check_variants()
        if self.prompt is not None and self.system is not None:
            raise InputError("prompt, system", "both of them", "one: prompt is the whole prompt")
        return self

    @property
    def framing(self) -> Framing:
        """What stands around the question in a prompt."""
        return Framing(
            self.prompt, self.system, tuple(str(picture(one)) for one in self.context_images)
        )

    def of_pair(self, pair: Pair | Entry) -> "Study":
        """Return the study with the answers and further pictures that a pair has for itself."""
        own = {"answers": pair.answers, "context_images": tuple(map(str, pair.context))}
        own = {name: one for name, one in own.items() if one}
        return self.model_copy(update=own) if own else self

    def check_one_picture(self, argument: str) -> None:
        """Refuse several pictures in a prompt where the vision tower is looked into."""
        if self.context_images:
            found = f"{1 + len(self.context_images)} pictures in a prompt (context_images)"
            expected = "one picture: what the tower takes in are then its patches"
            raise InputError(argument, found, expected)

    def check_variants(self) -> None:
        """Refuse to add up the spellings of answers that are spellings of one word."""
        if self.sum_variants and len({*map(spelling, self.answers)}) == 1:
            same = " and ".join(map(repr, self.answers))
            expected = "answers that differ in more than case and space"
            raise InputError("--sum-variants", f"answers {same}", expected)

    @classmethod
    def make(
        cls,
        config: Path | None = None,
        flags: Mapping[str, Any] | None = None,
        verb: str | None = None,
    ) -> "Study":
        """Read `config`, then let `flags` override it.

        Parameters
        ----------
        config
            A study file, ``bundled:NAME`` for one that ships with headpatch, or the ``run.yaml`` of
            an earlier run. None is the default study.
        flags
            Dotted keys, such as ``{"ablate.heads": "24.17"}``; None values are left out.
        verb
            Whose study is taken from a ``run.yaml`` that has several; None is the latest.

        Raises
        ------
        InputError
            If the file is missing or not YAML, or a key or value is wrong.
        """
        if config is not None:
            config = study_file(config)
        values, prompt = read(config, cls, verb) if config is not None else ({}, None)
        asked = [values.get(name) for name in _ASKED]
        found = cls._merged(values, flags or {}, config)
        if [values.get(name) for name in _ASKED] == asked:
            found._recorded_prompt = prompt
        return found

    def override(self, flags: Mapping[str, Any]) -> "Study":
        """Return the study with keys changed by `flags`, as for `make`; `InputError` if one is bad.

        Examples
        --------
        >>> Study().override({"sweep.kinds": ["zero"], "seed": 1}).sweep.kinds
        ('zero',)
        """
        found = self._merged(self.model_dump(by_alias=True), flags, None)
        if all(getattr(found, name) == getattr(self, name) for name in _ASKED):
            found._recorded_prompt = self._recorded_prompt
        return found

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
            if isinstance(value, str):
                checked_text(value, flag_of(key))
            if not isinstance(place, dict):
                raise InputError(f"{config}: {section}", repr(place), "a mapping")
            place[name] = value
        if ("with" in values) != ("without" in values):
            where, found = f"{config}: with, without", "only one of them"
            raise InputError(where, found, "both pictures of the pair")
        try:
            return cls.model_validate(values)
        except ValidationError as error:
            raise one_line(cls, error, config, given) from None

    @property
    def rankings(self) -> tuple[str, ...]:
        """What heads are ranked by, each once: the study's own ranking first."""
        return tuple(dict.fromkeys((self.rank.by, *self.verdict.rankings)))

    def pair(self) -> Pair:
        """Read the study's two pictures."""
        asked = self.question, Region.parse(self.region), None, self.question_without
        return make_pair(picture(self.with_), picture(self.without), *asked)

    def asking(self, pair: Pair) -> "Study":
        """Return the study with what a pair asks, and the pair's answers if it has its own."""
        asked = self.override({"question": pair.question, "region": pair.region.name})
        own = {"question_without": pair.question_without, "answers": pair.answers or self.answers}
        asked = asked.model_copy(update=own)
        asked.check_variants()
        return asked

    def portable(self) -> dict[str, Any]:
        """Return the study as a file may hold it, with paths that hold wherever the file lies."""
        values = self.model_dump(by_alias=True)  # not mode="json": it would quote integer keys
        change_paths(type(self), values, absolute)
        return values

    @classmethod
    def schema_text(cls) -> str:
        """Return the JSON schema of a study, by which editors check and complete study files."""
        return json.dumps(cls.model_json_schema(by_alias=True), indent=1)

    def to_yaml(self) -> str:
        """Return the study as YAML; `make` reads it back to the same study, its paths absolute."""
        return yaml.safe_dump(self.portable(), sort_keys=False, allow_unicode=True, width=100)
