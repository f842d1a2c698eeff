"""`headpatch path --pairs` from the command line to its files, on the planted model."""

from pathlib import Path

import pytest
import yaml
from PIL import Image

from headpatch.core.output import read_table, read_tensors
from headpatch.core.store import Store
from headpatch.report import draw
from tests.command import Said, contents, headpatch, refused
from tests.datasets import planted_pairs
from tests.planted import QUESTION, save_planted

FILES = ["gate.csv", "path.csv", "path.png", "path.pt", "path_mean.csv", "run.yaml"]
PAIRS = 3


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The planted model, and four pairs: the second one's pictures stand the wrong way round."""
    folder = tmp_path_factory.mktemp("path")
    save_planted(folder / "model")
    (folder / "pairs").mkdir()
    planted_pairs(folder / "pairs", swapped=[1])
    return folder


def words(place: Path, out: Path, *more: object) -> tuple[object, ...]:
    flags = ("--heads", "1.1", "--edges", "answer-region", "--window", 1)
    model = ("--model", place / "model", "--pairs", place / "pairs")
    return ("path", *model, *flags, "--out", out, *more)


def run(place: Path, out: Path, *more: object, draws: bool = False) -> Said:
    """Run what must succeed; its figure is left blank unless it `draws`."""
    with pytest.MonkeyPatch.context() as patch:
        if not draws:
            patch.setattr(draw, "draw_path", lambda folder: (folder / "path.png").touch())
        said = headpatch(*words(place, out, *more))
    assert said.code == 0, said.err
    return said


@pytest.fixture(scope="module")
def whole(place: Path) -> Said:
    """What is printed of an uninterrupted run into ``whole``."""
    return run(place, place / "whole", draws=True)


def test_it_writes_rows_of_each_pair_and_their_means(place: Path, whole: Said) -> None:
    out, text = place / "whole", " ".join(whole.out.split())
    assert sorted(path.name for path in out.iterdir()) == FILES
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
    assert list(rows["pair"].unique()) == ["p0", "p2", "p3"]
    gate = read_table(out / "gate.csv")
    assert list(gate["passed"]) == [True, False, True, True]
    assert gate["ld_with"].notna().all()
    means = read_table(out / "path_mean.csv")
    assert set(means["pairs"]) == {PAIRS}
    first = means[(means["view"] == "stream") & (means["where"] == "region")]
    first = first[(first["tower"] == "lm") & (first["layer"] == 0)]
    assert first["normalized"].tolist() == pytest.approx([1, 1], abs=1e-3)
    assert first["half"].tolist() == [PAIRS, PAIRS]
    saved = read_tensors(out / "path.pt")
    assert saved["stream_low"]["answer"]["noising"].shape == (4,)
    assert (saved["pairs"], saved["valid"]) == (PAIRS, True)
    with Image.open(out / "path.png") as picture:
        assert picture.width == 1400
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
    assert [Path(file).name for file in found["files"]] == FILES
    for name in ("path.csv", "path_mean.csv", "gate.csv"):
        assert (out / name).read_bytes() == (place / "whole" / name).read_bytes()
    assert sorted(path.name for path in out.iterdir()) == FILES


def test_one_pair_leaves_no_means_of_an_earlier_run(place: Path, tmp_path: Path) -> None:
    (tmp_path / "path_mean.csv").write_text("of an earlier run")
    pictures = ("--with", place / "pairs" / "0.png", "--without", place / "pairs" / "without.png")
    asked = [*words(place, tmp_path), *pictures, "--question", QUESTION]
    at = asked.index("--pairs")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(draw, "draw_path", lambda folder: (folder / "path.png").touch())
        said = headpatch(*asked[:at], *asked[at + 2 :])
    assert said.code == 0, said.err
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "path.csv", "path.png", "path.pt", "run.yaml",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (("--limit", "1"), "--pairs"),
        (("--limit", "0"), "--limit: 0; expected at least 1"),
        (("--window", "5"), "--window: 5 layers; expected at most 4 in this model"),
        (("--heads", "9.0"), "--heads: 9.0 is out of range"),
        (("--heads", "1.1", "--top", "3"), "--heads, --top: both of them"),
        (("--question", "Is it?"), "--pairs, --question: both of them"),
        (("--pairs", "nowhere"), "nowhere"),
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
