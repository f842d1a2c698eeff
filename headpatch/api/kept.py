"""Folders of a call: those that last as long as something needs them, and those that are given."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from shutil import rmtree
from tempfile import TemporaryDirectory, mkdtemp
from weakref import finalize

from headpatch.analyses.finished import Finished

_PREFIX = "headpatch-"


class Scratch:
    """A new folder that is deleted together with this object, or when Python ends.

    Attributes
    ----------
    path
        The folder.
    """

    def __init__(self) -> None:
        self.path = Path(mkdtemp(prefix=_PREFIX))
        finalize(self, rmtree, self.path, ignore_errors=True)


@contextmanager
def finished_in(keep: str | Path | None) -> Iterator[Finished]:
    """Give a place for what is finished; it is emptied if the block ends well.

    Parameters
    ----------
    keep
        A folder, from which an interrupted call goes on. None keeps nothing beyond the block.
    """
    if keep is None:
        with TemporaryDirectory(prefix=_PREFIX) as folder:
            yield Finished(Path(folder))
        return
    finished = Finished(Path(keep))
    yield finished
    finished.remove()
