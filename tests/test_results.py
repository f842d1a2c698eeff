"""What a run leaves behind: whole files or none, where they can be written."""

import math
import os
import pickle
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from headpatch.errors import InputError, RunError
from headpatch.results import check_folder, read_table, read_tensors, staged, write_columns
from tests.command import contents


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


@pytest.mark.parametrize("out", ["here", "new", "new/and/deep"])
def test_files_appear_together_at_the_end(tmp_path: Path, out: str) -> None:
    folder = tmp_path / out
    if out == "here":
        folder.mkdir()
        (folder / "a").write_text("old")
        (folder / "kept").write_text("kept")
    with staged(folder) as stage:
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
        with staged(tmp_path / out) as stage:
            (stage / "a").write_text("half")
            (stage / "below").mkdir()
            raise error

    with pytest.raises(error):
        run()
    assert set(contents(tmp_path)) == before
    assert (tmp_path / "here/a").read_text() == "old"


def test_what_an_earlier_run_of_the_verb_left_goes_with_success_only(tmp_path: Path) -> None:
    for name in ("a", "maybe", "also", "kept"):
        (tmp_path / name).write_text("old")
    (tmp_path / "folder").mkdir()

    def run(fails: bool) -> None:
        with staged(tmp_path, ("maybe", "also", "never", "folder")) as stage:
            (stage / "a").write_text("new")
            (stage / "also").write_text("new")
            if fails:
                raise KeyError

    with pytest.raises(KeyError):
        run(True)
    assert (tmp_path / "maybe").read_text() == "old"
    run(False)
    assert names(tmp_path) == {"a", "also", "kept", "folder"}
    assert (tmp_path / "also").read_text() == "new"


def write_one(out: Path) -> None:
    with staged(out) as stage:
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
        with staged(tmp_path / "out"):
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
    with pytest.raises(InputError) as caught:
        check_folder(out)
    message = str(caught.value)
    assert message.startswith(f"--out: {out} cannot be written (")
    assert "; expected a folder to write in" in message
    assert "\n" not in message


@given(st.lists(st.floats(allow_nan=True, allow_infinity=False, width=32), min_size=1, max_size=9))
@settings(max_examples=50)
def test_float32_survives_a_table(values: list[float]) -> None:
    with TemporaryDirectory() as folder:
        file = Path(folder) / "table.csv"
        write_columns(file, {"x": values, "n": list(range(len(values)))})
        back = read_table(file)
    assert list(back.columns) == ["x", "n"]
    assert list(back["n"]) == list(range(len(values)))
    for value, read in zip(values, back["x"], strict=True):
        assert math.isnan(read) if math.isnan(value) else read == pytest.approx(value, rel=5e-7)


def test_heads_stay_text(tmp_path: Path) -> None:
    """24.10 is not 24.1, and a pair called 007 is not 7."""
    file = tmp_path / "effects.csv"
    write_columns(file, {"pair": ["007", "a, b"], "heads": ["24.10", "1.1+2.2"], "ld": [0.5, 1.0]})
    back = read_table(file)
    assert list(back["heads"]) == ["24.10", "1.1+2.2"]
    assert list(back["pair"]) == ["007", "a, b"]
    assert list(back["ld"]) == [0.5, 1.0]


def test_columns_of_unlike_length_are_an_error(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"shorter|longer"):
        write_columns(tmp_path / "t.csv", {"a": [1, 2], "b": [1]})


def test_tensors_are_read_by_the_safe_loader(tmp_path: Path) -> None:
    torch.save({"diff": torch.ones(2, 3), "top": 5, "names": ["a"]}, tmp_path / "good.pt")
    good = read_tensors(tmp_path / "good.pt")
    assert torch.equal(good["diff"], torch.ones(2, 3))
    assert (good["top"], good["names"]) == (5, ["a"])
    torch.save({"run": os.getcwd}, tmp_path / "code.pt")
    with pytest.raises(pickle.UnpicklingError):
        read_tensors(tmp_path / "code.pt")
