"""How costs are written, and what is said before they are paid."""

from typing import TYPE_CHECKING

from headpatch.heads import Tower

if TYPE_CHECKING:
    from headpatch.core.baseline_runs import Survey
    from headpatch.core.cost import Beside
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
    why = f"the {path} pass is not exact for {session.vlm.name} {where} ({fast.why})"
    return f"{why}: every row gets a forward pass of its own"


def in_all(rows: float, included: str, beside: "Beside", survey: "Survey | None") -> str:
    """Write the cost of rows (with what is `included`), of what comes besides, and the sum."""
    means, rechecks, again = beside.means, beside.rechecks, 0
    if survey is not None:  # the first pair's are done
        means *= 0 if survey.reference is not None else len(survey.entries) - 1
        rechecks *= len(survey.entries)
        again = 2 * sum(entry.name not in survey.held for entry in survey.entries[1:])
    parts = {
        "{:,} over reference pairs for their mean": means,
        "{:,} for pairs that memory does not hold open": again,
        "at most {:,} to check the noise floor in float32": rechecks,
    }
    more = ", ".join(words.format(count) for words, count in parts.items() if count)
    if not more:
        return passes(rows) + included
    return f"{passes(rows)}{included}, and {more}: {rows + sum(parts.values()):,.1f} in all"
