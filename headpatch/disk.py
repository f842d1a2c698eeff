"""Files written whole, and one true line where the disk does not take them."""

import errno
import io
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from uuid import uuid4

from headpatch.errors import RunError

UNFINISHED = ".part"  # how the name of a file ends that is still being written
_NO_SPACE = (errno.ENOSPC, errno.EDQUOT)


def nearest_folder(path: Path) -> Path:
    """Return `path` if it exists, else its nearest parent that does."""
    place = path
    while not place.exists() and place != place.parent:
        place = place.parent
    return place


def reason(path: Path, error: OSError) -> str:
    """Say why `path` could not be written: the system's words, and the space left if that is it."""
    words = error.strerror or str(error)
    if error.errno in _NO_SPACE:
        with suppress(OSError):
            words += f"; {_size(shutil.disk_usage(nearest_folder(path)).free)} left"
    if error.errno == errno.EFBIG:
        words += "; see `ulimit -f`"
    return words


@contextmanager
def reporting_failure(path: Path, argument: str = "--out") -> Iterator[None]:
    """Turn what the system raises while `path`, named by a flag, is written into one line.

    It says the path, the reason and, on a full disk, the space left.
    """
    try:
        yield
    except OSError as error:
        line = f"{argument}: {path} cannot be written ({reason(path, error)})"
        raise RunError(line) from error


def tensor_bytes(content: Mapping[str, object]) -> bytes:
    """Return what ``torch.save`` writes of plain tensors, numbers and texts.

    torch, given a path, hides why a file cannot be written behind messages of its own
    (``unexpected pos 128 vs 0``); bytes go to disk through Python, which says it.
    """
    import torch

    stream = io.BytesIO()
    torch.save(dict(content), stream)
    return stream.getvalue()


def write_whole(path: Path, content: bytes, make: bool = True) -> None:
    """Write a file such that it is there as a whole or not at all, after a power cut as well.

    Its folder is made if it is not there, unless `make` is false.

    Safe with many writers on a shared file system: each writes a file of its own name, and the last
    to rename it wins. Where that fails with an `OSError`, nothing of it is left.
    """
    if make:
        path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{uuid4().hex}{UNFINISHED}")
    try:
        with temporary.open("wb") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(temporary, path)
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


def _size(count: int) -> str:
    """Return a number of bytes in words: ``1.5 MB``."""
    size, units = float(count), iter(("bytes", "kB", "MB", "GB", "TB"))
    unit = next(units)
    while size >= 1000 and unit != "TB":
        size, unit = size / 1000, next(units)
    return f"{count} bytes" if unit == "bytes" else f"{size:.1f} {unit}"
