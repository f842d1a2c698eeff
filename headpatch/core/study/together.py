"""Options of one verb that may not be given together, on the command line or in a call."""

from collections.abc import Mapping
from typing import Any

from headpatch.errors import InputError

_EITHER = (
    ("heads", "top", "named heads, or rankings"),
    ("heads", "by", "named heads, or rankings"),
    ("answer", "forced", "one of them"),
)


def refuse_both(given: Mapping[str, Any]) -> None:
    """Refuse options of which each makes the other void; None is not given."""
    for first, second, expected in _EITHER:
        if given.get(first) is not None and given.get(second) is not None:
            raise InputError(f"--{first}, --{second}", "both of them", expected)


def refuse_void_scope(names_vision: bool, heads: str, scope: str | None) -> None:
    """Refuse a scope of the vision tower's tokens where no vision head is changed."""
    if scope is not None and not names_vision:
        found, expected = f"no vision head in --heads {heads}", "a vision head there, such as v8.3"
        raise InputError("--vision-positions", found, expected)
