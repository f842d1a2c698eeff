"""How the arguments of a call become the study of what it is asked of."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, TypeVar

from headpatch.core.dataset import Pairs
from headpatch.core.session import Session
from headpatch.core.study.together import refuse_both

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
