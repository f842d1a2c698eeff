"""`headpatch sweep`, end to end; interrupted, killed and resumed."""

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import yaml

from headpatch.core import effects as towers
from headpatch.core.output.files import read_tensors
from headpatch.core.output.lock import LOCK
from headpatch.engine.patching import Outcome
from headpatch.engine.selfcheck import Check
from headpatch.questions.sweep import VERB as SWEEP
from headpatch.questions.sweep.columns import EFFECTS
from tests.command import Said, contents, headpatch, of_pair, ran, refused, refused_early, table
from tests.planted import HEADS, planted_image, save_planted
from tests.stopped import rows_left, stop_after, written

FILES = ["effects.csv", "run.yaml", "sweep.png", "sweep.pt"]
WAYS = [f"{k}_{d}" for k in ("zero", "mean", "resample") for d in ("noising", "denoising")]
ONE_WAY = ("--kinds", "resample", "--directions", "noising")


def flags(place: Path, out: Path) -> list[object]:
    return ["sweep", *of_pair(place), "--out", out, "--reference", 2]


@pytest.fixture(scope="module")
def printed(place: Path) -> Said:
    return ran(*flags(place, place / "out"), draws=True)


@pytest.fixture(scope="module")
def out(place: Path, printed: Said) -> Path:
    assert printed.code == 0
    return place / "out"


def test_what_is_written(out: Path) -> None:
    assert sorted(file.name for file in out.iterdir()) == FILES
    rows = table(out / "effects.csv")
    assert list(rows[0]) == [column.name for column in EFFECTS if not column.optional or
                             column.name in ("layer", "head", "attention_rank")]  # fmt: skip
    assert len(rows) == 16 * 6 + 16 * 2
    swept = read_tensors(out / "sweep.pt")
    assert list(swept["normalized"]) == list(swept["effect"]) == WAYS
    looker = HEADS["looker"]
    at = looker.head.layer, looker.head.head
    found = float(swept["normalized"]["resample_noising"][at])
    assert found == pytest.approx(looker.necessity, abs=1e-4)
    run = yaml.safe_load((out / "run.yaml").read_text("utf-8"))
    selves = [abs(float(row["effect"])) for row in rows if row["role"] == "noise floor"]
    assert run["run"]["noise_floor"] == swept["noise_floor"] == pytest.approx(max(selves))
    assert run["study"]["sweep"]["positions"] == "answer"


def test_the_price_is_said_before_the_run_and_the_top_after_it(printed: Said) -> None:
    (line,) = printed.err.splitlines()
    assert "16 heads x zero, mean, resample x noising, denoising at positions answer" in line
    assert "16 patched with their own z: 128 rows for" in line
    rows, total = map(float, re.findall(r"([\d.]+) (?:forward passes|in all)", line))
    assert "forward passes, and 4 over reference pairs for their mean: " in line
    assert total == pytest.approx(rows + 4, abs=0.06)
    for part in ("necessary?", "sufficient?", "attention rank", "noise floor", "Spearman", "1.1"):
        assert part in printed.out
    assert "One pair" in printed.out


def test_a_script_reads_one_object(place: Path, tmp_path: Path) -> None:
    found = ran(*flags(place, tmp_path), *ONE_WAY, "--top", 3, "--json").json
    assert found["top"][0]["heads"] == "1.1"
    assert len(found["top"]) == 3
    (largest,) = found["largest"]
    assert (largest["kind"], largest["heads"]) == ("resample", found["top"][0]["heads"])
    assert largest["effect"] == found["top"][0]["effect"]
    assert found["rows"] == 32
    assert 0 < found["forward_passes"] < 32
    assert found["widened"] is True
    assert set(found["spearman"]) == {"resample_noising"}
    assert [Path(file).name for file in found["files"]] == FILES


def test_sets_of_a_file(place: Path, tmp_path: Path) -> None:
    (tmp_path / "sets.txt").write_text("0.3+1.0  # redundant\n\n1.1\n1.0+0.3\n", "utf-8")
    said = ran(*flags(place, tmp_path / "out"), *ONE_WAY, "--sets", tmp_path / "sets.txt")
    assert "1 of the lines of" in said.err
    assert "2 sets x resample" in said.err
    rows = [row for row in table(tmp_path / "out" / "effects.csv") if row["role"] != "noise floor"]
    assert [(row["heads"], row["role"]) for row in rows] == [("0.3+1.0", "set"), ("1.1", "head")]
    assert [row["attention_rank"] == "" for row in rows] == [True, False]
    assert float(rows[0]["normalized"]) == pytest.approx(4 / 8, abs=1e-4)
    config = yaml.safe_load((tmp_path / "out/run.yaml").read_text("utf-8"))
    assert Path(config["study"]["sweep"]["sets"]) == tmp_path / "sets.txt"


def test_a_study_beside_its_sets(place: Path, tmp_path: Path) -> None:
    """Paths in a file are relative to it."""
    (tmp_path / "sets.txt").write_text("1.1\n", "utf-8")
    content = {
        "model": str(place / "model"),
        "with": str(place / "with.png"),
        "without": str(place / "without.png"),
        "sweep": {"sets": "sets.txt", "kinds": ["zero"]},
    }
    (tmp_path / "study.yaml").write_text(yaml.safe_dump(content), "utf-8")
    ran("sweep", "--config", tmp_path / "study.yaml", "--out", tmp_path / "out")
    assert {row["heads"] for row in table(tmp_path / "out" / "effects.csv")} == {"1.1"}


# Interruption


def test_an_interrupt_keeps_the_finished_part_and_resume_ends_in_the_same_table(
    place: Path, out: Path, tmp_path: Path
) -> None:
    words, told = flags(place, tmp_path), list[Outcome]()
    with pytest.MonkeyPatch.context() as patch:
        stop_after(patch, "intervene", 50, KeyboardInterrupt(), told)
        line = refused_after_the_price(*words, code=130)
    assert "50 finished rows are kept" in line
    assert "--resume" in line
    assert [file.name for file in tmp_path.iterdir()] == [SWEEP.kept_in]
    assert rows_left(tmp_path) == {one.intervention: one for one in told}  # to the last bit
    with pytest.MonkeyPatch.context() as patch:
        stop_after(patch, "intervene", 30, KeyboardInterrupt())
        assert "80 finished rows" in refused_after_the_price(*words, "--resume", code=130)
    kept = written(rows_left(tmp_path))
    assert len(kept) == 80
    said = ran(*words, "--resume")
    assert "80 of 128 rows were finished before" in said.err
    assert "48 rows are left for " in said.err
    assert sorted(file.name for file in tmp_path.iterdir()) == FILES
    assert (tmp_path / "effects.csv").read_bytes() == (out / "effects.csv").read_bytes()
    for row in table(tmp_path / "effects.csv"):
        key = row["heads"], row["kind"], row["direction"]
        assert kept.get(key, row["effect"]) == row["effect"]


def refused_after_the_price(*words: object, code: int) -> str:
    said = headpatch(*words)
    assert (said.code, said.out) == (code, ""), said.err
    assert "Traceback" not in said.err
    return said.err.splitlines()[-1]


def test_an_interrupt_before_the_first_row_leaves_nothing(place: Path, tmp_path: Path) -> None:
    def stop(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(towers, "intervene", stop)
        line = refused_after_the_price(*flags(place, tmp_path / "new"), code=130)
    assert "nothing was written" in line
    assert not (tmp_path / "new").exists()


def test_a_failure_keeps_the_finished_part_as_well(place: Path, tmp_path: Path) -> None:
    with pytest.MonkeyPatch.context() as patch:
        stop_after(patch, "intervene", 9, RuntimeError("the roof fell in"))
        said = headpatch(*flags(place, tmp_path))
    assert said.code == 1
    assert "9 finished rows are kept" in said.err
    assert "the roof fell in" in said.err.splitlines()[-1]
    assert [file.name for file in tmp_path.iterdir()] == [SWEEP.kept_in]


@pytest.fixture
def interrupted(place: Path, tmp_path: Path) -> Path:
    with pytest.MonkeyPatch.context() as patch:
        stop_after(patch, "intervene", 20, KeyboardInterrupt())
        headpatch(*flags(place, tmp_path / "out"))
    assert (tmp_path / "out" / SWEEP.kept_in).is_dir()
    return tmp_path / "out"


def test_what_is_left_is_neither_used_nor_lost_unasked(place: Path, interrupted: Path) -> None:
    before = contents(interrupted)
    line = refused_early(*flags(place, interrupted))
    for part in ("20 finished rows", "of an interrupted sweep", "--resume", "--no-resume"):
        assert part in line
    assert contents(interrupted) == before
    ran(*flags(place, interrupted), *ONE_WAY, "--no-resume")
    assert sorted(file.name for file in interrupted.iterdir()) == FILES
    assert len(table(interrupted / "effects.csv")) == 32


@pytest.mark.parametrize("change", ["picture", "seed", "positions", "model", "reference"])
def test_another_studys_rows_are_refused(
    place: Path, interrupted: Path, tmp_path: Path, change: str
) -> None:
    words = flags(place, interrupted)
    if change == "picture":
        planted_image(found=True, row=0).save(tmp_path / "other.png")
        words += ["--with", tmp_path / "other.png", "--without", place / "without.png"]
    elif change == "model":
        save_planted(tmp_path / "model", noise=0.1)
        words += ["--model", tmp_path / "model"]
    else:
        words += [f"--{change}", {"seed": 1, "positions": "question", "reference": 3}[change]]
    before = contents(interrupted)
    line = refused(*words, "--resume")
    assert "of another study" in line
    assert "--no-resume" in line
    assert contents(interrupted) == before


def test_what_only_shows_or_cuts_up_may_change(place: Path, interrupted: Path) -> None:
    said = ran(*flags(place, interrupted), "--resume", "--top", 2, "--rows", 3)
    assert "20 of 128 rows" in said.err


@pytest.mark.parametrize("damage", ["torn", "changed"])
def test_damaged_rows_are_done_again(
    place: Path, out: Path, interrupted: Path, damage: str
) -> None:
    (file,) = (interrupted / SWEEP.kept_in).iterdir()
    whole = file.read_bytes()
    changed = whole[:-700] + bytes([whole[-700] ^ 1]) + whole[-699:]
    file.write_bytes(whole[:-7] if damage == "torn" else changed)
    said = ran(*flags(place, interrupted), "--resume")
    assert "1 of the files in" in said.err and "measured anew" in said.err.splitlines()[0]
    assert "were finished before" not in said.err
    assert (interrupted / "effects.csv").read_bytes() == (out / "effects.csv").read_bytes()
    assert sorted(file.name for file in interrupted.iterdir()) == FILES


def test_resume_with_nothing_to_resume_starts(place: Path, tmp_path: Path) -> None:
    assert "were finished before" not in ran(*flags(place, tmp_path), *ONE_WAY, "--resume").err


def test_a_killed_process_leaves_its_finished_rows(place: Path, tmp_path: Path) -> None:
    """SIGKILL in the middle, then the rest; nothing that was on disk is run again."""
    names = [f"{a}.{b}" for a in range(4) for b in range(4)]
    sets = [f"{a}+{b}" for a in names for b in names if a < b][:90]
    (tmp_path / "sets.txt").write_text("\n".join(sets), "utf-8")
    words = [*flags(place, tmp_path / "out"), "--sets", tmp_path / "sets.txt", "--rows", 1]
    words += ["--kinds", "zero"]
    kept = tmp_path / "out" / SWEEP.kept_in
    process = subprocess.Popen(
        [sys.executable, "-m", "headpatch", *map(str, words)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )
    try:
        deadline = time.monotonic() + 60
        while process.poll() is None and time.monotonic() < deadline:
            if any(kept.glob("*.unit")) and len(rows_left(tmp_path / "out")) > 40:
                break
            time.sleep(0.01)
    finally:
        process.kill()
    assert process.wait() == -signal.SIGKILL
    rows = rows_left(tmp_path / "out")
    left = {file.name for file in (tmp_path / "out").iterdir()}
    assert left == {SWEEP.kept_in, LOCK}  # the next run takes its place
    said = ran(*words, "--resume")
    assert f"{len(rows)} of {len(sets) * 2 + 64} rows were finished before" in said.err
    named = [row for row in table(tmp_path / "out" / "effects.csv") if row["role"] != "noise floor"]
    assert [row["heads"] for row in named] == sets * 2
    effects = written(rows)
    for row in named:
        key = row["heads"], row["kind"], row["direction"]
        assert effects.get(key, row["effect"]) == row["effect"]
    whole = tmp_path / "whole"
    ran(*words, "--out", whole)
    for file in ("effects.csv", "sweep.pt"):
        assert (whole / file).read_bytes() == (tmp_path / "out" / file).read_bytes()


# Bad input


def test_a_set_that_the_model_does_not_have(place: Path, tmp_path: Path) -> None:
    (tmp_path / "sets.txt").write_text("7.1\n", "utf-8")
    before = contents(tmp_path)
    line = refused(*flags(place, tmp_path / "out"), "--sets", tmp_path / "sets.txt")
    assert line.startswith(f"--sets {tmp_path / 'sets.txt'}, line 1: 7.1 is out of range; expected")
    assert contents(tmp_path) == before


def test_a_scope_that_the_prompt_lacks(place: Path, tmp_path: Path) -> None:
    content = {"prompt": "USER: {question} <image>", "force": True}
    (tmp_path / "study.yaml").write_text(yaml.safe_dump(content), "utf-8")
    words = [*flags(place, tmp_path / "out"), "--config", tmp_path / "study.yaml"]
    line = refused(*words, "--positions", "question")
    assert line.startswith("--positions: question: the prompt has none")
    assert not (tmp_path / "out").exists()


def test_a_budget_too_small_for_one_row(place: Path, tmp_path: Path) -> None:
    """A row of the planted model takes kilobytes: the estimate is made larger."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("headpatch.engine.widen.row_bytes", lambda *_: 1 << 20)
        line = refused(*flags(place, tmp_path / "out"), "--budget", 1)
        assert line.startswith("--budget: 1 MiB; expected at least 2 MiB")
        assert not (tmp_path / "out").exists()
        ran(*flags(place, tmp_path / "out"), *ONE_WAY, "--budget", 2)


def test_answers_that_do_not_flip(place: Path, tmp_path: Path) -> None:
    words = flags(place, tmp_path / "out")
    words[words.index("--with") + 1] = place / "without.png"
    words[words.index("--without") + 1] = place / "with.png"
    assert "do not flip" in refused(*words)
    said = ran(*words, *ONE_WAY, "--force")
    assert "INVALID STUDY" in said.out
    assert read_tensors(tmp_path / "out/sweep.pt")["valid"] is False


def test_a_model_that_cannot_be_widened_is_swept_plainly_and_this_is_said(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("headpatch.engine.selfcheck.check", lambda *_: Check(0.5, 1e-4))
    said = ran(*flags(place, tmp_path), *ONE_WAY, "--json")
    assert "not exact" in said.err.splitlines()[0]
    assert "5.0e-01 logits" in said.err.splitlines()[0]
    assert said.json["widened"] is False
    assert said.json["forward_passes"] == 32 + 5
