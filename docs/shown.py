"""What the committed results of the bundled study look like: pictures and output for the site.

Made by the build from `attention_data/`, so that neither can lag behind; no model is run.
"""

import io
import re
from functools import cache
from pathlib import Path

from rich.console import Console

from headpatch.core.output.folder import Results, find
from headpatch.core.question import verbs
from headpatch.present.chart import Chart
from headpatch.present.figure import draw
from headpatch.present.parts import Part
from headpatch.present.tables import renderables
from headpatch.reports.derived import context, runs_of, saved

RESULTS = Path(__file__).parents[1] / "attention_data"
PICTURES = Path(__file__).parent / "_pictures"
COMMANDS = {
    "rank": "headpatch rank",
    "ablate": "headpatch ablate --heads top:3,20.18,21.14,21.16,21.25,23.9",
    "sweep": "headpatch sweep --kinds resample",
    "path": "headpatch path",
    "verdict": "headpatch verdict --n 200",
}
"""Whose results are kept, as the Makefile makes them."""
_LINES = 46  # of an output; the rest is told
_MARK = re.compile(r"<!-- (shown|picture): (\w+)((?: [\w.]+)*) -->")


@cache
def _results() -> Results:
    return find(RESULTS)


@cache
def _parts(name: str) -> tuple[list[Part], dict[str, str]]:
    """Return what people see of a question, and the words of its titles."""
    verb = next(one for one in verbs() if one.name == name)
    run = runs_of(verb, _results().parts)[0]
    said = context(verb, run)
    return list(verb.question().view(saved(verb, run), said)), said.title


def output(name: str) -> str:
    """Return what a terminal of 80 columns shows of a question."""
    held = io.StringIO()
    console = Console(file=held, width=80, force_terminal=True, color_system=None, highlight=False)
    console.print(*renderables(_parts(name)[0]), sep="\n")
    lines = [line.rstrip() for line in held.getvalue().splitlines()]
    more = [f"… and {len(lines) - _LINES:,} more lines"] if len(lines) > _LINES else []
    return "\n".join([f"$ {COMMANDS[name]}", *lines[:_LINES], *more])


def pictures(name: str) -> dict[str, str]:
    """Draw a question's figures; return their titles by file name."""
    PICTURES.mkdir(exist_ok=True)
    parts, words = _parts(name)
    charts = [part for part in parts if isinstance(part, Chart)]
    for chart in charts:
        draw(chart, PICTURES / f"{name}-{chart.file}", **words)
    return {chart.file: " ".join(chart.title.split()) for chart in charts}


def shown(text: str, up: str = "") -> str:
    """Put output and pictures in the place of marks, ``<!-- shown: rank model_view.png -->``.

    ``picture`` instead of ``shown`` leaves the output out; without files all of them are drawn.
    `up` leads from the page to the folder of pages.
    """

    def made(mark: re.Match[str]) -> str:
        name, files = mark[2], mark[3].split()
        drawn = pictures(name)
        images = [f"![{drawn[file]}]({up}_pictures/{name}-{file})" for file in files or drawn]
        block = [f"```text\n{output(name)}\n```"] if mark[1] == "shown" else []
        return "\n\n".join([*block, *images])

    return _MARK.sub(made, text)
