"""`headpatch pairs`, and `rank`, `ablate` and `sweep` over what it draws or a user brings."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import Image

from headpatch.core import effects as towers
from headpatch.core.output.files import read_tensors
from headpatch.engine.patching import Outcome
from tests.command import contents, done, headpatch, refused, refused_early, table
from tests.datasets import planted_pairs
from tests.planted import HEADS, save_planted

DRAWN = ["draw.yaml", "manifest.csv", "pairs.png"]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The planted model, and four pairs of its task; the second fails the gate."""
    folder = tmp_path_factory.mktemp("pairs")
    save_planted(folder / "model")
    planted_pairs(folder, swapped=[1])
    return folder


def flags(verb: str, place: Path, out: Path) -> list[object]:
    return [verb, "--model", place / "model", "--pairs", place / "manifest.csv", "--out", out]


def files(folder: Path) -> dict[str, bytes]:
    """All but the sheet to look at: matplotlib's layout rounds now this way, now that."""
    found = {file.name: file.read_bytes() for file in sorted(folder.iterdir())}
    del found["pairs.png"]
    return found


# ---------------------------------------------------------------- drawing


def test_pairs_are_drawn_with_their_table(tmp_path: Path) -> None:
    said = done("pairs", "--n", 5, "--out", tmp_path / "new/folder", "--size", 64)
    folder = tmp_path / "new/folder"
    pictures = [f"000{i}-{run}.png" for i in range(1, 6) for run in ("with", "without")]
    assert sorted(file.name for file in folder.iterdir()) == [*pictures, *DRAWN]
    rows = table(folder / "manifest.csv")
    assert list(rows[0])[:5] == ["name", "with", "without", "question", "region"]
    assert [row["with"] for row in rows] == pictures[::2]
    assert "5 pairs" in said.out and "distractors" in said.out
    with Image.open(folder / "pairs.png") as sheet:
        assert np.asarray(sheet).std() > 10


def test_json_counts_every_level(tmp_path: Path) -> None:
    said = done("pairs", "--n", 8, "--out", tmp_path, "--size", 32, "--json").json
    assert said["pairs"] == 8
    assert set(said["factors"]["region"].values()) == {2}
    assert sum(said["factors"]["colour"].values()) == 8
    assert said["files"] == [str(tmp_path / name) for name in ("manifest.csv", *DRAWN[::2])]


def test_the_same_command_gives_the_same_bytes_and_its_file_too(tmp_path: Path) -> None:
    words = ["--n", 3, "--size", 32, "--seed", 7, "--wording", "Is it {at}?"]
    words += ["--wording", "Is there a {shape} {at}, or not?", "--regions", "center,top-left"]
    done("pairs", *words, "--out", tmp_path / "a", "--format", "jpg")
    done("pairs", *words, "--out", tmp_path / "b", "--format", "jpg")
    done("pairs", "--config", tmp_path / "a/draw.yaml", "--out", tmp_path / "c")
    assert files(tmp_path / "a") == files(tmp_path / "b") == files(tmp_path / "c")
    done("pairs", *words, "--out", tmp_path / "a", "--format", "jpg")  # once more, in its place
    assert files(tmp_path / "a") == files(tmp_path / "b")
    regions = {row["region"] for row in table(tmp_path / "a/manifest.csv")}
    assert regions == {"center", "top-left-corner"}


def test_the_sheet_is_as_wide_and_styled_as_asked(tmp_path: Path) -> None:
    (tmp_path / "own.mplstyle").write_text("savefig.facecolor: black\n")
    (tmp_path / "own.yaml").write_text("figures: {format: [png, svg, csv]}\n")
    words = ["pairs", "--n", 2, "--size", 32, "--config", tmp_path / "own.yaml", "--width", 4]
    said = done(*words, "--out", tmp_path / "a", "--json").json
    assert [Path(one).name for one in said["files"]][2:] == ["pairs.png", "pairs.svg"]
    assert Image.open(tmp_path / "a/pairs.png").width == 800  # 200 dots an inch
    assert 'width="288pt"' in (tmp_path / "a/pairs.svg").read_text()
    done(*words, "--style", tmp_path / "own.mplstyle", "--out", tmp_path / "b")
    corner = [Image.open(tmp_path / one / "pairs.png").convert("RGB").getpixel((0, 0))
              for one in "ab"]  # fmt: skip
    assert corner == [(255, 255, 255), (0, 0, 0)]
    assert refused(*words, "--style", "none", "--out", tmp_path / "c").startswith("--style: ")
    assert not (tmp_path / "c").exists()


def test_a_half_or_a_box_may_be_asked_about(tmp_path: Path) -> None:
    words = ["pairs", "--n", 4, "--size", 64]
    done(*words, "--regions", "left-half,image", "--out", tmp_path / "a")
    named = ["--regions", "0.1,0.1,0.6,0.5", "--wording", "Is a {shape} near the top?"]
    done(*words, *named, "--out", tmp_path / "b")
    done("pairs", "--config", tmp_path / "b/draw.yaml", "--out", tmp_path / "c")
    assert files(tmp_path / "b") == files(tmp_path / "c")
    asked = [[row["region"] for row in table(tmp_path / one / "manifest.csv")] for one in "ab"]
    assert sorted(asked[0]) == ["image", "image", "left-half", "left-half"]
    assert asked[1] == ["0.1,0.1,0.6,0.5"] * 4
    named[-1] = "Is it {at}?"
    assert "without {at}" in refused(*words, *named, "--out", tmp_path / "d")


@pytest.mark.parametrize("change", [["--n", 4], ["--seed", 1], ["--size", 64], []])
def test_another_dataset_is_left_alone(tmp_path: Path, change: list[object]) -> None:
    words = ["pairs", "--n", 3, "--size", 32, "--out", tmp_path]
    done(*words)
    if not change:  # somebody has struck a line
        text = (tmp_path / "manifest.csv").read_text("utf-8")
        (tmp_path / "manifest.csv").write_text(text[: text.rindex("0003,")], "utf-8")
    before = files(tmp_path)
    message = refused(*words, *change)
    assert message.startswith("--out: ")
    assert "Choose another --out" in message
    assert files(tmp_path) == before


DRAW_BADLY = {
    "--n 0": ["--n", "at least 1"],
    "--n few": ["--n", "whole number"],
    "--size 8": ["--size", "at least 32"],
    "--format gif": ["--format", "'png'"],
    "--regions top": ["--regions", "'top'", "left-half, ", "center"],
    "--regions top-left,top-left": ["--regions", "twice"],
    "--wording Anything?": ["--wording", "no {at}"],
    "--out a-file": ["--out", "a-file", "cannot be written"],
    "--config none.yaml": ["--config", "none.yaml"],
}


@pytest.mark.parametrize("line", DRAW_BADLY)
def test_bad_draws_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, line: str) -> None:
    monkeypatch.chdir(tmp_path)
    Path("a-file").touch()
    before = contents(tmp_path)
    message = refused("pairs", *line.split())
    assert all(part in message for part in DRAW_BADLY[line]), message
    assert contents(tmp_path) == before


# ---------------------------------------------------------------- running


def test_rank_over_pairs(place: Path, tmp_path: Path) -> None:
    said = done(*flags("rank", place, tmp_path), "--top", 3)
    assert "3 of 4 pairs pass (75.0%)" in said.out
    assert "No with the object, Yes without it" in said.out
    names = ["gate.csv", "heads.csv", "run.yaml", "top_different_heads.png"]
    assert sorted(file.name for file in tmp_path.iterdir()) == names
    heads, gate = table(tmp_path / "heads.csv"), table(tmp_path / "gate.csv")
    assert list(heads[0]) == [
        "rank", "layer", "head", "diff", "with", "without", "diff_raw", "with_raw", "without_raw",
        "diff_low", "diff_high", "diff_raw_low", "diff_raw_high", "pairs", "compared_by",
    ]  # fmt: skip
    assert {row["pairs"] for row in heads} == {"3"}
    assert [row["passed"] for row in gate] == ["True", "False", "True", "True"]
    assert [row["pair"] for row in gate] == ["p0", "p1", "p2", "p3"]
    assert float(gate[1]["ld_with"]) < 0 < float(gate[1]["ld_without"])
    assert gate[3]["place"] == "(1, 1)"
    run = yaml.safe_load((tmp_path / "run.yaml").read_text("utf-8"))["run"]
    assert (run["pairs"], run["passed"], run["run"], run["valid"]) == (4, 3, 3, True)


def test_ablate_over_pairs(place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    head = HEADS["looker"]
    words = [*flags("ablate", place, tmp_path), "--heads", str(head.head), "--controls", 1]
    said = done(*words, "--json").json
    assert (said["pairs"], said["passed"], said["valid"]) == (4, 3, True)
    assert [row["pair"] for row in said["failed"]] == ["p1"]
    means = {(row["kind"], row["direction"]): row for row in said["effects_mean"]}
    assert len(means) == 6
    found = means["resample", "noising"]
    for end in ("", "_low", "_high"):
        assert found[f"normalized{end}"] == pytest.approx(head.necessity, abs=1e-4)
    assert found["pairs"] == 3
    assert said["caution"].startswith("Caution: 3 pairs. With fewer than 20, intervals")
    effects = table(tmp_path / "effects.csv")
    named = [row for row in effects if row["role"] == "head"]
    assert sorted({row["pair"] for row in named}) == ["p0", "p2", "p3"]
    assert len(named) == 18
    assert {"effects_mean.csv", "gate.csv", "head_effects.png", "run.yaml"} <= {
        file.name for file in tmp_path.iterdir()
    }
    monkeypatch.setattr("headpatch.core.output.writing.draw", lambda *_, **__: None)
    text = done(*flags("ablate", place, tmp_path), "--heads", "top:2", "--controls", 0).out
    assert "picked by their attention on the same pairs" in text
    assert "Caution: 3 pairs" in text


def stopping(patch: pytest.MonkeyPatch, after: int) -> None:
    """Ctrl-C when so many rows are done."""
    real: Callable[..., list[Outcome]] = towers.intervene
    left = [after]

    def stop(
        session: Any, asked: Any, means: Any, show: Any, on_outcome: Any, *rows: Any, **more: Any
    ) -> Any:
        def count(outcome: Outcome) -> None:
            on_outcome(outcome)
            left[0] -= 1
            if left[0] == 0:
                raise KeyboardInterrupt

        return real(session, asked, means, show, count, *rows, **more)

    patch.setattr(towers, "intervene", stop)


def test_sweep_over_pairs_is_resumed_to_the_same_tables(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = flags("sweep", place, tmp_path / "whole")
    said = headpatch(*words)
    assert said.code == 0, said.err
    assert "3 pairs x 128 rows" in said.err
    assert "attention rank" in said.out and "3 of 4 pairs pass" in said.out
    names = ["effects.csv", "effects_mean.csv", "gate.csv", "mean_effects.png", "run.yaml",
             "sweep.png", "sweep.pt"]  # fmt: skip
    assert sorted(file.name for file in (tmp_path / "whole").iterdir()) == names
    monkeypatch.setattr(
        "headpatch.core.output.writing.draw", lambda part, target, **_: target.touch()
    )
    words = flags("sweep", place, tmp_path / "again")
    with pytest.MonkeyPatch.context() as patch:
        stopping(patch, 150)  # in the second pair
        said = headpatch(*words)
    assert said.code == 130
    assert "150 finished rows are kept" in said.err
    assert [file.name for file in (tmp_path / "again").iterdir()] == [".sweep-rows"]
    before = contents(tmp_path / "again")
    assert "--resume" in refused(*words)
    assert "another study" in refused(*words, "--limit", 3, "--resume")
    assert contents(tmp_path / "again") == before
    said = headpatch(*words, "--resume")
    assert said.code == 0
    assert "150 of 384 rows were finished before" in said.err
    for name in ("effects.csv", "effects_mean.csv", "gate.csv"):
        assert (tmp_path / "again" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
    rows = table(tmp_path / "whole/effects.csv")
    assert len(rows) == 384
    assert [*dict.fromkeys(row["pair"] for row in rows)] == ["p0", "p2", "p3"]
    saved = read_tensors(tmp_path / "whole/sweep.pt")
    for one in HEADS.values():
        if one.scope == "answer":
            value = saved["normalized"]["resample_noising"][one.head.layer, one.head.head]
            assert float(value) == pytest.approx(one.necessity, abs=1e-4)


def test_sets_of_the_bundled_model_on_drawn_pairs(tmp_path: Path) -> None:
    done("pairs", "--n", 2, "--out", tmp_path / "pairs")
    (tmp_path / "sets.txt").write_text("27.15+27.27\n31.2\n")
    said = headpatch("sweep", "--pairs", tmp_path / "pairs", "--sets", tmp_path / "sets.txt",
                     "--kinds", "resample", "--out", tmp_path / "out", "--json")  # fmt: skip
    assert said.code == 0, said.err
    assert (said.json["pairs"], said.json["passed"]) == (2, 2)
    ranks = {row["heads"]: row["attention_rank"] for row in said.json["top"]}
    assert ranks.keys() == {"27.15+27.27", "31.2"}
    assert ranks["27.15+27.27"] is None and ranks["31.2"] >= 1
    assert said.json["noise_floor"] < 1e-4
    assert len(table(tmp_path / "out/effects_mean.csv")) == 4


def test_a_forced_run_is_marked(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("headpatch.core.output.writing.draw", lambda *_, **__: None)
    said = done(*flags("rank", place, tmp_path), "--force")
    assert "INVALID STUDY" in said.out
    assert {row["pairs"] for row in table(tmp_path / "heads.csv")} == {"4"}
    assert done(*flags("rank", place, tmp_path), "--force", "--json").json["valid"] is False


BAD = {
    "rank --pairs none.csv": ["--pairs", "none.csv", "No such file"],
    "ablate --pairs empty": ["--pairs", "empty holds no table", "manifest.csv"],
    "sweep --pairs missing.csv": ["missing.csv, line 2", "without", "nowhere.png"],
    "rank --pairs manifest.csv --limit 1": ["--pairs", "1 pair to run", "at least 2"],
    "ablate --limit 3": ["--limit", "no dataset", "--pairs"],
    "sweep --pairs manifest.csv --question x": ["--pairs, --question", "both"],
    "rank --pairs manifest.csv --region center": ["--pairs, --region", "both"],
    "rank --pairs manifest.csv --with a.png --without b.png": ["--pairs, --with", "both"],
    "rank --config study.yaml --question x": ["--pairs, --question", "both"],
}


@pytest.mark.parametrize("line", BAD)
def test_refused_before_a_model_loads(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, line: str
) -> None:
    planted_pairs(tmp_path)
    monkeypatch.chdir(tmp_path)
    Path("empty").mkdir()
    text = Path("manifest.csv").read_text("utf-8")
    Path("missing.csv").write_text(text.replace(",without.png", ",nowhere.png"), "utf-8")
    Path("study.yaml").write_text("pairs: {manifest: manifest.csv}", "utf-8")
    before = contents(tmp_path)
    message = refused_early(*line.split(), "--out", "new")
    assert all(part in message for part in BAD[line]), message
    assert contents(tmp_path) == before


def test_all_pairs_failing_is_one_line(place: Path, tmp_path: Path) -> None:
    words = ["--model", place / "model", "--pairs", tmp_path / "manifest.csv"]
    for swapped, verbs, said in (
        (4, ("rank", "ablate", "sweep"), "none of 4 pairs passes the gate"),
        (3, ("rank",), "1 of 4 pairs pass the gate"),
    ):
        planted_pairs(tmp_path, swapped=range(swapped))
        before = contents(tmp_path)
        for verb in verbs:
            assert said in refused(verb, *words, "--out", tmp_path / "new")
            assert contents(tmp_path) == before


def test_a_verb_of_one_pair_says_that_it_leaves_the_dataset(place: Path, tmp_path: Path) -> None:
    study = {"pairs": {"manifest": str(place / "manifest.csv")}, "with": str(place / "0.png"),
             "without": str(place / "without.png"), "model": str(place / "model"),
             "question": table(place / "manifest.csv")[0]["question"]}  # fmt: skip
    (tmp_path / "study.yaml").write_text(yaml.safe_dump(study))
    said = headpatch("check", "--config", tmp_path / "study.yaml")
    assert said.code == 0, said.err
    assert "check runs one pair" in said.err
