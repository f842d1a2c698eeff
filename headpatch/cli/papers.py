"""`headpatch table`, `headpatch methods` and `headpatch schema`: results for papers and editors."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from headpatch.cli.app import Command, app
from headpatch.cli.options import Debug
from headpatch.cli.show import say
from headpatch.text import user_path

_FOLDER = typer.Argument(metavar="DIR", help="Folder with the results of one or several verbs.")


class Markup(StrEnum):
    """How a table is written."""

    markdown = "markdown"
    latex = "latex"


_FORMAT = typer.Option(
    "--format", help="markdown, or latex for the package booktabs.", metavar="NAME"
)


@app.command(cls=Command)
def table(
    folder: Annotated[Path, _FOLDER],
    markup: Annotated[Markup, _FORMAT] = Markup.markdown,
    debug: Debug = False,
) -> None:
    """Print the tables that verbs showed, as Markdown or LaTeX.

    Reads what verbs saved in DIR; runs no model. All columns and rows are in the CSV files.

    Examples
    --------
    `headpatch rank --out demo_output`

    `headpatch table demo_output --format latex`
    """
    from headpatch.reports.papers import tables

    for written in tables(user_path(folder, "DIR"), markup.value):
        say(written)


@app.command(cls=Command)
def methods(folder: Annotated[Path, _FOLDER], debug: Debug = False) -> None:
    """Print a paragraph on methods for a paper, with its sources, from what run.yaml says.

    Reads DIR, into which one or several verbs wrote; runs no model. Check every sentence: it says
    what was run, and not what you wanted to know.

    Examples
    --------
    `headpatch rank --out demo_output`

    `headpatch methods demo_output`
    """
    from headpatch.reports.papers import paragraph

    say(paragraph(user_path(folder, "DIR")))


@app.command(cls=Command)
def schema() -> None:
    """Print the JSON schema of a study, by which editors complete and check YAML files.

    Save what it prints as study.schema.json beside your studies, and begin each of them with the
    line `# yaml-language-server: $schema=study.schema.json`.

    Example: `headpatch schema`
    """
    from headpatch.core.study.study import Study

    print(Study.schema_text())
