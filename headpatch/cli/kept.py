"""What a long verb says of its store: what was found there, and what is kept when it ends early."""

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from headpatch.cli.show import warn
from headpatch.errors import HeadpatchError

if TYPE_CHECKING:
    from headpatch.core.store import Store


class _Interrupted(HeadpatchError):
    exit_code = 130


def opened(
    folder: Path, what: str, resume: bool | None, run: str, keys: Collection[str] | None = None
) -> "Store":
    """Open the store in a folder, and say what an earlier run has left there.

    Parameters
    ----------
    what
        What is counted: rows, pairs.
    resume, run, keys
        As `headpatch.core.store.Store.open` takes them.
    """
    from headpatch.core.store import Store

    store = Store(folder, what)
    store.open(resume, run, keys)
    if store.unfit:
        warn(store.unfit_words)
    if store.count and keys is None:  # who knows the keys says how much they are of all
        warn(f"{store.count:,} finished {what} were found; going on")
    return store


@contextmanager
def kept(store: "Store") -> Iterator[None]:
    """Say, if the run ends early, that what is finished is kept."""

    def words() -> str:
        return (
            f"{store.count:,} finished {store.what} are kept in {store.folder}: the same command "
            "with --resume goes on from there"
        )

    try:
        yield
    except KeyboardInterrupt:
        if not store.count:
            raise
        raise _Interrupted(f"interrupted; {words()}") from None
    except Exception:
        if store.count:
            warn(words())
        raise
