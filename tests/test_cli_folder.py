"""Several verbs, and several runs, in one folder."""

import errno
import os
import re
import signal
from pathlib import Path
from typing import Any

import pytest
import yaml

import headpatch as hp
from headpatch.core.output.staging import taken
from tests import command
from tests.command import contents, done, headpatch, of_pair, refused, refused_early, table
from tests.planted import planted_folder
from tests.tiny import QUESTION


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return planted_folder(tmp_path_factory.mktemp("planted"))


@pytest.fixture(scope="module")
def shared(place: Path) -> Path:
    """A folder with a sweep of one kind, and then a ranking of more heads than usual."""
    out = place / "shared"
    ran("sweep", place, out, "--kinds", "zero", "--seed", 5)
    ran("rank", place, out, "--top", 7)
    return out


def ran(verb: str, place: Path, out: Path, *more: object) -> str:
    return command.ran(verb, *of_pair(place), "--question", QUESTION, "--out", out, *more).err


def record(folder: Path) -> dict[str, Any]:
    content: dict[str, Any] = yaml.safe_load((folder / "run.yaml").read_text(encoding="utf-8"))
    return content


def test_each_verb_is_replayed_from_the_record_of_its_own(shared: Path, tmp_path: Path) -> None:
    content = record(shared)
    assert (content["run"]["verb"], content["study"]["rank"]["top"]) == ("rank", 7)
    swept = content["earlier"]["sweep"]
    assert swept["study"]["sweep"]["kinds"] == ["zero"]
    assert swept["run"]["noise_floor"] is not None
    ran("sweep", shared.parent, tmp_path, "--config", shared / "run.yaml")
    assert (tmp_path / "effects.csv").read_bytes() == (shared / "effects.csv").read_bytes()
    assert record(tmp_path)["study"]["seed"] == 5


def test_the_page_shows_the_command_and_the_noise_floor_of_every_run(
    shared: Path, tmp_path: Path
) -> None:
    done("report", shared, "--out", tmp_path / "page.html")
    text = (tmp_path / "page.html").read_text()
    for verb in ("rank", "sweep"):
        assert f"headpatch {verb} --config {shared}/run.yaml --out {shared}" in text
        assert f"this folder ({verb})" in text
    floor = record(shared)["earlier"]["sweep"]["run"]["noise_floor"]
    assert f"{floor:.1e}" in text
    assert "Changed after the run" not in text


def test_a_figure_takes_its_words_from_the_run_that_wrote_its_file(shared: Path) -> None:
    run = hp.read_run(shared)
    assert (run.provenance["verb"], run.by(["sweep.pt"]).provenance["verb"]) == ("rank", "sweep")
    assert run.by(["sweep.pt"]).study.sweep.kinds == ("zero",)
    assert run.by(["heads.csv"]) is run


def test_ablate_takes_the_place_of_sweep_with_all_that_is_its_own(
    shared: Path, place: Path, tmp_path: Path
) -> None:
    ran("sweep", place, tmp_path, "--kinds", "zero")
    ran("rank", place, tmp_path)
    said = ran("ablate", place, tmp_path, "--heads", "1.1")
    assert f"{tmp_path / 'effects.csv'} of an earlier sweep is replaced" in said
    left = {file.name for file in tmp_path.iterdir()}
    assert {"effects.csv", "head_effects.png", "heads.csv", "run.yaml"} <= left
    assert not {"sweep.pt", "sweep.png"} & left
    content = record(tmp_path)
    assert (content["run"]["verb"], list(content["earlier"])) == ("ablate", ["rank"])


def test_a_second_run_is_refused_before_the_model_loads(place: Path, tmp_path: Path) -> None:
    ready, told = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            with taken(tmp_path, "sweep"):
                os.write(told, b"x")
                signal.pause()
        finally:
            os._exit(0)
    try:
        os.read(ready, 1)
        before = contents(tmp_path)
        line = refused_early("rank", *of_pair(place), "--question", QUESTION, "--out", tmp_path)
        assert line.startswith(f"--out: {tmp_path} is held by headpatch sweep (process {pid} on ")
        assert contents(tmp_path) == before
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
    ran("cut", place, tmp_path, "--heads", "1.1")
    assert not [file for file in tmp_path.iterdir() if file.name.startswith(".")]


def changed(shared: Path, to: Path, name: str, old: str, new: str) -> Path:
    to.mkdir()
    for file in shared.iterdir():
        (to / file.name).write_bytes(file.read_bytes())
    text, count = re.subn(old, new, (to / name).read_text(), count=1)
    assert count == 1
    (to / name).write_text(text)
    return to


def test_a_changed_table_is_told_on_the_page_and_beside_it(shared: Path, tmp_path: Path) -> None:
    folder = changed(shared, tmp_path / "c", "heads.csv", r"0\.(\d)", r"0.0\1")
    said = headpatch("report", folder, "--json")
    assert said.json["changed"] == ["heads.csv"]
    assert said.err == "headpatch: changed after the run, as the page says: heads.csv\n"
    assert "Changed after the run: heads.csv" in (folder / "report.html").read_text()
    with pytest.warns(UserWarning, match=r"heads\.csv was changed after the run"):
        hp.read_run(folder)["heads.csv"]


def test_a_changed_record_is_told_when_it_is_run_again(shared: Path, tmp_path: Path) -> None:
    folder = changed(shared, tmp_path / "c", "run.yaml", r"top: 7", r"top: 6")
    said = ran("rank", shared.parent, tmp_path / "again", "--config", folder / "run.yaml")
    assert said == (
        f"headpatch: {folder}/run.yaml was changed after the run: this may not be the study that "
        "was run\n"
    )
    assert table(tmp_path / "again" / "heads.csv") == table(shared / "heads.csv")


def test_a_prompt_with_two_characters_for_a_line_end_is_told(place: Path, tmp_path: Path) -> None:
    (tmp_path / "s.yaml").write_text("prompt: 'USER: <image>\\n{question} ASSISTANT:'\n")
    said = ran("rank", place, tmp_path / "out", "--config", tmp_path / "s.yaml")
    assert r"prompt: each \n of two characters is taken for a line end" in said


@pytest.mark.parametrize(
    ("old", "new", "found"),
    [
        (r"with: .*/with\.png", "with: /nowhere.png", "--with: /nowhere.png does not exist"),
        (r"top: 7", "top: -1", "run.yaml: rank.top: -1"),
        (r"- 'No'", "- 'Nope at all'", "answers: "),  # known by the model only
        (r"prompt: null", r"prompt: '\\n'", "prompt: "),  # of which there is a note as well
    ],
)
def test_a_refusal_of_a_changed_record_is_one_line(
    shared: Path, tmp_path: Path, old: str, new: str, found: str
) -> None:
    folder = changed(shared, tmp_path / "c", "run.yaml", old, new)
    line = refused("rank", "--config", folder / "run.yaml", "--out", tmp_path / "again")
    assert found in line
    note = f"{folder}/run.yaml was changed after the run: this may not be the study that was run"
    assert line.endswith(f". {note}")


@pytest.mark.parametrize("verb", ["rank", "sweep"])
def test_a_full_disk_is_one_line_with_path_and_space(
    verb: str, place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Wherever the last byte falls: in a table, in tensors, in a figure, in run.yaml."""

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("headpatch.core.output.files.tensor_bytes", full)
    words = (*of_pair(place), "--question", QUESTION, "--out", tmp_path / "out")
    said = headpatch(verb, *words)
    assert said.code == 1
    line = said.err.splitlines()[-1]
    assert re.search(
        rf"--out: {tmp_path}/out cannot be written \(No space left on device; .*left\)", line
    )
    assert "Traceback" not in said.err
    left = {file.name for file in tmp_path.rglob("*") if file.suffix != ".unit"}
    assert left <= {"out", ".sweep-rows"}  # what is finished waits for the next run


def test_a_folder_without_a_record_of_a_verdict_judges_nothing(
    shared: Path, place: Path, tmp_path: Path
) -> None:
    folder = changed(shared, tmp_path / "c", "run.yaml", r"top: 7", r"top: 7")
    for name in ("verdicts.csv", "partners.csv", "gate.csv"):
        (folder / name).write_text("a\n")
    (tmp_path / "claims.yaml").write_text(
        f"model: {place / 'model'}\nclaims: [head 1.1 is causal]\n"
    )
    line = refused("claims", tmp_path / "claims.yaml", "--out", folder)
    assert line.startswith(f"--out: {folder}/run.yaml has no record of a verdict")
