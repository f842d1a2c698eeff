"""Folders that last as long as a call."""

import os
import signal
import tempfile
from pathlib import Path

import pytest

from headpatch.core.output.lock import scratch_folder


@pytest.fixture(autouse=True)
def _temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))


def test_it_goes_with_the_block(tmp_path: Path) -> None:
    with scratch_folder() as folder:
        (folder / "picture.png").write_text("drawn")
        with scratch_folder() as second:
            assert folder.exists() and second != folder
    assert not list(tmp_path.iterdir())


def test_what_a_killed_process_left_goes_with_the_next_and_nothing_else(tmp_path: Path) -> None:
    for name in ("headpatch-scratch-mine", "headpatch-out"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "heads.csv").write_text("kept")
    pid = os.fork()
    if pid == 0:
        with scratch_folder() as folder:
            (folder / "picture.png").write_text("drawn")
            os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(pid, 0)
    assert len(list(tmp_path.iterdir())) == 3
    with scratch_folder() as folder:
        names = {one.name for one in tmp_path.iterdir()}
        assert names == {"headpatch-scratch-mine", "headpatch-out", folder.name}
