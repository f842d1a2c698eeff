"""What every verb shares: flags, in one order, that override keys of the study."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

from headpatch.cli import app
from headpatch.cli.options import COMMON
from headpatch.core.study import Study
from headpatch.errors import InputError
from tests.command import headpatch, refused, refused_early

PRINT = ["--json", "--debug"]
LOAD = ["--device", "--dtype", "--device-map", "--quantize", "--allow-unused-weights"]
MODEL = ["--model", *LOAD, "--seed"]
PICTURES = ["--with", "--without", "--question"]
ASKED = [*PICTURES, "--answers"]
RUN = ["--config", *MODEL, "--out", "--force", *PRINT]
FLAGS = {
    "rank": [*RUN, *ASKED, "--region", "--pairs", "--limit"],
    "ablate": [*RUN, *ASKED, "--region", "--pairs", "--limit"],
    "sweep": [*RUN, *ASKED, "--region", "--pairs", "--limit"],
    "combine": [*RUN, *ASKED, "--region", "--pairs", "--limit"],
    "path": [*RUN, *ASKED, "--region"],
    "trace": [*RUN, *ASKED, "--region"],
    "cut": [*RUN, *ASKED, "--region"],
    "rollout": [*RUN, *ASKED, "--region"],
    "verdict": [*RUN, "--answers", "--pairs", "--limit"],
    "check": ["--config", *MODEL, *ASKED, *PRINT],
    "pairs": ["--config", "--seed", *PRINT],
    "claims": [*MODEL, "--answers", "--out", "--force", "--pairs", "--limit", *PRINT],
    "report": PRINT,
}
"""Every verb, and the common flags that it cannot do without."""
LACKS = {
    "verdict": [*PICTURES, "--region"],
    "check": ["--region", "--out", "--force", "--pairs", "--limit"],
    "pairs": ["--model", "--device", "--with", "--force"],
    "claims": [*PICTURES, "--region", "--config"],
    "report": ["--model", "--seed", "--config"],
}
NEEDS = {"claims": ["claims.yaml"], "report": ["folder"]}


def asked(verb: str, *words: str, patch: pytest.MonkeyPatch) -> Mapping[str, Any]:
    """Return the keys of the study that a command overrides, and by what."""
    seen: dict[str, Any] = {}

    def make(
        config: Path | None = None, flags: Mapping[str, Any] | None = None, *_: object
    ) -> Study:
        seen.update(flags or {})
        raise InputError("the study", "enough", "no more")

    with patch.context() as patched:
        patched.setattr(Study, "make", make)
        refused(verb, *NEEDS.get(verb, []), *words)
    return seen


def flags_of(verb: str) -> list[str]:
    """The flags on a verb's help page, in its order."""
    help_ = headpatch(verb, "--help").out
    first_words = (line.strip("│ ").split() for line in help_.splitlines() if line.startswith("│"))
    return [words[0].split("/")[0] for words in first_words if words and words[0][:2] == "--"]


@pytest.fixture(autouse=True)
def _wide(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "120")
    monkeypatch.setenv("TERM", "dumb")


def test_every_verb_is_held_here() -> None:
    names = {one.name or one.callback.__name__ for one in app.registered_commands if one.callback}
    assert names == set(FLAGS)


@pytest.mark.parametrize("verb", FLAGS)
def test_common_flags_come_last_and_in_one_order(verb: str) -> None:
    words = {flag: number for number, flag in enumerate(_spelled())}
    found = flags_of(verb)
    common = [flag for flag in found if flag in words]
    own = [flag for flag in found if flag not in words and flag != "--help"]
    if verb not in ("report", "pairs"):  # whose --out is another
        assert found == [*own, *sorted(common, key=words.__getitem__), "--help"]
    assert set(FLAGS[verb]) <= set(found)


@pytest.mark.parametrize(
    ("verb", "flag"), [(verb, flag) for verb, flags in LACKS.items() for flag in flags]
)
def test_a_flag_that_a_verb_does_not_have_is_refused(verb: str, flag: str) -> None:
    said = refused(verb, *NEEDS.get(verb, []), flag, "1")
    assert said.startswith(f"No such option: {flag} ")


@pytest.mark.parametrize("verb", [verb for verb in FLAGS if verb != "report"])
def test_flags_override_keys_that_the_study_has(verb: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for key in asked(verb, patch=monkeypatch):
        section: type[BaseModel] = Study
        *places, name = key.split(".")
        for place in places:
            inner = section.model_fields[place].annotation
            assert isinstance(inner, type) and issubclass(inner, BaseModel)
            section = inner
        assert name in {field.alias or own for own, field in section.model_fields.items()}, key


def test_common_flags_override_the_study(monkeypatch: pytest.MonkeyPatch) -> None:
    found = asked(
        "rank",
        *("--model", "m", "--with", "a.png", "--without", "b.png", "--question", "Q"),
        *("--answers", "yes, no"),
        *("--region", "center", "--pairs", "p.csv", "--limit", "3", "--out", "o"),
        *("--device", "cpu", "--dtype", "float32", "--device-map", "auto", "--quantize", "4bit"),
        *("--allow-unused-weights", "--seed", "7", "--force"),
        patch=monkeypatch,
    )
    assert found == {
        "rank.top": None,
        "model": "m",
        "with": "a.png",
        "without": "b.png",
        "question": "Q",
        "answers": ("yes", "no"),
        "region": "center",
        "pairs.manifest": "p.csv",
        "pairs.limit": 3,
        "out": "o",
        "device": "cpu",
        "dtype": "float32",
        "device_map": "auto",
        "quantize": "4bit",
        "allow_unused_weights": True,
        "seed": 7,
        "force": True,
    }


def test_flags_that_are_not_given_leave_the_study_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    assert set(asked("sweep", patch=monkeypatch).values()) == {None}


def test_words_are_separated_by_commas(monkeypatch: pytest.MonkeyPatch) -> None:
    found = asked("ablate", "--kinds", "zero, mean", "--heads", "1.2,1.3", patch=monkeypatch)
    assert found["ablate.kinds"] == ("zero", "mean")
    assert found["ablate.heads"] == "1.2,1.3"


def test_a_flag_given_several_times_holds_all(monkeypatch: pytest.MonkeyPatch) -> None:
    found = asked("pairs", "--wording", "A, {at}?", "--wording", "B {at}?", patch=monkeypatch)
    assert found["draw.wording"] == ("A, {at}?", "B {at}?")


@pytest.mark.parametrize("verb", ["combine", "path"])
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--heads", "24.17,24.18", "--top", "3"], "--heads, --top: both of them"),
        (["--heads", "24.17,24.18", "--by", "effect"], "--heads, --by: both of them"),
    ],
)
def test_heads_are_named_or_the_first_of_rankings(
    verb: str, arguments: list[str], message: str, tmp_path: Path
) -> None:
    assert message in refused_early(verb, *arguments, "--out", tmp_path)
    assert not list(tmp_path.iterdir())


def _spelled() -> list[str]:
    """The common flags as they are typed, in their order."""
    other = {"with_image": "with", "without_image": "without", "as_json": "json"}
    return [f"--{other.get(name, name).replace('_', '-')}" for name in COMMON]
