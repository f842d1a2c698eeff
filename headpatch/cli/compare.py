"""`headpatch compare`: like `report`, it reads saved results and runs no model."""

from pathlib import Path
from typing import Annotated, Any

import typer

from headpatch.cli.app import Command, app
from headpatch.cli.options import Debug, Json, decimal, whole
from headpatch.cli.show import Terminal, print_object, show
from headpatch.questions.compare import VERB
from headpatch.text import user_path

_RUNS = typer.Argument(metavar="RUN RUN ...", help="Folders of results, two or more.")
_OUT = typer.Option("--out", help="Folder for the results.", metavar="DIR")
_TOP = typer.Option("--top", parser=whole, help="How many of the first heads (20).", metavar="N")
_DEPTH = typer.Option("--depth", help="Compare layers of other numbers by relative depth.")
_LEVEL = typer.Option("--level", parser=decimal, help="Coverage of intervals (0.95).", metavar="X")
_SEED = typer.Option("--seed", parser=whole, help="Seed of every random draw.", metavar="N")


def compare(
    runs: Annotated[list[Path], _RUNS],
    top: Annotated[int | None, _TOP] = None,
    depth: Annotated[bool, _DEPTH] = False,
    level: Annotated[float | None, _LEVEL] = None,
    out: Annotated[Path, _OUT] = Path("compared"),
    seed: Annotated[int | None, _SEED] = None,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Compare saved runs; the help is the question's own words."""
    from headpatch.present import tables
    from headpatch.present.tables import renderables
    from headpatch.questions.compare.question import QUESTION
    from headpatch.questions.compare.question import compare as ask

    folder = user_path(out, "--out")
    given: dict[str, Any] = {"top": top, "level": level, "seed": seed}
    asked = {key: one for key, one in given.items() if one is not None}
    found = ask(*runs, out=folder, depth=depth, **asked)
    names = sorted(path.name for path in folder.iterdir() if path.name in (*VERB.files, "run.yaml"))
    if as_json:
        print_object({**found.json(), "files": [str(folder / name) for name in names]})
        return
    console = Terminal()
    show(console, *renderables(QUESTION.view(found.files(), found.origin.context)))
    if not found.valid:
        console.print("INVALID STUDY: one of the runs was forced.", style="bold red")
    console.print(tables.files(str(folder), names), soft_wrap=True)  # paths stay whole


compare.__doc__ = VERB.help
app.command(cls=Command)(compare)
