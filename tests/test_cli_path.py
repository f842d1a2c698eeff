"""`headpatch path`, from the command line to its files, on the planted model."""

import csv
from pathlib import Path

import pytest
import yaml

from headpatch.core.output import read_tensors
from headpatch.errors import RunError
from tests.command import done, headpatch, refused, refused_early
from tests.planted import planted_study, save_planted
from tests.tiny import QUESTION

FILES = ["path.csv", "path.png", "path.pt", "run.yaml"]


@pytest.fixture(scope="module")
def asked(tmp_path_factory: pytest.TempPathFactory) -> list[object]:
    """The flags of a study of the planted model."""
    folder = save_planted(tmp_path_factory.mktemp("planted"))
    planted_study(folder)  # for its pictures
    pictures = ["--with", folder / "with.png", "--without", folder / "without.png"]
    return ["path", "--model", folder, *pictures, "--question", QUESTION, "--window", 1]


def rows(folder: Path) -> list[dict[str, str]]:
    with (folder / "path.csv").open(encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream))


def test_from_the_command_line(asked: list[object], tmp_path: Path) -> None:
    said = done(*asked, "--heads", "1.1,0.2", "--out", tmp_path)
    assert sorted(file.name for file in tmp_path.iterdir()) == FILES
    words = " ".join(said.out.split())
    assert "The answer position carries half of the difference or more from layer 2 on" in words
    assert "One pair shows one case, not a rule." in words
    assert "Paths to heads" in words
    held = {(r["where"], r["layer"]): float(r["normalized"]) for r in rows(tmp_path)
            if (r["view"], r["tower"], r["direction"]) == ("stream", "lm", "noising")}  # fmt: skip
    assert [held["answer", str(layer)] for layer in range(4)] == pytest.approx(
        [0, 1 / 8, 6 / 8, 1], abs=1e-3
    )
    saved = read_tensors(tmp_path / "path.pt")
    assert saved["heads"] == ["1.1", "0.2", "0.2+1.1"]
    kept = yaml.safe_load((tmp_path / "run.yaml").read_text(encoding="utf-8"))
    assert kept["study"]["path"]["heads"] == "1.1,0.2"
    assert kept["run"]["noise_floor"] < 1e-3


def test_a_script_reads_json_and_the_run_replays(asked: list[object], tmp_path: Path) -> None:
    flags = ["--top", 1, "--by", "effect", "--edges", "answer-region,words-region"]
    found = done(*asked, *flags, "--out", tmp_path, "--json").json
    assert {one["view"] for one in found["path"]} == {"stream", "edge", "direct", "head path"}
    assert {one["where"] for one in found["path"] if one["view"] == "edge"} == {
        "answer-region",
        "words-region",
    }
    assert any("Cutting attention in 1 layer takes" in line for line in found["summary"])
    assert [Path(file).name for file in found["files"]] == FILES
    again = tmp_path / "again"
    done("path", "--config", tmp_path / "run.yaml", "--out", again)
    assert rows(again) == rows(tmp_path)


def test_without_attribution_the_rest_is_shown(
    asked: list[object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise RunError("a layer adds more than it should")

    monkeypatch.setattr("headpatch.questions.path.direct.take_apart", refuse)
    said = headpatch(*asked, "--heads", "1.1", "--out", tmp_path)
    assert said.code == 0
    assert (
        said.err == "headpatch: direct attribution is left out: a layer adds more than it should\n"
    )
    assert sorted(file.name for file in tmp_path.iterdir()) == FILES
    assert {row["view"] for row in rows(tmp_path)} == {"stream", "edge", "head path"}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--edges", "answer-sky"], "--edges: 'answer-sky'; expected from-to"),
        (["--edges", "answer-region,answer-region"], "--edges: an edge is named twice"),
        (["--window", "0"], "--window: 0; expected at least 1"),
    ],
)
def test_bad_input_is_refused_before_the_model_loads(
    arguments: list[str], message: str, tmp_path: Path
) -> None:
    assert message in refused_early("path", *arguments, "--out", tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--window", "5"], "--window: 5 layers; expected at most 4 in this model"),
        (["--heads", "9.0"], "--heads: 9.0 is out of range"),
        (["--region", "0,0,0.05,0.05"], "--region: 0,0,0.05,0.05 holds no patch"),
        (["--region", "image"], "--edges: other: the region image is the whole image"),
    ],
)
def test_what_the_model_lacks_is_refused(
    asked: list[object], arguments: list[str], message: str, tmp_path: Path
) -> None:
    assert message in refused(*asked, *arguments, "--out", tmp_path)
    assert not list(tmp_path.iterdir())
