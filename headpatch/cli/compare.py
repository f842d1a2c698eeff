"""`headpatch compare`: like `report`, it reads saved results and runs no model."""

import inspect
from inspect import Parameter
from pathlib import Path
from typing import Annotated, Any

import typer

from headpatch.cli.app import Command, app
from headpatch.cli.options import COMMON, Debug, Json, decimal, parameter, whole
from headpatch.cli.show import Terminal, print_object, show
from headpatch.core.study.figure_options import FigureOptions
from headpatch.questions.compare import VERB
from headpatch.text import user_path

_RUNS = typer.Argument(metavar="RUN", help="Folders of results, two or more.")
_OUT = typer.Option("--out", help="Folder for the results.", metavar="DIR")
_TOP = typer.Option("--top", parser=whole, metavar="N",
                    help="How many of the first heads; 20 if left out.")  # fmt: skip
_DEPTH = typer.Option("--depth", help="Compare layers of other numbers by relative depth.")
_LEVEL = typer.Option("--level", parser=decimal, metavar="X",
                      help="Coverage of intervals; 0.95 if left out.")  # fmt: skip
_SEED = typer.Option("--seed", parser=whole, metavar="N",
                     help="Seed of every random draw; 0 if left out.")  # fmt: skip
_FIGURES = [parameter(name, COMMON[name].annotation) for name in FigureOptions.model_fields]


def compare(
    runs: Annotated[list[Path], _RUNS],
    top: Annotated[int | None, _TOP] = None,
    depth: Annotated[bool, _DEPTH] = False,
    level: Annotated[float | None, _LEVEL] = None,
    out: Annotated[Path, _OUT] = Path("compared"),
    seed: Annotated[int | None, _SEED] = None,
    as_json: Json = False,
    debug: Debug = False,
    **figures: Any,
) -> None:
    """Compare saved runs; the help is the question's own words."""
    from headpatch.present import tables
    from headpatch.present.tables import renderables
    from headpatch.questions.compare.question import QUESTION
    from headpatch.questions.compare.question import compare as ask

    folder = user_path(out, "--out")
    given: dict[str, Any] = {"top": top, "level": level, "seed": seed}
    asked = {key: one for key, one in (given | figures).items() if one is not None}
    found = ask(*runs, out=folder, depth=depth, **asked)
    stems = {Path(name).stem for name in VERB.others}
    names = sorted(
        path.name for path in folder.iterdir()
        if path.name in (*VERB.files, "run.yaml") or path.stem.removesuffix("_data") in stems
    )  # fmt: skip
    if as_json:
        print_object({**found.json(), "files": [str(folder / name) for name in names]})
        return
    console = Terminal()
    show(console, *renderables(QUESTION.view(found.files(), found.origin.context)))
    if not found.valid:
        console.print("INVALID STUDY: one of the runs was forced.", style="bold red")
    console.print(tables.files(str(folder), names), soft_wrap=True)  # paths stay whole


compare.__doc__ = VERB.help
_own = [
    one.replace(kind=Parameter.KEYWORD_ONLY)
    for one in inspect.signature(compare).parameters.values()
    if one.name != "figures"
]
# typer reads a command's flags here
vars(compare)["__signature__"] = inspect.Signature([*_own[:-3], *_FIGURES, *_own[-3:]])
app.command(cls=Command)(compare)
