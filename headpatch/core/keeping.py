"""Folders of a call: those that last as long as something needs them, and those that are given."""

import warnings
from collections.abc import Collection, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from weakref import finalize

from headpatch.core.output import scratch_folder, taken
from headpatch.core.store import Store
from headpatch.text import user_path


class Scratch:
    """A new folder that is deleted together with this object, or when Python ends."""

    def __init__(self) -> None:
        held = ExitStack()
        self.path = held.enter_context(scratch_folder())
        finalize(self, held.close)


@contextmanager
def store_in(
    keep: str | Path | None, what: str, run: str, keys: Collection[str] | None = None
) -> Iterator[Store]:
    """Give a place for what is finished; it is emptied if the block ends well.

    `keep` is a folder from which an interrupted call goes on; None keeps nothing beyond the block.
    `what` is counted, for messages: pairs, rows. `run` and `keys` are as in `Store.open`.
    """
    if keep is None:
        with scratch_folder() as folder:
            yield Store(folder, what)
        return
    place = user_path(keep, "keep")
    with taken(place, "call"):
        store = Store(place, what, "keep")
        store.open(True, run, keys)
        if store.unfit:
            warnings.warn(store.unfit_words, stacklevel=4)
        yield store
        store.remove()
    with suppress(OSError):  # something else is in it
        place.rmdir()
