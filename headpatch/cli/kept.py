"""What a long verb says when it ends early: its finished rows are kept."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from headpatch.errors import HeadpatchError

if TYPE_CHECKING:
    from headpatch.journal import Journal


class _Interrupted(HeadpatchError):
    exit_code = 130


@contextmanager
def kept(journal: "Journal") -> Iterator[None]:
    """Say, if the run ends early, that what is finished is kept."""
    try:
        yield
    except KeyboardInterrupt:
        if journal.count == 0:
            raise
        raise _Interrupted(f"interrupted; {_words(journal)}") from None
    except Exception:
        if journal.count:
            print(f"headpatch: {_words(journal)}", file=sys.stderr)
        raise


def _words(journal: "Journal") -> str:
    return (
        f"{journal.count:,} finished rows are kept in {journal.path}: the same command with "
        "--resume goes on from there"
    )
