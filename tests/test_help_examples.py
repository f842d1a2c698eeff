"""Every example of a verb's help works when pasted into an empty folder, one after the other.

What an example says to do first, in brackets, is done first. Examples are left out by one rule: no
empty folder has what they name (a model of the hub, or pictures and files that no example here
makes and headpatch does not bring along). There are none now.

Most run to their end, on the bundled model. Those of `DEAR` would take minutes together: they go
as far as the model, past everything that is checked before, and run whole where
``HEADPATCH_EXAMPLES=all`` is set; only there are figures drawn, which have tests of their own.
"""

import inspect
import os
import re
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest

from headpatch.cli import app
from headpatch.core import session
from headpatch.errors import RunError
from tests.command import ran, refused

WHOLE = os.environ.get("HEADPATCH_EXAMPLES") == "all"
DEAR = (
    "headpatch ablate --heads v8.3",
    "headpatch check",
    "headpatch claims",
    "headpatch combine --heads 21.14,23.9 --pairs",
    "headpatch combine --top",
    "headpatch cut --edges",
    "headpatch cut --from answer,question",
    "headpatch evaluate --heads 21.14,21.16 --each",
    "headpatch path",
    "headpatch rank --pairs",
    "headpatch rollout",
    "headpatch sweep --kinds resample --approx",
    "headpatch sweep --kinds resample --pairs",
    "headpatch sweep --tower vision",
    "headpatch trace --answer",
    "headpatch trace --pairs",
    "headpatch trace --tokens",
    "headpatch verdict",
)
"""How the examples begin that take more than four seconds each."""
VERBS = {
    one.name or one.callback.__name__: inspect.getdoc(one.callback) or ""
    for one in app.registered_commands
    if one.callback
}


def examples(page: str) -> list[str]:
    """The commands of a help page's examples, in the order in which they are to be run."""
    _, _, section = re.sub(r"Examples\n-+\n", "Example:", page).partition("Example:")
    found: list[str] = []
    for text, before in re.findall(r"`([^`]+)`(?:\s+\(after `([^`]+)`\))?", section):
        found += [" ".join(one.split()) for one in (before, text) if one]
    return list(dict.fromkeys(found))


@pytest.fixture(scope="module")
def drawn() -> dict[str, Path]:
    """The folders of pairs that were drawn, by command: the same are not drawn twice."""
    return {}


@pytest.mark.parametrize("verb", VERBS)
def test_every_example_works(
    verb: str, drawn: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    commands = examples(VERBS[verb])
    assert any(one.startswith(f"headpatch {verb}") for one in commands)
    monkeypatch.chdir(tmp_path)
    for line in commands:
        if line in drawn:
            shutil.copytree(drawn[line], "pairs")
            continue
        run(line)
        if re.fullmatch(r"headpatch pairs --n \d+", line):
            drawn[line] = tmp_path / "pairs"


def run(line: str) -> None:
    """Run one command, as a shell in this folder would."""
    if not line.startswith("headpatch "):
        subprocess.run(line, shell=True, check=True)
    elif WHOLE or not line.startswith(DEAR):
        ran(*shlex.split(line)[1:], draws=WHOLE)
    else:

        def load(*_: object) -> None:
            raise RunError("the model is asked for")

        with pytest.MonkeyPatch.context() as patch:  # all that is checked before it is loaded
            patch.setattr(session, "load", load)
            assert refused(*shlex.split(line)[1:], code=1) == "the model is asked for"
