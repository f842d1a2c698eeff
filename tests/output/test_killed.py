"""A run that is killed at any step leaves what was there before, or all that it wrote."""

import os
import shutil
import signal
from collections.abc import Callable
from itertools import count
from pathlib import Path

import pytest
import yaml

from headpatch.core.output.lock import LOCK
from headpatch.core.output.records import Records
from headpatch.core.output.staging import settle, staged, taken
from headpatch.errors import InputError, RunError

STEPS = ("replace", "fsync", "unlink", "rmdir", "open", "mkdir")
OLD = {"effects.csv": "control_n\nold\n", "effects_mean.csv": "old\n", "head_effects.png": "old"}
NEW = {"effects.csv": "control_n\nnew\n", "gate.csv": "new\n", "head_effects.png": "new"}


@pytest.fixture(autouse=True)
def _no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a killed process leaves does not hang on the disk: that is for power cuts."""
    monkeypatch.setattr(os, "fsync", lambda _: None)


def write(folder: Path, files: dict[str, str]) -> None:
    with staged(folder, "ablate") as stage:
        for name, text in files.items():
            (stage / name).write_text(text)
        content = {"study": {"seed": len(files)}, "run": {"who": files["head_effects.png"]}}
        (stage / "run.yaml").write_text(yaml.safe_dump(content))


def killed_at(step: int, after: bool, work: Callable[[], None]) -> bool:
    """Do the work in a forked process that is killed at a step; whether it came that far."""
    pid = os.fork()
    if pid == 0:
        steps = count(1)

        def counting(real: Callable[..., object]) -> Callable[..., object]:
            def counted(*arguments: object, **more: object) -> object:
                here = next(steps) == step
                if here and not after:
                    os.kill(os.getpid(), signal.SIGKILL)
                try:
                    return real(*arguments, **more)
                finally:
                    if here:
                        os.kill(os.getpid(), signal.SIGKILL)

            return counted

        try:
            for name in STEPS:
                setattr(os, name, counting(getattr(os, name)))
            work()
        finally:
            os._exit(0)
    return os.WIFSIGNALED(os.waitpid(pid, 0)[1])


def there(folder: Path) -> dict[str, str]:
    return {file.name: file.read_text() for file in folder.iterdir() if file.name != "run.yaml"}


def reopen(folder: Path) -> None:
    with taken(folder, "rank"):
        pass


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
def test_at_every_step(tmp_path: Path, after: bool) -> None:
    kills = {"old": 0, "new": 0}
    for step in count(1):
        folder = tmp_path / str(step)
        write(folder, OLD)
        if not killed_at(step, after, lambda folder=folder: write(folder, NEW)):  # type: ignore[misc]
            break
        (settle if step % 2 else reopen)(folder)  # whoever opens it next: a reader, a run
        (folder / LOCK).unlink(missing_ok=True)  # a reader leaves it; the next run takes its place
        found = there(folder)
        assert found in (OLD, NEW), step
        (record,) = Records.read(folder).every
        assert record.run["who"] == found["head_effects.png"]
        assert Records.read(folder).changed(record, ["run.yaml", *found]) == []
        kills[record.run["who"]] += 1
    assert kills["old"] > 10
    assert kills["new"] > 5


@pytest.fixture
def half_moved(tmp_path: Path) -> Path:
    """A folder whose run was killed as soon as it was clear what would be moved."""
    folder = tmp_path / "half moved"
    write(folder, OLD)
    for step in count(12):  # before that nothing is planned
        killed_at(step, False, lambda: write(folder, NEW))
        if list(folder.glob(".headpatch-*/.plan.json")):
            return folder
        settle(folder)
    raise AssertionError


def test_while_it_is_put_in_order(tmp_path: Path, half_moved: Path) -> None:
    """Whoever opens the folder may be killed as well."""
    for step in count(1):
        folder = tmp_path / str(step)
        shutil.copytree(half_moved, folder)
        if not killed_at(step, True, lambda folder=folder: settle(folder)):  # type: ignore[misc]
            break
        settle(folder)
        (folder / LOCK).unlink(missing_ok=True)
        assert there(folder) == NEW, step
    assert step > 5


def test_what_a_killed_run_left_goes_with_the_next(tmp_path: Path) -> None:
    stage = tmp_path / ".headpatch-abandoned"
    stage.mkdir()
    (stage / "effects.csv").write_text("half")
    (tmp_path / LOCK).write_text("{}")
    write(tmp_path, NEW)
    assert there(tmp_path) == NEW


def test_a_reader_leaves_what_a_living_run_writes(tmp_path: Path) -> None:
    write(tmp_path, OLD)
    with staged(tmp_path, "ablate") as stage:
        (stage / "gate.csv").write_text("new")
        pid = os.fork()
        if pid == 0:
            settle(tmp_path)
            os._exit(0)
        assert os.waitpid(pid, 0)[1] == 0
        assert (stage / "gate.csv").read_text() == "new"
        assert Records.read(tmp_path).every[0].run["who"] == "old"


def test_a_run_that_cannot_be_finished_is_not_read(
    half_moved: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The folder may be another's, or on a disk that is mounted for reading alone."""
    with monkeypatch.context() as patched:
        patched.setattr("headpatch.core.output.staging.locked", _read_only)
        with pytest.raises(InputError, match="half moved there"):
            settle(half_moved)
    settle(half_moved)
    assert Records.read(half_moved).every[0].run["who"] == "new"


def _read_only(*_: object) -> None:
    raise OSError(30, "Read-only file system")


def test_a_disk_that_fails_halfway_is_finished_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path, OLD)
    replace = os.replace

    def fails(source: Path, target: Path) -> None:
        if Path(target).name == "gate.csv":
            raise OSError(5, "Input/output error")
        replace(source, target)

    with monkeypatch.context() as patched:
        patched.setattr(os, "replace", fails)
        with pytest.raises(RunError, match=r"^--out: .* cannot be written \(Input/output error\)$"):
            write(tmp_path, NEW)
    assert not (tmp_path / "run.yaml").exists()  # nobody takes the mixture for results
    reopen(tmp_path)
    assert there(tmp_path) == NEW
    assert Records.read(tmp_path).every[0].run["who"] == "new"
