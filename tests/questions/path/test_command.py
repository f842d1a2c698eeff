"""`headpatch path`, from the command line to its files, on the planted model: a pair, and many."""

from pathlib import Path

import pytest
import yaml

from headpatch.core.output import read_table, read_tensors, writing
from headpatch.core.store import Store
from headpatch.errors import RunError
from headpatch.questions.path.columns import MEANS, PATH
from tests.command import Said, contents, done, headpatch, of_pair, refused, table
from tests.datasets import planted_pairs
from tests.tiny import QUESTION

FILES = ["path.csv", "path.png", "path.pt", "run.yaml"]


@pytest.fixture
def asked(place: Path) -> list[object]:
    """The flags of a study of the planted model."""
    return ["path", *of_pair(place), "--question", QUESTION, "--window", 1]


def rows(folder: Path) -> list[dict[str, str]]:
    return table(folder / "path.csv")


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


def test_a_script_reads_json(asked: list[object], tmp_path: Path) -> None:
    flags = ["--top", 1, "--by", "effect", "--edges", "answer-region,words-region"]
    found = done(*asked, *flags, "--out", tmp_path, "--json").json
    assert {one["view"] for one in found["path"]} == {"stream", "edge", "direct", "head path"}
    assert {one["where"] for one in found["path"] if one["view"] == "edge"} == {
        "answer-region",
        "words-region",
    }
    assert any("Cutting attention in 1 layer takes" in line for line in found["summary"])
    assert [Path(file).name for file in found["files"]] == FILES


def test_without_attribution_the_rest_is_shown(
    asked: list[object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise RunError("a layer adds more than it should")

    monkeypatch.setattr("headpatch.questions.path.views.take_apart", refuse)
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


# --- over many pairs

FILES_OF_PAIRS = ["gate.csv", "path.csv", "path.png", "path.pt", "path_mean.csv", "run.yaml"]
PAIRS = 3


@pytest.fixture(scope="module", autouse=True)
def _pairs(place: Path) -> None:
    """Four pairs: the second one's pictures stand the wrong way round."""
    (place / "pairs").mkdir()
    planted_pairs(place / "pairs", swapped=[1])


def words(place: Path, out: Path, *more: object) -> tuple[object, ...]:
    flags = ("--heads", "1.1", "--edges", "answer-region", "--window", 1)
    model = ("--model", place / "model", "--pairs", place / "pairs")
    return ("path", *model, *flags, "--out", out, *more)


def run(place: Path, out: Path, *more: object, draws: bool = False) -> Said:
    """Run what must succeed; its figure is left blank unless it `draws`."""
    with pytest.MonkeyPatch.context() as patch:
        if not draws:
            patch.setattr(writing, "draw", lambda _, path, *__, **___: path.touch())
        said = headpatch(*words(place, out, *more))
    assert said.code == 0, said.err
    return said


@pytest.fixture(scope="module")
def whole(place: Path) -> Said:
    """What is printed of an uninterrupted run into ``whole``."""
    return run(place, place / "whole", draws=True)


def test_it_writes_rows_of_each_pair_and_their_means(place: Path, whole: Said) -> None:
    out, text = place / "whole", " ".join(whole.out.split())
    assert sorted(path.name for path in out.iterdir()) == FILES_OF_PAIRS
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
    rows = read_table(out / "path.csv")
    assert list(rows) == [column.name for column in PATH]
    assert list(rows["pair"].unique()) == ["p0", "p2", "p3"]
    gate = read_table(out / "gate.csv")
    assert list(gate["passed"]) == [True, False, True, True]
    assert gate["ld_with"].notna().all()
    means = read_table(out / "path_mean.csv")
    assert list(means) == [column.name for column in MEANS]
    assert set(means["pairs"]) == {PAIRS}
    first = means[(means["view"] == "stream") & (means["where"] == "region")]
    first = first[(first["tower"] == "lm") & (first["layer"] == 0)]
    assert first["normalized"].tolist() == pytest.approx([1, 1], abs=1e-3)
    assert first["half"].tolist() == [PAIRS, PAIRS]
    saved = read_tensors(out / "path.pt")
    assert saved["stream_low"]["answer"]["noising"].shape == (4,)
    assert (saved["pairs"], saved["valid"]) == (PAIRS, True)
    kept = yaml.safe_load((out / "run.yaml").read_text(encoding="utf-8"))
    assert kept["study"]["path"]["heads"] == "1.1"
    assert kept["run"]["noise_floor"] < 1e-3
    assert (kept["run"]["pairs"], kept["run"]["passed"]) == (4, 3)


def test_a_killed_run_goes_on_and_gives_the_same_result(
    place: Path, whole: Said, tmp_path: Path
) -> None:
    assert whole.code == 0
    out, save = tmp_path / "out", Store.put

    def save_two(self: Store, name: str, content: dict[str, object]) -> None:
        if self.count == 2:
            raise KeyboardInterrupt
        save(self, name, content)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Store, "put", save_two)
        line = refused(*words(place, out), code=130)
    assert "2 finished pairs are kept" in line and "--resume" in line
    before = contents(out)
    asked = refused(*words(place, out))
    assert "2 finished pairs of an interrupted path" in asked and "--no-resume" in asked
    assert contents(out) == before
    said = run(place, out, "--resume", "--json")
    assert said.err == "headpatch: 2 finished pairs were found; going on\n"
    found = said.json
    assert (found["pairs"], found["passed"], found["failed"][0]["pair"]) == (4, 3, "p1")
    assert {"normalized", "normalized_low", "pairs", "half"} <= set(found["path_mean"][0])
    assert any("on 3 of 3 pairs" in line for line in found["summary"])
    assert [Path(file).name for file in found["files"]] == FILES_OF_PAIRS
    for name in ("path.csv", "path_mean.csv", "gate.csv"):
        assert (out / name).read_bytes() == (place / "whole" / name).read_bytes()
    assert sorted(path.name for path in out.iterdir()) == FILES_OF_PAIRS


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (("--window", "5"), "--window: 5 layers; expected at most 4 in this model"),
        (("--heads", "9.0"), "--heads: 9.0 is out of range"),
        (("--heads", "1.1", "--top", "3"), "--heads, --top: both of them"),
    ],
)
def test_bad_input_is_one_line_and_nothing_is_written(
    place: Path, tmp_path: Path, more: tuple[str, ...], said: str
) -> None:
    line = refused(*words(place, tmp_path / "out", *more))
    assert said in line
    assert not (tmp_path / "out").exists()


def test_too_few_pairs_to_pick_heads_on(place: Path, tmp_path: Path) -> None:
    flags = ("--model", place / "model", "--pairs", place / "pairs", "--window", 1)
    line = refused("path", *flags, "--top", 1, "--out", tmp_path / "out")
    assert "3 pairs that pass the gate; expected at least 4" in line
    assert not (tmp_path / "out").exists()


def test_resume_takes_many_pairs(tmp_path: Path) -> None:
    line = refused("path", "--resume", "--out", tmp_path / "out")
    assert line == "--resume, --no-resume: one pair of pictures; expected --pairs as well"
    assert not (tmp_path / "out").exists()
