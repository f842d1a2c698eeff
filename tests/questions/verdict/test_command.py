"""`headpatch verdict` from the command line, on the planted circuit."""

from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import pytest
import yaml

from headpatch.core.output.files import read_table, read_tensors
from headpatch.core.store import Store
from tests.command import Said, contents, headpatch, ran, refused
from tests.planted import QUESTION, planted_dataset, save_planted

TABLES = ("faithfulness.csv", "gate.csv", "nulls.csv", "partners.csv",
          "factors.csv", "together.csv", "verdicts.csv", "vision.csv")  # fmt: skip
FILES = {*TABLES, "faithfulness.png", "run.yaml", "verdict.png", "verdict.pt"}
PAIRS = 12
CONFIG = """
verdict: {top: 5, nulls: 2, vision: 2, controls: 0, attribution: 0, random: 1, noise: 1}
pairs: {resamples: 200}
"""


@pytest.fixture(scope="module", autouse=True)
def _few_pairs_will_do() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("headpatch.core.saved_verdict.LEAST", PAIRS // 2)
        yield


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("verdict")
    save_planted(folder / "model", noise=0.05)
    planted_dataset(folder / "pairs", PAIRS)
    assert QUESTION in (folder / "pairs" / "manifest.csv").read_text()
    (folder / "study.yaml").write_text(CONFIG)
    return folder


def words(place: Path, out: Path, *more: object) -> tuple[object, ...]:
    return (
        "verdict", "--config", place / "study.yaml", "--model", place / "model",
        "--pairs", place / "pairs", "--out", out, *more
    )  # fmt: skip


def run(place: Path, out: Path, *more: object) -> Said:
    return ran(*words(place, out, *more))


@pytest.fixture(scope="module")
def whole(place: Path) -> Said:
    """What is printed of an uninterrupted run into ``whole``."""
    return ran(*words(place, place / "whole"), draws=True)


def test_it_prints_the_verdicts_and_writes_every_file(place: Path, whole: Said) -> None:
    out, said = place / "whole", whole
    text = " ".join(said.out.split())
    assert {path.name for path in out.iterdir()} == FILES
    for part in (
        "Gate: 12 of 12 pairs pass (100.0%)",
        "A NULL FAILED (mirrored, wrong place)",  # the circuit reads no question
        "Of the 5 heads that attention picks out, alone 3 are shown to act",
        "Do the heads that look decide?",
        "necessary+sufficient",
    ):
        assert part in text, part
    table = read_table(out / "verdicts.csv")
    assert len(table) == 16
    assert set(table["failed_nulls"]) == {"wrong place;mirrored"}
    assert table.set_index(["layer", "head"]).loc[(1, 3), "verdict"] == "inhibitory"
    assert list(read_table(out / "gate.csv")["passed"]) == [True] * PAIRS
    saved = read_tensors(out / "verdict.pt")
    assert saved["resample_noising"].shape == saved["mean_denoising"].shape == (PAIRS, 4, 4)
    names = {name for part in saved["parts"] for name in part["judges"]}
    assert sorted(names) == sorted(saved["pairs"])
    for part in saved["parts"]:
        assert part["noising"].shape == (len(part["sets_noising"]), PAIRS // 2)
    run_file = yaml.safe_load((out / "run.yaml").read_text())
    assert run_file["study"]["verdict"]["top"] == 5
    assert run_file["run"]["noise_floor"] < 1e-4
    assert run_file["run"]["failed_nulls"] == ["wrong place", "mirrored"]
    for name in ("verdicts.csv", "partners.csv", "faithfulness.csv", "vision.csv"):
        marked = read_table(out / name)
        assert marked.columns[-1] == "failed_nulls"
        assert set(marked["failed_nulls"]) == {"wrong place;mirrored"}, name


def test_json_is_one_object(place: Path, tmp_path: Path) -> None:
    said = run(place, tmp_path / "out", "--json", "--top", 4)
    found = said.json
    assert said.err.count("\n") == 1 and "12 pairs, if all pass: about" in said.err
    assert found["failed_nulls"] == ["wrong place", "mirrored"]
    assert found["nulls_passed"] is False
    assert len(found["headline"]["picked"]) == 4
    assert found["headline"]["counts"]["redundant"] == 2
    assert found["passed"] == PAIRS
    assert {Path(name).name for name in found["files"]} == FILES


def test_a_killed_run_goes_on_and_gives_the_same_result(
    place: Path, whole: Said, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert whole.code == 0
    out, save = tmp_path / "out", Store.put

    def save_five(self: Store, name: str, content: object) -> None:
        if self.count == 5:
            raise KeyboardInterrupt
        save(self, name, content)  # type: ignore[arg-type]

    with monkeypatch.context() as patch:
        patch.setattr(Store, "put", save_five)
        stopped = headpatch(*words(place, out))
    assert stopped.code == 130
    assert "5 finished parts are kept" in stopped.err and "--resume" in stopped.err
    before = contents(out)
    asked = refused(*words(place, out))
    assert "5 finished parts of an interrupted verdict" in asked and "--no-resume" in asked
    assert contents(out) == before
    said = run(place, out, "--resume")
    assert "5 finished parts were found; going on" in said.err
    for name in TABLES:
        assert (out / name).read_bytes() == (place / "whole" / name).read_bytes()
    assert {path.name for path in out.iterdir()} == FILES


def test_a_run_file_runs_it_again_and_no_resume_starts_over(
    place: Path, whole: Said, tmp_path: Path
) -> None:
    assert whole.code == 0
    Store(tmp_path / ".verdict-pairs").put("another", {"a": 1})
    ran("verdict", "--config", place / "whole" / "run.yaml", "--out", tmp_path, "--no-resume")
    assert {path.name for path in tmp_path.iterdir()} == FILES
    tables = [read_table(out / "verdicts.csv") for out in (place / "whole", tmp_path)]
    pd.testing.assert_frame_equal(*tables)


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (("--split", "0.9"), "--pairs: 12 pairs, of which 1 would judge heads; expected at least"),
        (("--split", "0.999"), "leaves the confirmation half empty"),
        (("--limit", "4"), "at least 12 pairs that pass the gate"),
        (("--n", "50"), "--n, --pairs: both of them"),
    ],
)
def test_bad_input_is_one_line_and_nothing_is_written(
    place: Path, tmp_path: Path, more: tuple[str, ...], said: str
) -> None:
    assert said in refused(*words(place, tmp_path / "out", *more))
    assert not (tmp_path / "out").exists()


def test_too_few_drawn_pairs_are_refused_before_any_is_drawn(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def draw_one(*_: object) -> None:
        raise AssertionError("a pair was drawn")

    monkeypatch.setattr("headpatch.pairs.generate.write_pictures", draw_one)
    line = refused("verdict", "--n", 10, "--out", tmp_path / "out", "--model", "/nowhere")
    assert line.startswith("--n: 10 pairs, of which 5 would judge heads")


@pytest.mark.parametrize(
    ("count", "said"),
    [
        (PAIRS, ("none of 12 pairs passes the gate",)),
        (3, ("9 pairs, of which", "that pass the gate")),
    ],
)
def test_pairs_left_by_the_gate_must_be_enough(
    place: Path, tmp_path: Path, count: int, said: tuple[str, ...]
) -> None:
    """Left and right swapped: the object is there where it should not be."""
    heading, *rows = (place / "pairs" / "manifest.csv").read_text().splitlines()
    folder = tmp_path / "swapped"
    folder.mkdir()
    for path in (place / "pairs").glob("*.png"):
        (folder / path.name).symlink_to(path)
    swapped = [
        row.replace("True", "X").replace("False", "True").replace("X", "False")
        for row in rows[:count]
    ]
    (folder / "manifest.csv").write_text("\n".join([heading, *swapped, *rows[count:]]))
    line = refused(*words(place, tmp_path / "out", "--pairs", folder))
    assert all(part in line for part in said)
    assert not (tmp_path / "out").exists()
    if count < PAIRS:
        forced = run(place, tmp_path / "out", "--pairs", folder, "--force")
        assert "INVALID STUDY" in forced.out
