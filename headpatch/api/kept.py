"""Folders of a call: those that last as long as something needs them, and those that are given."""

import warnings
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from shutil import rmtree
from tempfile import TemporaryDirectory, mkdtemp
from weakref import finalize

from headpatch.store import Store
from headpatch.text import user_path

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
def store_in(
    keep: str | Path | None, what: str, run: str, keys: Collection[str] | None = None
) -> Iterator[Store]:
    """Give a place for what is finished; it is emptied if the block ends well.

    Parameters
    ----------
    keep
        A folder, from which an interrupted call goes on. None keeps nothing beyond the block.
    what
        What is counted, for messages: pairs, rows.
    run, keys
        As `headpatch.store.Store.open` takes them.
    """
    if keep is None:
        with TemporaryDirectory(prefix=_PREFIX) as folder:
            yield Store(Path(folder), what)
        return
    store = Store(user_path(keep, "keep"), what, "keep")
    store.open(True, run, keys)
    if store.unfit:
        warnings.warn(store.unfit_words, stacklevel=4)
    yield store
    store.remove()
