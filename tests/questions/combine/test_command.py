"""`headpatch combine`, from the command line to its files, on the planted model."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from headpatch.core.store import Store
from headpatch.questions.combine import VERB
from tests.command import done, headpatch, of_pair, refused
from tests.command import table as read_rows
from tests.datasets import planted_pairs
from tests.tiny import QUESTION

pytestmark = pytest.mark.usefixtures("undrawn")  # the contract draws them
FILES = sorted({*VERB.files, "run.yaml"} - {"gate.csv"})


@pytest.fixture
def asked(place: Path) -> list[object]:
    """The flags of a study of the planted model."""
    return ["combine", *of_pair(place), "--question", QUESTION]


def test_from_the_command_line(asked: list[object], tmp_path: Path) -> None:
    said = done(*asked, "--heads", "0.3,1.0,1.1", "--out", tmp_path)
    assert sorted(file.name for file in tmp_path.iterdir()) == FILES
    for schema in VERB.schemas:
        columns = [column.name for column in schema if column.name != "alpha"]
        assert list(read_rows(tmp_path / schema.file)[0]) == columns
    table = read_rows(tmp_path / "combinations.csv")
    assert len(table) == 2 * (3 + 3 + 1)
    (both,) = [r for r in table if r["heads"] == "0.3+1.0" and r["direction"] == "noising"]
    assert float(both["interaction"]) == pytest.approx(0.5, abs=1e-3)
    assert both["word"] == "redundancy"
    words = " ".join(said.out.split())
    for part in ("0.3+1.0", "either would do", "parts that change most",
                 "One pair of pictures shows one case, not a rule."):  # fmt: skip
        assert part in words
    kept = yaml.safe_load((tmp_path / "run.yaml").read_text(encoding="utf-8"))
    assert kept["study"]["combine"]["heads"] == "0.3,1.0,1.1"
    assert kept["run"]["noise_floor"] < 1e-3


def test_a_script_reads_json(asked: list[object], tmp_path: Path) -> None:
    flags = ["--top", 1, "--kinds", "resample,mean", "--reference", 0, "--listed", 1]
    found = done(*asked, *flags, "--out", tmp_path, "--json").json
    assert found["valid"] is True
    assert len(found["largest"]) == 2 * 2
    assert {one["kind"] for one in found["combinations"]} == {"resample", "mean"}
    assert {one["heads"] for one in found["selfrepair"]} >= {"1.1", "0.3"}
    assert [Path(file).name for file in found["files"]] == FILES


def test_the_price_is_said_first_and_a_stop_in_the_first_stage_keeps_its_pairs(
    asked: list[object], place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = headpatch(*asked, "--heads", "0.3,1.0", "--out", tmp_path / "one")
    (price,) = said.err.splitlines()
    assert price.startswith("headpatch: 1 pair: about ")
    assert "changing heads together: 8; taking passes apart: 10" in price
    (place / "first").mkdir()
    planted_pairs(place / "first")
    words = ["combine", "--model", place / "model", "--pairs", place / "first"]
    words += ["--heads", "0.3,1.0", "--out", tmp_path / "many"]
    put, kept = Store.put_aside, []

    def stopping(store: Store, key: str, content: Any) -> None:
        put(store, key, content)
        kept.append(key)
        if len(kept) == 2:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Store, "put_aside", stopping)
        line = refused(*words, code=130)
    assert "2 untouched runs of pairs are kept in" in line
    assert "the same command uses them" in line
    with monkeypatch.context() as patch:
        patch.setattr(Store, "put_aside", stopping)  # of the third pair on
        done(*words)
    assert len(kept) == 4
    assert kept[:2] != kept[2:]


def test_over_a_dataset(place: Path, tmp_path: Path) -> None:
    (place / "pairs").mkdir()
    planted_pairs(place / "pairs")
    flags = ["--model", place / "model", "--pairs", place / "pairs", "--out", tmp_path]
    found = done("combine", *flags, "--heads", "0.3,1.0", "--json").json
    assert (found["pairs"], found["passed"]) == (4, 4)
    by_way = {(one["heads"], one["direction"]): one for one in found["combinations"]}
    both = by_way["0.3+1.0", "noising"]
    assert both["interaction"] == pytest.approx(0.5, abs=1e-3)
    assert (both["word"], both["pairs"]) == ("redundancy", 4)
    assert {file.name for file in tmp_path.iterdir()} == {*FILES, "gate.csv"}
    said = done("combine", *flags, "--top", 1)
    words = " ".join(said.out.split())
    assert "Heads were picked on 2 other pairs and judged on 2." in words
    assert "Gate: 4 of 4 pairs pass" in words


def test_an_invalid_study_is_marked(asked: list[object], tmp_path: Path) -> None:
    swap = {"--with": "--without", "--without": "--with"}
    swapped = [swap.get(str(word), word) for word in asked]
    said = headpatch(*swapped, "--heads", "0.3,1.0", "--force", "--out", tmp_path)
    assert said.code == 0 and "INVALID" in said.out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--heads", "1.1"], "--heads: one head (1.1); expected two heads or more"),
        (["--heads", "1.1,9.0"], "--heads: 9.0 is out of range"),
        (["--heads", "1.1,v0.1"], "--heads: v0.1 is a vision head"),
        (["--top", "99"], "--top: 99; expected at most 16 heads in this model"),
        (["--region", "0,0,0.05,0.05"], "--region: 0,0,0.05,0.05 holds no patch"),
    ],
)
def test_what_the_model_lacks_is_refused(
    asked: list[object], arguments: list[str], message: str, tmp_path: Path
) -> None:
    assert message in refused(*asked, *arguments, "--out", tmp_path)
    assert not list(tmp_path.iterdir())
