"""How costs are written, and what is said before they are paid."""

from typing import TYPE_CHECKING

from headpatch.heads import Tower

if TYPE_CHECKING:
    from headpatch.core.session import Session


def passes(count: float) -> str:
    """Write a number of forward passes."""
    return f"{count:{',.1f' if count >= 1 else '.1g'}} forward passes"


def inexact(session: "Session", tower: Tower = "lm") -> str:
    """Say, where a tower's fast path is not exact, why and what is done instead; else nothing."""
    fast, path, where = session.fast, "widening", f"at positions {session.positions}"
    if tower == "vision":
        fast, path, where = session.fast_vision, "resumed", "in its vision tower"
    if fast is None or fast.exact:
        return ""
    return (
        f"the {path} pass is not exact for {session.vlm.name} {where} ({fast.why}): every row gets "
        "a forward pass of its own"
    )
