"""Files appear together, whole or not at all, where they can be written."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from headpatch.core.output.staging import check_folder, staged
from headpatch.errors import RunError
from tests.command import contents
from tests.refusals import refusal


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


@pytest.mark.parametrize("out", ["here", "new", "new/and/deep"])
def test_files_appear_together_at_the_end(tmp_path: Path, out: str) -> None:
    folder = tmp_path / out
    if out == "here":
        folder.mkdir()
        (folder / "a").write_text("old")
        (folder / "kept").write_text("kept")
    with staged(folder, "test") as stage:
        (stage / "a").write_text("new")
        (stage / "b").write_text("new")
        assert not (folder / "b").exists()
        assert not (folder / "a").exists() or (folder / "a").read_text() == "old"
    assert (folder / "a").read_text() == (folder / "b").read_text() == "new"
    assert names(folder) == ({"a", "b", "kept"} if out == "here" else {"a", "b"})
    assert names(tmp_path) == {Path(out).parts[0]}


@pytest.mark.parametrize("out", ["here", "new", "new/and/deep"])
@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, SystemExit])
def test_a_failure_leaves_nothing(tmp_path: Path, out: str, error: type[BaseException]) -> None:
    (tmp_path / "here").mkdir()
    (tmp_path / "here/a").write_text("old")
    before = set(contents(tmp_path))

    def run() -> None:
        with staged(tmp_path / out, "test") as stage:
            (stage / "a").write_text("half")
            (stage / "below").mkdir()
            raise error

    with pytest.raises(error):
        run()
    assert set(contents(tmp_path)) == before
    assert (tmp_path / "here/a").read_text() == "old"


def test_what_an_earlier_run_of_the_verb_left_goes_with_success_only(tmp_path: Path) -> None:
    for name in ("cuts.csv", "cuts.png", "kept"):
        (tmp_path / name).write_text("old")
    (tmp_path / "rollout.png").mkdir()

    def run(fails: bool) -> None:
        with staged(tmp_path, "cut") as stage:
            (stage / "cuts.csv").write_text("new")
            (stage / "run.yaml").write_text("study: {seed: 0}\nrun: {seed: 0}\n")
            if fails:
                raise KeyError

    with pytest.raises(KeyError):
        run(True)
    assert (tmp_path / "cuts.png").read_text() == "old"
    run(False)
    assert names(tmp_path) == {"cuts.csv", "kept", "rollout.png", "run.yaml"}
    assert (tmp_path / "cuts.csv").read_text() == "new"


def write_one(out: Path) -> None:
    with staged(out, "test") as stage:
        (stage / "a").write_text("new")
        (stage / "b").write_text("new")


def test_a_folder_in_a_file_s_place_is_found_before_anything_moves(tmp_path: Path) -> None:
    (tmp_path / "b").mkdir()
    (tmp_path / "a").write_text("old")
    with pytest.raises(RunError, match=r"--out: .*b is a folder"):
        write_one(tmp_path)
    assert (tmp_path / "a").read_text() == "old"
    assert names(tmp_path) == {"a", "b"}


def test_a_disk_that_fails_is_a_failed_run(tmp_path: Path) -> None:
    def run() -> None:
        with staged(tmp_path / "out", "test"):
            raise OSError(28, "No space left on device")

    with pytest.raises(RunError, match=r"--out: .*No space left"):
        run()
    assert names(tmp_path) == set()


def test_a_folder_that_vanished_is_a_failed_run(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(RunError, match="--out: "):
        write_one(tmp_path / "file/out")
    assert names(tmp_path) == {"file"}


def test_only_the_out_folder_need_be_writable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A mounted folder: its parent may be another file system, or not ours."""
    out = tmp_path / "mounted"
    out.mkdir()
    moved: list[tuple[Path, Path]] = []
    replace = os.replace

    def same_place(source: Path, target: Path) -> None:
        moved.append((source, target))
        replace(source, target)

    monkeypatch.setattr(os, "replace", same_place)
    write_one(out)
    assert moved
    assert all(out in source.parents and out in target.parents for source, target in moved)


def test_a_good_folder_is_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    before = set(contents(tmp_path))
    for out in (tmp_path, tmp_path / "new", tmp_path / "new/and/deep", Path("."), Path("new")):
        check_folder(out)
    assert set(contents(tmp_path)) == before


BAD: dict[str, Callable[[Path], Path]] = {
    "a file": lambda place: place / "file",
    "below a file": lambda place: place / "file/a/b",
    "no files there": lambda _: Path("/proc/headpatch"),
    "a device": lambda _: Path("/dev/null"),
    "too long": lambda place: place / ("x" * 300),
    "a broken link": lambda place: place / "link/below",
}


@pytest.mark.parametrize("bad", BAD)
def test_a_bad_folder_is_refused(tmp_path: Path, bad: str) -> None:
    (tmp_path / "file").write_text("")
    (tmp_path / "link").symlink_to(tmp_path / "file")
    out = BAD[bad](tmp_path)
    message = refusal(check_folder, out, of="--out")
    assert message.startswith(f"--out: {out} cannot be written (")
    assert "; expected a folder to write in" in message
