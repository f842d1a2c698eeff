"""What every verb shares: flags, in one order, that override keys of the study."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

from headpatch.cli import app
from headpatch.cli.options import COMMON
from headpatch.core.study.study import Study
from headpatch.errors import InputError
from tests.command import headpatch, refused, refused_early

PRINT = ["--json", "--debug"]
LOAD = ["--device", "--dtype", "--device-map", "--quantize", "--allow-unused-weights"]
MODEL = ["--model", *LOAD, "--seed"]
PICTURES = ["--with", "--without", "--question"]
ASKED = [*PICTURES, "--answers"]
RUN = ["--config", *MODEL, "--out", "--force", *PRINT]
MANY, ONE = ("rank", "ablate", "sweep", "combine"), ("path", "trace", "cut", "rollout")
FLAGS = {
    **{verb: [*RUN, *ASKED, "--region", "--pairs", "--limit"] for verb in MANY},
    **{verb: [*RUN, *ASKED, "--region"] for verb in ONE},
    "verdict": [*RUN, "--answers", "--pairs", "--limit"],
    "check": ["--config", *MODEL, *ASKED, *PRINT],
    "pairs": ["--config", "--seed", *PRINT],
    "claims": [*MODEL, "--answers", "--out", "--force", "--pairs", "--limit", *PRINT],
    "report": PRINT,
    "run": [*MODEL, "--out", "--force", *PRINT, *ASKED, "--region", "--pairs", "--limit"],
    "evaluate": ["--config", *MODEL, "--out", *PRINT, *ASKED, "--pairs", "--limit"],
    "table": ["--debug"],
    "methods": ["--debug"],
    "schema": [],
    "compare": ["--out", "--seed", *PRINT],
}
"""Every verb, and the common flags that it cannot do without."""
LACKS = {
    "verdict": [*PICTURES, "--region"],
    "check": ["--region", "--out", "--force", "--pairs", "--limit"],
    "pairs": ["--model", "--device", "--without", "--force"],
    "claims": [*PICTURES, "--region", "--config"],
    "report": ["--model", "--seed", "--config"],
    "run": ["--config", "--shard", "--workers", "--ray"],
    "compare": ["--model", "--config", "--pairs", "--force"],
}
NEEDS = {
    "claims": ["claims.yaml"],
    "report": ["folder"],
    "run": ["study.yaml"],
    "table": ["folder"],
    "methods": ["folder"],
    "compare": ["first", "second"],
}


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


@pytest.mark.parametrize("verb", [verb for verb in FLAGS if verb not in ("report", "schema")])
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
    same = {"model": "m", "with": "a.png", "without": "b.png", "question": "Q",
            "question-without": "R", "system": "S", "region": "center", "out": "o", "device": "cpu",
            "dtype": "float32", "device-map": "auto", "quantize": "4bit"}  # fmt: skip
    words = [word for name, text in same.items() for word in (f"--{name}", text)]
    words += ["--answers", "yes, no", "--pairs", "p.csv", "--limit", "3", "--seed", "7"]
    words += ["--hold", "0.5", "--format", "pdf,csv", "--width", "3.5", "--style", "s.mplstyle"]
    words += ["--allow-unused-weights", "--sum-variants", "--force"]
    assert asked("rank", *words, patch=monkeypatch) == {
        **{name.replace("-", "_"): text for name, text in same.items()},
        "rank.top": None, "rank.by": None, "rank.tau": None, "figures.format": ("pdf", "csv"),
        "figures.width": 3.5, "figures.style": "s.mplstyle", "answers": ("yes", "no"),
        "pairs.manifest": "p.csv", "pairs.limit": 3,
        "pairs.hold": 0.5, "allow_unused_weights": True, "sum_variants": True, "seed": 7,
        "force": True,
    }  # fmt: skip


def test_flags_of_verbs_override_the_study(monkeypatch: pytest.MonkeyPatch) -> None:
    """Words are separated by commas; a flag given several times holds all; none leaves it alone."""
    found = asked("ablate", "--kinds", "zero, mean", "--heads", "1.2,1.3", patch=monkeypatch)
    assert found["ablate.kinds"] == ("zero", "mean")
    assert found["ablate.heads"] == "1.2,1.3"
    found = asked("pairs", "--wording", "A, {at}?", "--wording", "B {at}?", patch=monkeypatch)
    assert found["draw.wording"] == ("A, {at}?", "B {at}?")
    assert set(asked("sweep", patch=monkeypatch).values()) == {None}


@pytest.mark.parametrize("verb", ["combine", "path"])
@pytest.mark.parametrize("other", ["--top 3", "--by effect"])
def test_heads_are_named_or_the_first_of_rankings(verb: str, other: str, tmp_path: Path) -> None:
    flag, value = other.split()
    said = refused_early(verb, "--heads", "24.17,24.18", flag, value, "--out", tmp_path)
    assert f"--heads, {flag}: both of them" in said
    assert not list(tmp_path.iterdir())


def _spelled() -> list[str]:
    """The common flags as they are typed, in their order."""
    other = {"with_image": "with", "without_image": "without", "as_json": "json"}
    return [f"--{other.get(name, name).replace('_', '-')}" for name in COMMON]
