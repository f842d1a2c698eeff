"""Folders that last as long as a call; those of killed processes are removed by the next call."""

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from headpatch.core.output.lock import Held, locked, owner_of
from headpatch.disk import reporting_failure

_PREFIX = "headpatch-scratch-"
_OWNER = "scratch"


@contextmanager
def scratch_folder() -> Iterator[Path]:
    """Give a new folder among the system's temporary ones; it is deleted when the block ends.

    Raises
    ------
    RunError
        If it cannot be made.
    """
    with ExitStack() as stack:
        with reporting_failure(Path(tempfile.gettempdir()), "TMPDIR"):
            _remove_orphans()
            folder = Path(tempfile.mkdtemp(prefix=_PREFIX))
            stack.callback(shutil.rmtree, folder, ignore_errors=True)
            stack.enter_context(locked(folder, _OWNER))
        yield folder


def _remove_orphans() -> None:
    """Remove what killed processes have left: folders that nobody holds any more."""
    for folder in Path(tempfile.gettempdir()).glob(f"{_PREFIX}*"):
        with suppress(OSError, Held):
            owner = owner_of(folder)
            if owner is not None and owner.verb == _OWNER:
                with locked(folder, _OWNER):
                    shutil.rmtree(folder)
