"""A run that is stopped in the midst of its rows."""

from typing import Any, Final

import pytest

from headpatch.analyses import towers
from headpatch.engine.patching import Outcome

PLACES: Final = {"intervene": -2, "patch_vision": -2}
"""Where, among its arguments, each function is given whom to tell of an outcome."""


def stop_after(patch: pytest.MonkeyPatch, name: str, count: int, error: BaseException) -> None:
    """Let a function of `headpatch.analyses.towers` raise as soon as so many outcomes are told.

    They are counted over all of its calls.
    """
    real, left = getattr(towers, name), count

    def stopping(*arguments: Any) -> list[Outcome]:
        words = list(arguments)
        on_outcome = words[PLACES[name]]

        def counted(outcome: Outcome) -> None:
            nonlocal left
            on_outcome(outcome)
            left -= 1
            if left == 0:
                raise error

        words[PLACES[name]] = counted
        found: list[Outcome] = real(*words)
        return found

    patch.setattr(towers, name, stopping)
