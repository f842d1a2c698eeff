"""What a person reads of every verb's help on a screen of 80 columns."""

import re

import pytest

from headpatch.cli import app
from tests.command import headpatch

VERBS = [one.name or one.callback.__name__ for one in app.registered_commands]


@pytest.mark.parametrize("verb", ["", *VERBS])
def test_help_is_whole_and_names_no_types_of_python(
    verb: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    text = headpatch(*filter(None, [verb]), "--help").out
    assert not re.findall(r"<[\w|\[\]]+>|\[\[", text)
    assert "…" not in text
    assert max(map(len, text.splitlines())) <= 80


def test_resume_is_two_flags_of_which_one_is_given() -> None:
    said = headpatch("sweep", "--resume", "--no-resume")
    assert said.code == 2
    assert "--resume, --no-resume: both of them; expected one of them" in said.err


def test_the_verdict_says_how_many_pairs_it_needs() -> None:
    assert "needs 40" in " ".join(headpatch("verdict", "--help").out.split())
