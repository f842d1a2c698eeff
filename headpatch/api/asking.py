"""How the arguments of a call become the study of what it is asked of."""

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any, TypeVar

from headpatch.core.dataset import Pairs
from headpatch.core.head_selection import Heads, named
from headpatch.core.session import Session
from headpatch.core.study.together import refuse_both
from headpatch.heads import HeadSet

__all__ = ["Heads", "asked", "asked_to_sweep", "named", "sets_of"]
Opened = TypeVar("Opened", Session, Pairs)


def asked(
    opened: Opened,
    section: str,
    options: Mapping[str, Any],
    more: Mapping[str, Any] | None = None,
) -> Opened:
    """Return a session, or pairs, with options of the study's section overridden."""
    refuse_both(options)
    flags = {f"{section}.{name}": value for name, value in options.items()} | dict(more or {})
    if not any(value is not None for value in flags.values()):
        return opened
    return replace(opened, study=opened.study.override(flags))


def asked_to_sweep(opened: Opened, options: Mapping[str, Any]) -> Opened:
    """Return them with what `headpatch.sweep` was asked."""
    own = dict(options)
    tower = own.get("tower", opened.study.sweep.tower)
    at = own.pop("positions", None) if tower == "vision" else None
    return asked(opened, "sweep", own, {"vision.positions": at})


def sets_of(sets: Iterable[HeadSet | str] | None) -> list[HeadSet] | None:
    """Read sets of heads such as ``20.18+21.14``."""
    if sets is None:
        return None
    return [HeadSet.parse(one) if isinstance(one, str) else one for one in sets]
