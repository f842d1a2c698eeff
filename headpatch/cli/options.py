"""The flags that verbs share, and what flags have in common."""

from collections.abc import Callable
from inspect import Parameter
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import typer
from pydantic.fields import FieldInfo
from typer.models import OptionInfo

from headpatch.core.study.study import Study
from headpatch.text import decimal_number, whole_number


def whole(text: str) -> int:
    """Read a whole number; the error says what was there instead."""
    if (found := whole_number(text)) is None:
        raise typer.BadParameter(f"{_shorten(text)}; expected a whole number")
    return found


def decimal(text: str) -> float:
    """Read a number; the error says what was there instead."""
    if (found := decimal_number(text)) is None:
        raise typer.BadParameter(f"{_shorten(text)}; expected a number")
    return found


def _shorten(text: str) -> str:
    """Quote what was given, the start of it if it is long."""
    return repr(text) if len(text) <= 80 else f"{text[:80]!r}… ({len(text):,} characters)"


class Several(tuple[str, ...]):
    """Words of one flag, separated by commas."""

    __slots__ = ()

    @classmethod
    def read(cls, text: str) -> "Several":
        """Take the words apart."""
        return cls(part.strip() for part in text.split(","))


_READ: dict[object, Callable[[str], object]] = {int: whole, float: decimal, Several: Several.read}


def flag(kind: Any, typed: str, words: str, metavar: str | None = None) -> Any:
    """Return how typer reads a flag, None where it is not given; `words` are its help."""
    option: OptionInfo = typer.Option(typed, parser=_READ.get(kind), help=words, metavar=metavar)
    return Annotated[kind | None, option]


def parameter(name: str, annotation: Any, default: bool | None = None) -> Parameter:
    """Return the parameter of a command that is a flag."""
    return Parameter(name, Parameter.KEYWORD_ONLY, default=default, annotation=annotation)


_LEFT = "what an interrupted run has left in the output folder."
RESUME = {
    "resume": flag(bool, "--resume", f"Go on from {_LEFT}"),
    "no_resume": flag(bool, "--no-resume", f"Discard {_LEFT}"),
}
"""Two flags that a verb is handed as one, ``resume``: true, false, or None for neither."""
_JSON = "Print one JSON object on stdout, and nothing else there."
Json = Annotated[bool, typer.Option("--json", help=_JSON)]
_DEBUG = "Show a traceback when something fails."
Debug = Annotated[bool, typer.Option("--debug", help=_DEBUG)]


class Common(NamedTuple):
    """A flag that verbs share."""

    annotation: Any  # as typer reads it
    key: str | None = None  # of the study, which it overrides; None: it says how to run it
    default: bool | None = None


_OF_STUDY = (
    ("model", "model", str, "demo|PATH|HUB-ID",
     "`demo`, a model's folder, or its id on the Hugging Face hub."),
    ("with_image", "with", Path, "IMG", "Picture with the object."),
    ("without_image", "without", Path, "IMG", "Picture without the object."),
    ("question", "question", str, "TEXT", "Asked of both pictures; the answer must flip."),
    ("question_without", "question_without", str, "TEXT",
     "Asked in the run without the object, if something else; both pictures may "
     "then be one."),
    ("system", "system", str, "TEXT",
     "What a system turn says before the question, where the chat template has such a turn."),
    ("answers", "answers", Several, "YES,NO",
     "What the model says for yes and for no, as it is spelled: Yes,No if left out."),
    ("sum_variants", "sum_variants", bool, None,
     "Add up the spellings of each answer (yes, Yes, YES) in every logit difference."),
    ("region", "region", str, "NAME|BOX",
     "Where the object is: a quadrant (top-left), a corner (top-left-corner), a half (left-half), "
     "center, or left,top,right,bottom in fractions of the image, or in pixels; none: where the "
     "two pictures differ."),
    ("pairs", "pairs.manifest", Path, "FILE|DIR",
     "Run a dataset of pairs instead of one: its manifest (CSV, JSON lines or Parquet), or its "
     "folder; `headpatch pairs` draws one."),
    ("limit", "pairs.limit", int, "N", "At most so many pairs of the dataset, drawn by the seed."),
    ("hold", "pairs.hold", float, "GIB",
     "Memory in which pairs stay open, so that their pictures are not run again. If left out, 4 "
     "GiB and at most a quarter of what is free on a CPU, 12 GiB and at most half on a GPU."),
    ("out", "out", Path, "DIR", "Folder for the results."),
    ("format", "figures.format", Several, "NAMES",
     "Figures as png, pdf, svg, several with commas; csv: their data too."),
    ("width", "figures.width", float, "INCHES", "Width of figures."),
    ("style", "figures.style", Path, "FILE",
     "Style file of matplotlib for figures; its image.cmap colours maps of heads."),
    ("device", "device", str, "NAME", "auto, cpu, cuda, cuda:1, mps."),
    ("dtype", "dtype", str, "NAME", "auto, float32, bfloat16, float16."),
    ("device_map", "device_map", str, "auto",
     "`auto` spreads a model over devices, CPU memory and disk (needs accelerate)."),
    ("quantize", "quantize", str, "8bit|4bit", "8bit or 4bit weights (needs bitsandbytes)."),
    ("allow_unused_weights", "allow_unused_weights", bool, None,
     "Load a checkpoint without the weights that the model has no place for."),
    ("seed", "seed", int, "N", "Seed of every random draw."),
    ("force", "force", bool, None,
     "Run even if the answers are not Yes and No; outputs are marked invalid."),
)  # fmt: skip
_WORKERS = (
    "With several pairs: so many processes, each with the model, on a GPU of its own where there "
    "are any (needs ray)."
)
_RAY = "Workers on a running Ray cluster, whose machines share the folder of --out."
_SHARD = (
    "With several pairs: run every N-th of them alone, from the I-th on, beside others that do the "
    "rest over the same --out; then the same command without it gathers."
)
_CONFIG = (
    "Study file (YAML), bundled:demo.yaml for one that ships with headpatch, or the run.yaml of an "
    "earlier run. Other flags override it."
)


PICTURES = frozenset({"with_image", "without_image", "question", "question_without", "region"})


def with_default(words: str, field: FieldInfo) -> str:
    """Add to the words of a flag what holds where it is left out, if that can be typed."""
    default = told(field.get_default(call_default_factory=True))
    if not default or field.annotation is bool or "left out" in words:
        return words
    return f"{words} {default} if left out."


def told(default: object) -> str:
    """Return an option's default as it is typed; empty if it has none, or it is a sentence."""
    if isinstance(default, tuple):
        return ", ".join(map(told, default))
    plain = isinstance(default, str | int | float) and " " not in str(default)
    return f"{default:g}" if isinstance(default, float) else str(default) if plain else ""


def _with_default(flag_name: str, words: str, key: str) -> str:
    if flag_name in PICTURES:  # together they are the bundled study
        return words
    *sections, name = key.split(".")
    fields = Study.model_fields
    for section in sections:
        fields = getattr(fields[section].annotation, "model_fields", {})
    return with_default(words, fields[name]) if name in fields else words


def _typed(name: str) -> str:
    return f"--{name.removesuffix('_image').replace('_', '-')}"


COMMON = {
    "config": Common(flag(Path, "--config", _CONFIG, "FILE")),
    **{
        name: Common(flag(kind, _typed(name), _with_default(name, words, key), metavar), key)
        for name, key, kind, metavar, words in _OF_STUDY
    },
    "workers": Common(flag(int, "--workers", _WORKERS, "N")),
    "ray": Common(flag(str, "--ray", _RAY, "auto|HOST:PORT")),
    "shard": Common(flag(str, "--shard", _SHARD, "I/N")),
    "as_json": Common(Json, default=False),
    "debug": Common(Debug, default=False),
}
"""The flags that verbs share, by parameter, in the order of a help page."""
