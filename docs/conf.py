"""The documentation site: `make docs` builds it, strictly, into site/."""

import json
import os
import subprocess
import sys
from functools import cache
from pathlib import Path

from pydantic import BaseModel

import headpatch
from headpatch.core.study.study import Study
from headpatch.questions import VERBS

sys.path.insert(0, str(Path(__file__).parent))
from shown import COMMANDS, shown

project = "headpatch"
author = "headpatch authors"
release = version = headpatch.__version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
exclude_patterns = ["_*"]
nitpicky = True
# Names of other projects are no links: nothing is fetched while the site is built.
nitpick_ignore_regex = [
    (r"py:.*", r"(?!headpatch).*"),
    (
        r"py:.*",
        r"headpatch\.(reports|present|engine|models|stats|questions|core|pairs|heads|errors|text)\..*",
    ),
    (r"py:.*", r"headpatch\.core\.store\..*"),
]

myst_enable_extensions = ["colon_fence", "deflist"]
myst_heading_anchors = 3
suppress_warnings = ["myst.header"]  # the formats page is another file, included

autodoc_member_order = "bysource"
autodoc_typehints = "description"
autodoc_typehints_description_target = "documented"
napoleon_google_docstring = False
napoleon_use_ivar = True

html_theme = "furo"
html_title = "headpatch"
html_show_sphinx = html_show_copyright = html_show_sourcelink = html_copy_source = False


def _pages() -> None:
    """Write a page a question: its README, the command's own help, and what its tables hold."""
    folder, package = Path(__file__).parent / "verbs", Path(headpatch.__file__).parent
    for verb in VERBS:
        text = (package / "questions" / verb.name / "README.md").read_text(encoding="utf-8")
        tables = [f"### `{schema.file}`\n\n{schema.markdown()}" for schema in verb.schemas]
        columns = "\n\n".join(["## Tables", *tables]) if tables else ""
        page = folder / f"{verb.name}.md"
        mark = f"## What it shows\n<!-- shown: {verb.name} -->\n\n"
        kept = mark if verb.name in COMMANDS else ""
        page.write_text(f"{text}\n{kept}## Help\n{{{{help}}}}\n\n{columns}\n", encoding="utf-8")


def _study() -> None:
    """Write the page of a study file: every key with its default, as the study describes it."""
    parts = [(Path(__file__).parent / "_study.md").read_text(encoding="utf-8")]
    for name, field in Study.model_fields.items():
        if isinstance(field.default, BaseModel):
            head = (
                f"\n## `{field.alias or name}`\n{' '.join((field.default.__doc__ or '').split())}\n"
            )
            parts += [head, *_keys(type(field.default))]
    page = Path(__file__).parent / "study.md"
    page.write_text("\n".join([*parts[:1], *_keys(Study), *parts[1:]]) + "\n", encoding="utf-8")


def _keys(model: type[BaseModel]) -> list[str]:
    """Return a table of a section's keys; sections in it have tables of their own."""
    rows = ["| key | default | what it is |", "| --- | --- | --- |"]
    for name, field in model.model_fields.items():
        if isinstance(field.default, BaseModel):
            continue
        default = field.get_default(call_default_factory=True)
        shown = list(default) if isinstance(default, tuple) else default
        told = " ".join((field.description or "").split()).replace("|", "\\|")
        rows.append(f"| `{field.alias or name}` | `{json.dumps(shown, default=str)}` | {told} |")
    return rows


@cache
def _told() -> dict[str, str]:
    """Return what every verb says of itself, as a terminal of 80 columns shows it."""
    # Not `python -m headpatch`: the usage line would say so. One start for all: each takes seconds.
    run = """if True:
        import io, json, sys
        from contextlib import redirect_stdout, suppress

        from headpatch.cli import main

        told = {}
        for verb in sys.argv[1:]:
            sys.argv = ["headpatch", verb, "--help"]
            with redirect_stdout(io.StringIO()) as told[verb], suppress(SystemExit):
                main()
        print(json.dumps({verb: page.getvalue() for verb, page in told.items()}))
    """
    plain = {**os.environ, "COLUMNS": "80", "NO_COLOR": "1", "TERM": "dumb"}
    pages = (Path(__file__).parent / "verbs").glob("*.md")
    command = [sys.executable, "-c", run, *(page.stem for page in pages)]
    done = subprocess.run(command, env=plain, capture_output=True, text=True, check=True)
    found: dict[str, str] = json.loads(done.stdout)
    return found


def _help(app: object, name: str, source: list[str]) -> None:
    """Put help, output and pictures into pages, so that these cannot lag behind the commands."""
    verb = name.removeprefix("verbs/")
    source[0] = shown(source[0], "../" * (verb != name))
    if verb != name:
        source[0] = source[0].replace("{{help}}", f"```text\n{_told()[verb].rstrip()}\n```")


def setup(app: object) -> None:
    """Called by Sphinx."""
    _pages()
    _study()
    app.connect("source-read", _help)  # type: ignore[attr-defined]
