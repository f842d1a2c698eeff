"""The flags that every verb takes, and how flags become a study."""

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeAlias

import typer

from headpatch.errors import InputError
from headpatch.study import Study

if TYPE_CHECKING:
    Context: TypeAlias = typer.Context
else:
    Context = typer.Context.__mro__[1]  # what typer really passes: its own is but a name for it

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
    str | None,
    typer.Option(
        "--kinds", help="What z becomes, comma-separated: zero, mean, resample.", metavar="KINDS"
    ),
]
Directions = Annotated[
    str | None,
    typer.Option(
        "--directions",
        help="noising (change the with-run: necessary?), denoising "
        "(change the without-run: sufficient?).",
        metavar="DIRECTIONS",
    ),
]
Pairs = Annotated[
    Path | None,
    typer.Option(
        "--pairs",
        help="Run a dataset of pairs instead of one: its manifest (CSV), or its folder; "
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


def whole(text: str) -> int:
    """Read a whole number; the error says what was there instead."""
    try:
        return int(text)
    except ValueError:
        raise typer.BadParameter(f"{text!r}; expected a whole number") from None


Limit = Annotated[
    int | None,
    typer.Option(
        "--limit",
        parser=whole,
        help="At most so many pairs of the dataset, drawn by the seed.",
        metavar="N",
    ),
]
Seed = Annotated[
    int | None,
    typer.Option("--seed", parser=whole, help="Seed of every random draw.", metavar="N"),
]
Force = Annotated[
    bool | None,
    typer.Option(
        "--force", help="Run even if the answers do not flip; outputs are marked invalid."
    ),
]
Json = Annotated[
    bool, typer.Option("--json", help="Print one JSON object on stdout, and nothing else there.")
]
Debug = Annotated[bool, typer.Option("--debug", help="Show a traceback when something fails.")]

_COMMON = {
    "model": "model",
    "with_image": "with",
    "without_image": "without",
    "question": "question",
    "region": "region",
    "out": "out",
    "device": "device",
    "dtype": "dtype",
    "device_map": "device_map",
    "quantize": "quantize",
    "seed": "seed",
    "force": "force",
    "pairs": "pairs.manifest",
    "limit": "pairs.limit",
}


def study_from(context: Context, own: Mapping[str, str], **listed: str) -> Study:
    """Make the study of a verb: its file, overridden by the flags that were given.

    Parameters
    ----------
    own, listed
        The verb's own parameters and the study's keys that they set; those of `listed` hold
        several words, separated by commas.
    """
    flags: dict[str, Any] = {}
    for name, key in {**_COMMON, **own, **listed}.items():
        value = context.params.get(name)
        if isinstance(value, Path):
            value = str(value)
        if isinstance(value, list | tuple):  # a flag that may be given several times
            value = tuple(value) or None
        if name in listed and isinstance(value, str):
            value = tuple(part.strip() for part in value.split(","))
        flags[key] = value
    study = Study.make(context.params["config"], flags)
    _check_pairs(context, study)
    return study


def _check_pairs(context: Context, study: Study) -> None:
    """Refuse flags that a dataset leaves no room for; say so if the verb runs one pair only."""
    given, dataset = context.params, study.pairs.manifest
    if "pairs" not in given:
        if dataset is not None:
            print(
                f"headpatch: {context.info_name} runs one pair: the study's own, not the dataset "
                f"{dataset}",
                file=sys.stderr,
            )
        return
    if dataset is None and given.get("limit") is not None:
        raise InputError("--limit", "no dataset to take pairs from", "--pairs as well")
    for name, flag in (("with_image", "with"), ("question", "question"), ("region", "region")):
        if dataset is not None and given.get(name) is not None:
            raise InputError(
                f"--pairs, --{flag}",
                "both of them",
                "one of them",
                "A dataset names the pictures, question and region of each pair itself.",
            )
