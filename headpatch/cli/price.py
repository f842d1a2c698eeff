"""What verbs say before they run: what, how, and at what price."""

from typing import TYPE_CHECKING

from headpatch.cli.show import warn
from headpatch.core.price import inexact
from headpatch.heads import Tower

if TYPE_CHECKING:
    from headpatch.core.session import Session


def announce_plain(session: "Session", tower: Tower = "lm") -> None:
    """Say on stderr, where a tower's fast path is not exact, why and what is done instead."""
    if words := inexact(session, tower):
        warn(words)
