"""A file that cannot be written is one line: which, why, and how much space is left."""

import errno
import os
import resource
from pathlib import Path

import pytest
import torch

from headpatch.disk import reporting_failure, tensor_bytes, write_whole
from headpatch.errors import RunError


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (errno.ENOSPC, r"No space left on device; [\d.]+ (bytes|[kMGT]B) left\)$"),
        (errno.EDQUOT, r"Disk quota exceeded; [\d.]+ (bytes|[kMGT]B) left\)$"),
        (errno.EFBIG, r"File too large; see `ulimit -f`\)$"),
        (errno.EROFS, r"Read-only file system\)$"),
    ],
)
def test_the_line_names_path_reason_and_space(tmp_path: Path, number: int, words: str) -> None:
    path = tmp_path / "not" / "there yet"
    with (
        pytest.raises(RunError, match=f"^--out: .*there yet cannot be written .{words}"),
        reporting_failure(path),
    ):
        raise OSError(number, os.strerror(number))


def test_other_errors_pass(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"^other$"), reporting_failure(tmp_path):
        raise ValueError("other")


def test_a_file_is_there_whole_or_not_at_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "new" / "file"
    write_whole(path, b"first")
    with monkeypatch.context() as patched:
        patched.setattr("os.fsync", lambda _: (_ for _ in ()).throw(OSError(errno.ENOSPC, "full")))
        with pytest.raises(OSError, match="full"):
            write_whole(path, b"second")
    assert path.read_bytes() == b"first"
    assert [one.name for one in path.parent.iterdir()] == ["file"]


def test_tensors_too_large_for_the_limit_are_told_in_the_systems_words(tmp_path: Path) -> None:
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
            write_whole(tmp_path / "a.pt", tensor_bytes({"a": torch.zeros(9999)}))
        except OSError as error:
            os.write(writing, str(error.strerror).encode())
        finally:
            os._exit(0)
    os.waitpid(pid, 0)
    assert os.read(reading, 99) == b"File too large"
    assert not list(tmp_path.iterdir())
