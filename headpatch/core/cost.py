"""What changes of heads cost, in forward passes of the prompt, as far as it can be told before."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from headpatch.core.session import Session
from headpatch.engine import vision, widen
from headpatch.engine.interventions import Intervention
from headpatch.engine.patching import PLAIN_BATCH
from headpatch.engine.widen import rows_that_fit
from headpatch.heads import Tower
from headpatch.kinds import averages


@dataclass(frozen=True)
class Beside:
    """Forward passes that a run takes besides those of its rows."""

    means: int = 0  # over reference pairs, for kind ``mean``
    rechecks: int = 0  # at most: rows that are run again in float32 (`noise_floor.floor_of`)

    @classmethod
    def of(cls, session: Session, kinds: Sequence[str], reference: int, widened: bool) -> "Beside":
        """Say what a run takes; `widened`: language-model heads are among those that change."""
        low = widened and session.widens and session.vlm.dtype != torch.float32
        each = session.prompt.runs  # untouched rows, and runs of a pair
        return cls(each * reference * averages(kinds), (PLAIN_BATCH - 1 + each) * low)

    @property
    def total(self) -> int:
        """All of them."""
        return self.means + self.rechecks


def cost(
    session: Session, asked: Sequence[Intervention], size: int | None = None, tower: Tower = "lm"
) -> float:
    """Return what rows of one tower cost, their untouched rows included.

    For the vision tower each of `asked` holds one of its heads. `size` is how many rows are run
    together; None leaves it to the path that runs them.
    """
    each = size or PLAIN_BATCH - 1
    if not asked:
        return 0.0
    if tower == "vision":
        return vision.equivalents(session.vlm, session.base, asked, each + 1, session.resumes)
    total = 0.0
    for run, prefill in enumerate(session.base.trace.prefills):
        sets = [one.heads for one in asked if one.run == run]
        if session.widens:
            layers = session.vlm.lm.grid.layers
            total += widen.passes(
                prefill, sets, layers, size or rows_that_fit(session.vlm, prefill)
            )
        else:
            total += len(sets) + -(-len(sets) // each)
    return total
