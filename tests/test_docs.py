"""What the documentation shows works: commands parse, Python names what there is, scripts run."""

import ast
import re
import runpy
import shlex
import sys
from contextlib import suppress
from functools import partial
from pathlib import Path

import pytest
import typer

import headpatch as hp
from headpatch import Head
from headpatch.cli import app
from headpatch.core import session
from headpatch.questions import VERBS
from tests.tiny import tiny_vlm

ROOT = Path(__file__).parent.parent
PAGES = sorted(
    path
    for pattern in ("*.md", "docs/*.md", "docs/verbs/*.md", "headpatch/questions/*/README.md")
    for path in ROOT.glob(pattern)
    if path.name != "CHANGELOG.md"
    and path not in {ROOT / f"docs/verbs/{verb.name}.md" for verb in VERBS}  # the build makes them
    and path != ROOT / "docs/study.md"
)
COMMANDS = typer.main.get_command(app).commands  # type: ignore[attr-defined]
VARIABLES = {"SLURM_ARRAY_TASK_ID": "1", "SLURM_ARRAY_TASK_COUNT": "8"}


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


def blocks(page: Path) -> list[tuple[str, str]]:
    """The blocks of code of a page: their language, and their text."""
    found = re.findall(r"^```(\w*)\n(.*?)^```", page.read_text(encoding="utf-8"), re.M | re.S)
    return [(language, text) for language, text in found if language != "text"]


def commands(page: Path) -> list[str]:
    """The commands of a page, in blocks and in running text."""
    shell = "\n".join(text for language, text in blocks(page) if language in ("", "bash"))
    lines = shell.replace("\\\n", " ").splitlines()
    plain = re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.M | re.S)
    inline = [" ".join(one.split()) for one in re.findall(r"`(headpatch [^`]+)`", plain)]
    return [line.strip() for line in lines if line.strip().startswith("headpatch ")] + inline


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_every_command_parses(page: Path) -> None:
    for shown in commands(page):
        line = re.sub(r"\$(\w+)", lambda found: VARIABLES[found[1]], shown)
        _, verb, *words = shlex.split(line.partition(" > ")[0], comments=True)
        if verb.startswith(("-", "VERB", "...")):
            continue
        assert verb in COMMANDS, line
        if not words or {"…", "..."} & set(words) or "|" in "".join(words):  # named, or a form
            words = [one for one in words if one.startswith("--")]
            known = {name for one in COMMANDS[verb].params for name in one.opts}
            assert set(words) <= known, line
        else:
            with suppress(typer.Exit):  # --help
                COMMANDS[verb].make_context(verb, words)


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_python_is_python_and_names_what_there_is(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    for language, code in blocks(page):
        if language == "python":
            ast.parse(code)
    for name in re.findall(r"\bhp\.([A-Za-z]\w*)", text):
        assert name in dir(hp), name


@pytest.mark.parametrize("page", [ROOT / "README.md", ROOT / "CONTRIBUTING.md"], ids=name_of)
def test_every_file_that_is_linked_is_there(page: Path) -> None:
    """Of pages of the site its build sees to that."""
    for link in re.findall(r"\]\(([^)#]+)", page.read_text(encoding="utf-8")):
        assert link.startswith("https://") or (ROOT / link).exists(), link


def test_the_newcomers_script_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a tiny model, whose answers mean nothing: the bundled one takes it half a minute."""
    monkeypatch.setattr(session, "load", lambda *_: tiny_vlm())
    monkeypatch.setattr(hp, "Study", partial(hp.Study, force=True))
    monkeypatch.setattr(sys, "argv", ["newcomer.py", str(tmp_path), "2"])
    found = runpy.run_path(str(ROOT / "docs/examples/newcomer.py"))
    assert len(found["pairs"].entries) == 2
    *alone, together = found["found"].means["heads"]
    assert together == "+".join(sorted(alone, key=Head.parse)) and len(alone) == 3
    assert (tmp_path / "results/report.html").is_file() and (tmp_path / "effects.pdf").is_file()
