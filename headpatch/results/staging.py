"""Files appear in a folder together, whole or not at all."""

import errno
import os
import shutil
import tempfile
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path

from headpatch.errors import InputError, RunError

_STAGE = ".headpatch-"


def check_folder(out: Path) -> None:
    """Refuse, before any model loads, an output folder that cannot be written.

    Raises
    ------
    InputError
        If `out` is a file, or neither it nor its nearest existing parent can be written.
    """
    place = out
    try:
        place = _nearest(out)
        with tempfile.TemporaryFile(dir=place):
            pass
    except OSError as error:
        reason = "no file can be made there" if error.errno == errno.ENOENT else error.strerror
        raise InputError(
            "--out",
            f"{out} cannot be written ({place}: {reason})",
            "a folder to write in",
            "Choose another one.",
        ) from None


def _nearest(out: Path) -> Path:
    """Return `out` if it exists, else its nearest parent that does."""
    place = out
    while not place.exists() and place != place.parent:
        place = place.parent
    return place


@contextmanager
def staged(out: Path, may: Collection[str] = ()) -> Iterator[Path]:
    """Give a folder to write in; its files move to `out` together once all are written.

    A run that fails or is killed leaves `out` as it was.

    Parameters
    ----------
    may
        Files that only some runs of the same verb write: what an earlier run left of them, and this
        one does not write, is deleted, so that nobody takes it for a result of this one.
    """
    try:  # beside the place where the files will lie: a rename cannot cross file systems
        stage = Path(tempfile.mkdtemp(prefix=_STAGE, dir=_nearest(out)))
    except OSError as error:
        raise RunError(f"--out: {out} cannot be written ({error})") from error
    try:
        yield stage
        out.mkdir(parents=True, exist_ok=True)
        for file in stage.iterdir():
            if (out / file.name).is_dir():
                raise RunError(f"--out: {out / file.name} is a folder; move it or change --out")
        written = set()
        for file in sorted(stage.iterdir()):
            os.replace(file, out / file.name)
            written.add(file.name)
        for name in set(may) - written:
            if (out / name).is_file():
                (out / name).unlink()
    except OSError as error:
        raise RunError(f"--out: {out} cannot be written ({error})") from error
    finally:
        shutil.rmtree(stage, ignore_errors=True)
