"""Changes of one run at a time, in batches that each hold the run's untouched row.

What cutting edges and swapping the stream have in common: a *plain* path of whole passes, and a
*resumed* one that starts from what the untouched run left behind.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol, TypeVar, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor, nn

from headpatch.engine.memory import halving, split
from headpatch.engine.patching import WITH, WITHOUT, Baseline, OnProgress
from headpatch.engine.prefill import Prefill
from headpatch.engine.shared_prefix import attend_own
from headpatch.errors import HeadpatchError

PLAIN_ROWS: Final = 7
"""Changes that share a plain pass, beside its untouched row."""


@runtime_checkable
class OfOneRun(Protocol):
    """A change of one run of the pair."""

    @property
    def run(self) -> int:
        """`WITH` or `WITHOUT`."""


Change = TypeVar("Change", bound=OfOneRun)


@dataclass(frozen=True)
class Shift:
    """What one change did.

    Attributes
    ----------
    ld
        LD of the changed run: the untouched run's LD plus `effect`.
    effect
        Measured inside one batch, against its own untouched row.
    token, token_before
        The first generated token with the change, and in the untouched row.
    """

    ld: float
    effect: float
    token: int
    token_before: int


def in_batches(
    base: Baseline,
    changes: Sequence[Change],
    size: int,
    passes: Callable[[int, list[Change]], Float[Tensor, "rows vocabulary"]],
    on_progress: OnProgress | None,
    order: Callable[[Change], Any],
) -> list[Shift]:
    """Run changes in batches of one run, each with its own untouched row.

    Parameters
    ----------
    size
        Changes in a batch. Out of memory halves it and goes on.
    passes
        Gives the answer logits of a run's untouched row and of some changes of it.
    order
        Changes go in its order, so that those of one layer are together; where they leave room,
        the next layer's join them.

    Raises
    ------
    InputError
        If not even two rows fit.
    """
    answers = base.prompt.answers
    shifts: dict[int, Shift] = {}
    for run, untouched in ((WITH, base.ld_with), (WITHOUT, base.ld_without)):
        members = [index for index, one in enumerate(changes) if one.run == run]
        members.sort(key=lambda index: order(changes[index]))

        def logits_of(chunk: list[int], run: int = run) -> Tensor:
            return passes(run, [changes[index] for index in chunk]).cpu()

        for chunk, logits in halving(split(members, size), logits_of, base.trace.logits.device):
            ld = (logits[:, answers.yes] - logits[:, answers.no]).tolist()
            tokens = logits.argmax(-1).tolist()
            for row, index in enumerate(chunk, start=1):
                effect = ld[row] - ld[0]
                shifts[index] = Shift(untouched + effect, effect, tokens[row], tokens[0])
            if on_progress:
                on_progress(len(shifts), len(changes))
    return [shifts[index] for index in range(len(changes))]


def refusal(prefills: Sequence[Prefill], start: int, what: str) -> str:
    """Say why a pass cannot be resumed from position `start` on; nothing if it can.

    Parameters
    ----------
    what
        Kind of change, for the message.
    """
    if not prefills or prefills[0].start > start:
        return "the baseline keeps too short a suffix"
    if prefills[0].points is not None:
        return f"over low-precision weights every {what} is a whole pass"
    return prefills[0].refused


def apart(fast: Callable[[], list[Shift]], slow: Callable[[], list[Shift]]) -> float:
    """Return how far two paths lie apart, in logits; infinite where `fast` cannot run."""
    try:
        found = fast()
    except (torch.OutOfMemoryError, HeadpatchError):
        raise  # whole passes take more memory, not less
    except (RuntimeError, TypeError, ValueError, IndexError, AttributeError):
        return float("inf")  # its layers cannot be walked like this
    return max(abs(a.effect - b.effect) for a, b in zip(found, slow(), strict=True))


@dataclass(eq=False)
class ResumedSite:
    """The attention of one layer while passes are resumed."""

    prefill: Prefill
    layer: int

    def __call__(
        self,
        module: nn.Module,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        mask: Tensor | None,
        **options: Any,
    ) -> Tensor:
        """Attend with what the untouched run left behind."""
        state = self.prefill.layers[self.layer]
        return attend_own(module, query, key, value, state, options)
