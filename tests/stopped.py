"""A run that is stopped in the midst of its rows, and the rows that it leaves."""

from pathlib import Path
from typing import Any, Final, TypeAlias

import pytest

from headpatch.core import effects as towers
from headpatch.core.store import Store
from headpatch.engine.interventions import Intervention
from headpatch.engine.patching import Outcome
from headpatch.questions.sweep import VERB
from headpatch.questions.sweep.finished_rows import outcomes_in

Rows: TypeAlias = dict[Intervention, Outcome]

PLACES: Final = {"intervene": 4, "patch_vision": -2}
"""Where, among its arguments, each function is given whom to tell of an outcome."""


def stop_after(
    patch: pytest.MonkeyPatch,
    name: str,
    count: int,
    error: BaseException,
    told: list[Outcome] | None = None,
) -> None:
    """Let a function of `headpatch.core.effects` raise as soon as so many outcomes are told.

    They are counted over all of its calls, and added to `told`.
    """
    real, left = getattr(towers, name), count

    def stopping(*arguments: Any, **options: Any) -> list[Outcome]:
        words = list(arguments)
        on_outcome = words[PLACES[name]]

        def counted(outcome: Outcome) -> None:
            nonlocal left
            on_outcome(outcome)
            if told is not None:
                told.append(outcome)
            left -= 1
            if left == 0:
                raise error

        words[PLACES[name]] = counted
        found: list[Outcome] = real(*words, **options)
        return found

    patch.setattr(towers, name, stopping)


def rows_left(out: Path) -> Rows:
    """Return the finished rows of the only pair of a sweep that was stopped."""
    (file,) = (out / VERB.kept_in).glob("*.unit")
    saved = Store(out / VERB.kept_in).get(file.stem)
    assert saved is not None
    return {one.intervention: one for one in outcomes_in(saved)}


def written(rows: Rows) -> dict[tuple[str, ...], str]:
    """Return effects as effects.csv has them, by heads, kind and direction."""
    return {
        (str(one.heads), one.kind, one.direction): f"{row.effect:.7g}" for one, row in rows.items()
    }
