"""`headpatch path`, from the command line to its files, on the planted model: a pair, and many."""

from pathlib import Path

import pytest
import yaml

from headpatch.core.output.files import read_table, read_tensors
from headpatch.core.store import Store
from headpatch.errors import RunError
from tests.command import Said, contents, done, headpatch, of_pair, ran, refused, table, unpriced
from tests.datasets import planted_pairs
from tests.tiny import QUESTION

pytestmark = pytest.mark.usefixtures("undrawn")  # the contract draws them
FILES = ["path.csv", "path.png", "path.pt", "run.yaml"]
FILES_OF_PAIRS = ["gate.csv", "path.csv", "path.png", "path.pt", "path_mean.csv", "run.yaml"]
PAIRS = 3


@pytest.fixture
def asked(place: Path) -> list[object]:
    """The flags of a study of the planted model."""
    return ["path", *of_pair(place), "--question", QUESTION, "--window", 1]


@pytest.fixture(scope="module")
def many(place: Path) -> list[object]:
    """The flags of a study of four pairs: the second one's pictures stand the wrong way round."""
    (place / "pairs").mkdir()
    planted_pairs(place / "pairs", swapped=[1])
    return ["path", "--model", place / "model", "--pairs", place / "pairs", "--window", 1]


@pytest.fixture(scope="module")
def whole(place: Path, many: list[object]) -> Said:
    """What is printed of an uninterrupted run into ``whole``."""
    return ran(*many, *NAMED, "--out", place / "whole")


NAMED = ["--heads", "1.1", "--edges", "answer-region"]


def names(folder: Path) -> list[str]:
    return sorted(file.name for file in folder.iterdir())


def test_from_the_command_line(asked: list[object], tmp_path: Path) -> None:
    said = done(*asked, "--heads", "1.1,0.2", "--out", tmp_path)
    assert names(tmp_path) == FILES
    words = " ".join(said.out.split())
    assert "The answer position carries half of the difference or more from layer 2 on" in words
    assert "One pair shows one case, not a rule." in words
    assert "Paths to heads" in words
    held = {(r["where"], r["layer"]): float(r["normalized"]) for r in table(tmp_path / "path.csv")
            if (r["view"], r["tower"], r["direction"]) == ("stream", "lm", "noising")}  # fmt: skip
    found = [held["answer", str(layer)] for layer in range(4)]
    assert found == pytest.approx([0, 1 / 8, 6 / 8, 1], abs=1e-3)
    assert read_tensors(tmp_path / "path.pt")["heads"] == ["1.1", "0.2", "0.2+1.1"]
    kept = yaml.safe_load((tmp_path / "run.yaml").read_text(encoding="utf-8"))
    assert kept["study"]["path"]["heads"] == "1.1,0.2"
    assert kept["run"]["noise_floor"] < 1e-3


def test_without_attribution_the_rest_is_shown(
    asked: list[object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise RunError("a layer adds more than it should")

    monkeypatch.setattr("headpatch.questions.path.tables.take_apart", refuse)
    said = headpatch(*asked, "--heads", "1.1", "--edges", "answer-region", "--out", tmp_path)
    left_out = "direct attribution is left out: a layer adds more than it should"
    assert (said.code, unpriced(said.err)) == (0, f"headpatch: {left_out}\n")
    assert names(tmp_path) == FILES
    views = {row["view"] for row in table(tmp_path / "path.csv")}
    assert views == {"stream", "edge", "head path"}


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--window", "5"], "--window: 5 layers; expected at most 4 in this model"),
        (["--heads", "9.0"], "--heads: 9.0 is out of range"),
        (["--region", "0,0,0.05,0.05"], "--region: 0,0,0.05,0.05 holds no patch"),
        (["--region", "image"], "--edges: other: the region image is the whole image"),
        (["--resume"], "--resume, --no-resume: one pair of pictures; expected --pairs as well"),
    ],
)
def test_what_a_pair_lacks_is_refused(
    asked: list[object], flags: list[str], message: str, tmp_path: Path
) -> None:
    assert message in refused(*asked, *flags, "--out", tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--heads", "9.0"], "--heads: 9.0 is out of range"),
        (["--heads", "1.1", "--top", "3"], "--heads, --top: both of them"),
        (["--top", "1"], "3 pairs that pass the gate; expected at least 4"),
    ],
)
def test_what_many_pairs_lack_is_refused(
    many: list[object], flags: list[str], message: str, tmp_path: Path
) -> None:
    assert message in refused(*many, *flags, "--out", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_it_writes_rows_of_each_pair_and_their_means(place: Path, whole: Said) -> None:
    out, text = place / "whole", " ".join(whole.out.split())
    assert names(out) == FILES_OF_PAIRS
    for part in (
        f"Means over {PAIRS} pairs; their intervals are in path_mean.csv.",
        f"means over {PAIRS} pairs",
        "The region's image tokens carry half of the difference or more up to layer 0 (noising: "
        f"100% [100% to 100%] or more, on {PAIRS} of {PAIRS} pairs)",
        "They speak of pairs like these.",
        "Gate: 3 of 4 pairs pass (75.0%)",
        "Pairs that failed",
        "No with the object, Yes without it",
    ):
        assert part in text, part
    assert list(read_table(out / "path.csv")["pair"].unique()) == ["p0", "p2", "p3"]
    gate = read_table(out / "gate.csv")
    assert list(gate["passed"]) == [True, False, True, True]
    assert gate["ld_with"].notna().all()
    means = read_table(out / "path_mean.csv")
    assert set(means["pairs"]) == {PAIRS}
    first = means.query("view == 'stream' and where == 'region' and tower == 'lm' and layer == 0")
    assert first["normalized"].tolist() == pytest.approx([1, 1], abs=1e-3)
    assert first["half"].tolist() == [PAIRS, PAIRS]
    saved = read_tensors(out / "path.pt")
    assert saved["stream_low"]["answer"]["noising"].shape == (4,)
    assert (saved["pairs"], saved["valid"]) == (PAIRS, True)
    kept = yaml.safe_load((out / "run.yaml").read_text(encoding="utf-8"))
    assert kept["run"]["noise_floor"] < 1e-3
    assert (kept["run"]["pairs"], kept["run"]["passed"]) == (4, 3)


def test_a_killed_run_goes_on_and_gives_the_same_result(
    place: Path, many: list[object], whole: Said, tmp_path: Path
) -> None:
    assert whole.code == 0
    out, save = tmp_path / "out", Store.put
    words = [*many, *NAMED, "--out", out]

    def save_two(self: Store, name: str, content: dict[str, object]) -> None:
        if self.count == 2:
            raise KeyboardInterrupt
        save(self, name, content)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Store, "put", save_two)
        line = refused(*words, code=130)
    assert "2 finished pairs are kept" in line and "--resume" in line
    before = contents(out)
    line = refused(*words)
    assert "2 finished pairs of an interrupted path" in line and "--no-resume" in line
    assert contents(out) == before
    said = ran(*words, "--resume", "--json")
    assert unpriced(said.err) == "headpatch: 2 finished pairs were found; going on\n"
    found = said.json
    assert (found["pairs"], found["passed"], found["failed"][0]["pair"]) == (4, 3, "p1")
    assert any("on 3 of 3 pairs" in line for line in found["summary"])
    assert [Path(file).name for file in found["files"]] == names(out) == FILES_OF_PAIRS
    for name in ("path.csv", "path_mean.csv", "gate.csv"):
        assert (out / name).read_bytes() == (place / "whole" / name).read_bytes()
