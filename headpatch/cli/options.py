"""The flags that verbs share, and what flags have in common."""

from inspect import Parameter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NamedTuple, TypeAlias

import typer
from typer.models import OptionInfo

from headpatch.kinds import ALPHA, ASKED, KINDS, WITH_ALPHA
from headpatch.text import decimal_number, whole_number

if TYPE_CHECKING:
    Context: TypeAlias = typer.Context
else:
    Context = typer.Context.__mro__[1]  # what typer really passes: its own is but a name for it


def whole(text: str) -> int:
    """Read a whole number; the error says what was there instead."""
    if (found := whole_number(text)) is None:
        raise typer.BadParameter(f"{shorten(text)}; expected a whole number")
    return found


def decimal(text: str) -> float:
    """Read a number; the error says what was there instead."""
    if (found := decimal_number(text)) is None:
        raise typer.BadParameter(f"{shorten(text)}; expected a number")
    return found


def shorten(text: str) -> str:
    """Quote what was given, the start of it if it is long."""
    return repr(text) if len(text) <= 80 else f"{text[:80]!r}… ({len(text):,} characters)"


class Several(tuple[str, ...]):
    """Words of one flag, separated by commas."""

    __slots__ = ()

    @classmethod
    def read(cls, text: str) -> "Several":
        """Take the words apart."""
        return cls(part.strip() for part in text.split(","))


def number(flag: str, text: str, metavar: str = "N") -> OptionInfo:
    """Return the option of a whole number, with its help text."""
    option: OptionInfo = typer.Option(flag, parser=whole, help=text, metavar=metavar)
    return option


def share(flag: str, text: str) -> OptionInfo:
    """Return the option of a number between 0 and 1, with its help text."""
    option: OptionInfo = typer.Option(flag, parser=decimal, help=text, metavar="SHARE")
    return option


def several(flag: str, text: str, metavar: str) -> OptionInfo:
    """Return the option of several words, with its help text."""
    option: OptionInfo = typer.Option(flag, parser=Several.read, help=text, metavar=metavar)
    return option


Config = Annotated[
    Path | None,
    typer.Option(
        "--config",
        help="Study file (YAML), or the run.yaml of an earlier run. Other flags override it.",
        metavar="FILE",
    ),
]
Model = Annotated[
    str | None,
    typer.Option(
        "--model",
        help="`demo`, a model's folder, or a hub id such as llava-hf/llava-1.5-7b-hf.",
        metavar="demo|PATH|HUB-ID",
    ),
]
With = Annotated[
    Path | None, typer.Option("--with", help="Picture with the object.", metavar="IMG")
]
Without = Annotated[
    Path | None, typer.Option("--without", help="Picture without the object.", metavar="IMG")
]
Question = Annotated[
    str | None,
    typer.Option(
        "--question", help="Asked of both pictures; the answer must flip.", metavar="TEXT"
    ),
]
Answers = Annotated[
    Several | None,
    several(
        "--answers",
        "What the model says for yes and for no, as it is spelled: Yes,No if left out.",
        "YES,NO",
    ),
]
RegionName = Annotated[
    str | None,
    typer.Option(
        "--region",
        help="Where the object is: a quadrant (top-left), a corner "
        "(top-left-corner), a half (left-half), center, or left,top,right,bottom in "
        "fractions of the image.",
        metavar="NAME|BOX",
    ),
]
Out = Annotated[Path | None, typer.Option("--out", help="Folder for the results.", metavar="DIR")]
Device = Annotated[
    str | None, typer.Option("--device", help="auto, cpu, cuda, cuda:1, mps.", metavar="NAME")
]
Dtype = Annotated[
    str | None,
    typer.Option("--dtype", help="auto, float32, bfloat16, float16.", metavar="NAME"),
]

Kinds = Annotated[
    Several | None,
    several(
        "--kinds",
        "What z becomes, comma-separated: "
        f"{', '.join(f'{name} ({KINDS[name].help})' for name in ASKED)}.",
        "KINDS",
    ),
]
Alpha = Annotated[
    float | None,
    typer.Option(
        "--alpha",
        parser=decimal,
        help=f"What kind {', '.join(WITH_ALPHA)} multiplies z by; {ALPHA} if left out.",
        metavar="NUMBER",
    ),
]
Directions = Annotated[
    Several | None,
    several(
        "--directions",
        "noising (change the with-run: necessary?), denoising "
        "(change the without-run: sufficient?).",
        "DIRECTIONS",
    ),
]
Pairs = Annotated[
    Path | None,
    typer.Option(
        "--pairs",
        help="Run a dataset of pairs instead of one: its manifest (CSV, "
        "JSON lines or Parquet), or its folder; "
        "`headpatch pairs` draws one.",
        metavar="FILE|DIR",
    ),
]
DeviceMap = Annotated[
    str | None,
    typer.Option(
        "--device-map",
        help="`auto` spreads a model over devices, CPU memory and disk (needs accelerate).",
        metavar="auto",
    ),
]
Quantize = Annotated[
    str | None,
    typer.Option(
        "--quantize", help="8bit or 4bit weights (needs bitsandbytes).", metavar="8bit|4bit"
    ),
]
AllowUnusedWeights = Annotated[
    bool | None,
    typer.Option(
        "--allow-unused-weights",
        help="Load a checkpoint without the weights that the model has no place for.",
    ),
]
Limit = Annotated[
    int | None,
    number("--limit", "At most so many pairs of the dataset, drawn by the seed."),
]
Resume = Annotated[
    bool | None,
    typer.Option(
        "--resume/--no-resume",
        help="Go on from what an interrupted run has left in the output folder, or discard it.",
    ),
]
Reference = Annotated[
    int | None,
    number(
        "--reference",
        "Drawn pairs over which kind `mean` averages z; 0: this pair alone. With --pairs, "
        "used only where the positions of the pairs do not correspond.",
    ),
]
Seed = Annotated[
    int | None,
    number("--seed", "Seed of every random draw."),
]
Force = Annotated[
    bool | None,
    typer.Option(
        "--force",
        help="Run even if the answers are not Yes and No; outputs are marked invalid.",
    ),
]
Json = Annotated[
    bool, typer.Option("--json", help="Print one JSON object on stdout, and nothing else there.")
]
Debug = Annotated[bool, typer.Option("--debug", help="Show a traceback when something fails.")]


class Common(NamedTuple):
    """A flag that verbs share.

    Attributes
    ----------
    annotation
        As typer reads it.
    key
        Of the study, overridden by the flag; None: the flag says how to run it.
    default
        Without the flag.
    """

    annotation: object
    key: str | None = None
    default: bool | None = None

    def parameter(self, name: str) -> Parameter:
        """Return the parameter of a command that is this flag."""
        return Parameter(
            name, Parameter.KEYWORD_ONLY, default=self.default, annotation=self.annotation
        )


COMMON = {
    "config": Common(Config),
    "model": Common(Model, "model"),
    "with_image": Common(With, "with"),
    "without_image": Common(Without, "without"),
    "question": Common(Question, "question"),
    "answers": Common(Answers, "answers"),
    "region": Common(RegionName, "region"),
    "pairs": Common(Pairs, "pairs.manifest"),
    "limit": Common(Limit, "pairs.limit"),
    "out": Common(Out, "out"),
    "device": Common(Device, "device"),
    "dtype": Common(Dtype, "dtype"),
    "device_map": Common(DeviceMap, "device_map"),
    "quantize": Common(Quantize, "quantize"),
    "allow_unused_weights": Common(AllowUnusedWeights, "allow_unused_weights"),
    "seed": Common(Seed, "seed"),
    "force": Common(Force, "force"),
    "as_json": Common(Json, default=False),
    "debug": Common(Debug, default=False),
}
"""The flags that verbs share, by parameter, in the order of a help page."""
