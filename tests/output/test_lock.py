"""A folder belongs to one run at a time, for as long as its process lives."""

import errno
import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from headpatch.core.output import lock
from headpatch.core.output.lock import LOCK, locked
from headpatch.core.output.staging import taken
from headpatch.errors import InputError
from tests.command import contents
from tests.refusals import refusal


@contextmanager
def child(work: Callable[[], None]) -> Iterator[int]:
    """Fork; give the child's number once its work is done; it then waits to be killed."""
    ready, told = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            work()
            os.write(told, b"x")
            signal.pause()
        finally:
            os._exit(1)
    os.close(told)
    try:
        assert os.read(ready, 1) == b"x"
        yield pid
    finally:
        os.close(ready)
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


def hold(folder: Path) -> Callable[[], None]:
    def work() -> None:
        held = locked(folder, "sweep")
        held.__enter__()
        globals()["_kept"] = held  # or it would be left

    return work


def take(folder: Path) -> None:
    with taken(folder, "rank"):
        pass


@pytest.mark.parametrize("locks", [True, False], ids=["locks", "no locks"])
def test_the_second_is_refused_until_the_first_is_dead(
    tmp_path: Path, locks: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a file system without locks, the name in the file and the process behind it decide."""
    if not locks:
        monkeypatch.setattr(lock, "_system_lock", _no_locks)
    out = tmp_path / "out"
    with child(hold(out)) as pid:
        before = contents(tmp_path)
        line = refusal(take, out, of="--out")
        assert line.startswith(f"--out: {out} is held by headpatch sweep (process {pid} on ")
        assert ", since 20" in line
        assert ("delete" in line) is not locks
        assert contents(tmp_path) == before
    assert (out / LOCK).exists()  # it was killed
    take(out)
    assert not (out / LOCK).exists()


def _no_locks(_: int) -> None:
    raise OSError(errno.ENOLCK, "No locks available")


def test_a_name_of_another_machine_is_believed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lock, "_system_lock", _no_locks)
    with child(hold(tmp_path)):
        pass
    monkeypatch.setattr(lock.socket, "gethostname", lambda: "elsewhere")
    with pytest.raises(InputError, match=rf"If that run is over, delete {tmp_path}/{LOCK}"):
        take(tmp_path)


def test_a_forked_child_does_not_keep_it(tmp_path: Path) -> None:
    held = locked(tmp_path, "sweep")
    held.__enter__()
    with child(lambda: None):
        held.__exit__(None, None, None)
        with child(hold(tmp_path)):  # another process can take it
            pass


def test_a_forked_child_that_leaves_the_block_does_not_release_it(tmp_path: Path) -> None:
    held = locked(tmp_path, "sweep")
    held.__enter__()
    with child(lambda: held.__exit__(None, None, None) and None):
        assert (tmp_path / LOCK).exists()
    held.__exit__(None, None, None)


def test_blocks_nest_in_a_thread_and_not_across_threads(tmp_path: Path) -> None:
    said: list[str] = []

    def other() -> None:
        try:
            take(tmp_path)
        except InputError as error:
            said.append(str(error))

    with locked(tmp_path, "sweep") as first:
        with locked(tmp_path / "x" / "..", "sweep") as second:
            assert (first, second) == (True, False)
        assert (tmp_path / LOCK).exists()
        thread = threading.Thread(target=other)
        thread.start()
        thread.join()
    assert "is held by" in said[0]
    assert not (tmp_path / LOCK).exists()


@pytest.mark.parametrize("out", ["here", "new/and/deep"])
def test_a_folder_to_which_nothing_was_written_looks_so(tmp_path: Path, out: str) -> None:
    (tmp_path / "here").mkdir()
    before = contents(tmp_path)
    take(tmp_path / out)
    assert contents(tmp_path) == before
