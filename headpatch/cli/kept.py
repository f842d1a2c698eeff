"""What a long verb says when it ends early: what is finished is kept."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol, runtime_checkable

from headpatch.cli.show import warn
from headpatch.errors import HeadpatchError


@runtime_checkable
class Counted(Protocol):
    """Something on disk that grows while a run goes on."""

    @property
    def count(self) -> int:
        """How much is finished."""


class _Interrupted(HeadpatchError):
    exit_code = 130


@contextmanager
def kept(finished: Counted, what: str, place: Path) -> Iterator[None]:
    """Say, if the run ends early, that what is finished is kept.

    Parameters
    ----------
    what
        What is counted: rows, pairs.
    place
        Where it lies.
    """

    def words() -> str:
        return (
            f"{finished.count:,} finished {what} are kept in {place}: the same command with "
            "--resume goes on from there"
        )

    try:
        yield
    except KeyboardInterrupt:
        if not finished.count:
            raise
        raise _Interrupted(f"interrupted; {words()}") from None
    except Exception:
        if finished.count:
            warn(words())
        raise
