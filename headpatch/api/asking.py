"""How the arguments of a call become the study of a session."""

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any, TypeAlias

from headpatch.analyses.session import Session
from headpatch.heads import Head

Heads: TypeAlias = str | Head | Iterable[Head]
"""``24.17,23.20`` or ``24.0-24.31`` or ``layer:24`` or ``top:5`` (of the attention ranking), a
`Head`, or several."""


def asked(
    session: Session,
    section: str,
    options: Mapping[str, Any],
    more: Mapping[str, Any] | None = None,
) -> Session:
    """Return the session with options of the study's section overridden."""
    flags = {f"{section}.{name}": value for name, value in options.items()} | dict(more or {})
    if not any(value is not None for value in flags.values()):
        return session
    return replace(session, study=session.study.override(flags))


def named(heads: Heads | None) -> dict[str, str]:
    """Write heads as the study does."""
    if heads is None:
        return {}
    if isinstance(heads, str | Head):
        return {"heads": str(heads)}
    return {"heads": ",".join(map(str, heads))}
