"""`headpatch run`: several verbs of one study, for which the model is loaded once."""

from collections.abc import Mapping
from inspect import Parameter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from headpatch.cli.derive import answered, entries_of, shown
from headpatch.cli.options import COMMON, Several, flag, parameter
from headpatch.cli.show import say
from headpatch.cli.verb import Request, command
from headpatch.core.question import Verb
from headpatch.errors import InputError
from headpatch.questions import VERBS

if TYPE_CHECKING:
    from headpatch.models.vlm import VLM

_HELP: Final = """Run several verbs of one study, for which the model is loaded once.

Each verb takes its section of the study, as it does alone, and writes into a folder of its name
within --out. All options are read, and all pictures of the study's pair, before the model loads. If
a verb fails, what those before it have written stays.

Examples
--------
`headpatch run bundled:demo.yaml --verbs rank,ablate --out run_output`

`headpatch report run_output`
"""
_CONFIG = typer.Argument(help="Study file (YAML), or the run.yaml of an earlier run.",
                         metavar="STUDY")  # fmt: skip
_VERBS: Final = {verb.name: verb for verb in VERBS if not verb.own_command}
_WORDS: Final = f"Verbs in order, comma-separated, of {', '.join(_VERBS)}."


def chosen(names: tuple[str, ...] | None) -> tuple[Verb, ...]:
    """Return verbs by their names, each once; rank, ablate and sweep if none are named."""
    names = names or ("rank", "ablate", "sweep")
    for name in names:
        if name not in _VERBS:
            raise InputError("--verbs", repr(name), f"verbs of {', '.join(_VERBS)}")
    if len(set(names)) < len(names):
        raise InputError("--verbs", "a verb is named twice", "each verb once")
    return tuple(_VERBS[name] for name in names)


def _run(request: Request, given: Mapping[str, Any]) -> None:
    """Read what every verb asks, then answer one after the other with one model."""
    out, jobs = Path(request.study.out), []
    for verb in chosen(given["verbs"]):
        mine = request.override({"out": str(out / verb.name)})
        verb.question().check(mine.study)
        entries = entries_of(mine, verb)
        if entries is None:
            verb.question().check_one(mine.study)
            mine.study.pair()
        jobs.append((verb, mine, entries))
    vlm: VLM | None = None
    for verb, mine, entries in jobs:
        if not request.as_json:
            say(f"headpatch {verb.name}")
        folder = mine.folder() if verb.files else out
        target, found, names = answered(mine, verb, folder, entries, None, vlm)
        vlm = target.vlm
        shown(mine, target, found, names)


command(
    "run",
    _HELP,
    (
        Parameter("config", Parameter.KEYWORD_ONLY, annotation=Annotated[Path, _CONFIG]),
        parameter("verbs", flag(Several, "--verbs", _WORDS, "VERBS")),
    ),
    {},
    COMMON.keys() - {"config", "shard", "workers", "ray"},
    _run,
)
