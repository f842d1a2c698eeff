"""What is said of a price, line by line: once where something is paid, nothing where it is not."""

from pathlib import Path

import pytest

from tests.command import Said, headpatch
from tests.datasets import planted_pairs
from tests.planted import HEADS, planted_dataset, planted_folder

pytestmark = pytest.mark.usefixtures("undrawn")
HEAD, PAIR = str(HEADS["looker"].head), str(HEADS["blind writer"].head)
BOTH = f"{HEAD},{PAIR}"
PRICED = {
    "combine": ("--heads", BOTH),
    "path": ("--heads", HEAD, "--edges", "answer-region", "--window", 1),
    "trace": ("--tokens", 1, "--directions", "noising"),
    "rollout": ("--draws", 2),
}
"""Verbs of one pair, or of many, that say a price."""


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The planted model with its pair, and four pairs of its task."""
    folder = planted_folder(tmp_path_factory.mktemp("prices"))
    (folder / "pairs").mkdir()
    planted_pairs(folder / "pairs")
    return folder


@pytest.fixture(autouse=True)
def _at(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(place)


def asked(verb: str, *more: object, out: Path, many: bool = False) -> Said:
    pictures = ("--pairs", "pairs") if many else ("--with", "with.png", "--without", "without.png")
    words = ("--model", "model", *pictures, "--out", out)
    return headpatch(verb, *PRICED.get(verb, ()), *more, *words)


@pytest.mark.parametrize("many", [False, True], ids=["one", "many"])
@pytest.mark.parametrize("verb", PRICED)
def test_a_priced_verb_says_one_line(verb: str, many: bool, tmp_path: Path) -> None:
    said = asked(verb, out=tmp_path, many=many)
    assert said.code == 0, said.err
    line, *others = said.err.splitlines()  # what else is said comes after it
    assert not any("changed runs" in one for one in others)
    of = "4 pairs, if all pass" if many else "1 pair"
    assert line.startswith(f"headpatch: {of}: about ") and " changed runs are to come (" in line


def test_a_verb_without_a_price_says_nothing(tmp_path: Path) -> None:
    assert asked("rank", out=tmp_path).err == asked("rank", out=tmp_path / "2", many=True).err == ""


@pytest.mark.parametrize(
    ("verb", "wrong"),
    [
        ("combine", ("--kinds", "none")),
        ("combine", ("--top", 999)),
        ("path", ("--window", 99)),
        ("path", ("--region", "0,0,0.01,0.01")),
        ("trace", ("--answer", "一")),
        ("rollout", ("--token", 9)),
    ],
)
def test_a_refusal_is_exactly_one_line(
    verb: str, wrong: tuple[object, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No price before it, whether it is known before the model loads or after both runs."""
    if verb == "combine" and "--top" in wrong:
        monkeypatch.setitem(PRICED, "combine", ())
    said = asked(verb, *wrong, out=tmp_path)
    (line,) = said.err.splitlines()
    assert (said.code, said.out) == (2, ""), line
    assert line.startswith("headpatch: ") and "changed runs" not in line


def test_a_verdict_says_its_price_before_the_gate(place: Path, tmp_path: Path) -> None:
    """Its pairs are run only then: of those that all fail, the price stands before the refusal."""
    manifest = planted_dataset(tmp_path, 40)
    swapped = manifest.read_text().replace("name,with,without", "name,without,with")
    manifest.write_text(swapped)  # both answers are wrong
    said = headpatch("verdict", "--model", place / "model", "--pairs", manifest,
                     "--out", tmp_path / "out")  # fmt: skip
    price, refusal = said.err.splitlines()
    assert said.code == 2
    assert price.startswith("headpatch: 40 pairs, if all pass: about ")
    assert "none of 40 pairs passes the gate" in refusal
