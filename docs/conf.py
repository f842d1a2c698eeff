"""The documentation site: `make docs` builds it, strictly, into site/."""

import os
import subprocess
import sys

import headpatch

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
        r"headpatch\.(report|present|engine|models|stats|questions|core|pairs|heads|errors)\..*",
    ),
    (r"py:.*", r"headpatch\.api\.kept\..*"),
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
html_show_sphinx = False


def _help(app: object, name: str, source: list[str]) -> None:
    """Put a verb's own help into its page, so that the page cannot lag behind the command."""
    verb = name.removeprefix("verbs/")
    if verb == name:
        return
    # Not `python -m headpatch`: the usage line would say so.
    run = "import sys; sys.argv[0] = 'headpatch'; from headpatch.cli import main; main()"
    command = [sys.executable, "-c", run, verb, "--help"]
    plain = {**os.environ, "COLUMNS": "80", "NO_COLOR": "1", "TERM": "dumb"}
    shown = subprocess.run(command, env=plain, capture_output=True, text=True, check=True).stdout
    source[0] = source[0].replace("{{help}}", f"```text\n{shown.rstrip()}\n```")


def setup(app: object) -> None:
    """Called by Sphinx."""
    app.connect("source-read", _help)  # type: ignore[attr-defined]
