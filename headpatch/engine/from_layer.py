"""Changes that have two paths: whole passes, and passes that start at the layer that is changed.

Those start from what the untouched run left there. Cutting edges and swapping the stream have both.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import Module

from headpatch.engine.attention import Mask, tapped
from headpatch.engine.patching import (
    PLAIN_BATCH,
    WITH,
    Baseline,
    Change,
    OnProgress,
    Outcome,
    batches_by_run,
    in_batches,
    shifts_of,
)
from headpatch.engine.precision import raised
from headpatch.engine.prefill import Prefill
from headpatch.engine.shared_prefix import attend_own
from headpatch.engine.widen import rows_that_fit
from headpatch.engine.widening import unembed
from headpatch.errors import HeadpatchError
from headpatch.models.vlm import VLM


def run_in_order(
    vlm: VLM,
    base: Baseline,
    changes: Sequence[Change],
    order: Callable[[Change], Any],
    logits: Callable[[list[Change]], Tensor],
    refusal: Callable[[Change], str] | None,
    on_progress: OnProgress | None,
) -> list[Outcome[Change]]:
    """Run changes, those of one layer together; `logits` gives those of a batch of one run.

    With a `refusal` passes are resumed: a ValueError if that refuses a change.
    """
    size = PLAIN_BATCH - 1
    if refusal is not None:
        if reason := next(filter(None, map(refusal, changes)), ""):
            raise ValueError(reason)
        size = rows_that_fit(vlm, base.trace.prefills[WITH])

    def passes(rows: list[Change]) -> list[Outcome[Change]]:
        return shifts_of(base, rows, logits(rows))

    return in_batches(base, changes, batches_by_run(changes, size, order), passes, on_progress)


def refusal(prefills: Sequence[Prefill], start: int) -> str:
    """Say why a pass cannot be resumed from position `start` on; nothing if it can."""
    if not prefills or prefills[0].start > start:
        return "the baseline keeps too short a suffix"
    return prefills[0].refused


def apart(fast: Callable[[], list[Outcome[Any]]], slow: Callable[[], list[Outcome[Any]]]) -> float:
    """Return how far two paths lie apart, in logits; infinite where `fast` cannot run."""
    try:
        found = fast()
    except (torch.OutOfMemoryError, HeadpatchError):
        raise  # whole passes take more memory, not less
    except (RuntimeError, TypeError, ValueError, IndexError, AttributeError):
        return float("inf")  # its layers cannot be walked like this
    return max(abs(a.effect - b.effect) for a, b in zip(found, slow(), strict=True))


@contextmanager
def resuming(vlm: VLM, sites: Sequence["ResumedSite"]) -> Iterator[None]:
    """Let the decoder's layers go on, in float32, from what the untouched run left there."""
    # Over low-precision weights rows are not deviations from that run, as a widening pass's are:
    # what is swapped or cut is no small change. They are float32, as that run itself was.
    taps = dict(zip(vlm.lm.attentions, sites, strict=True))
    with raised(vlm), tapped(vlm.parts, taps):
        yield


def answer_of(
    vlm: VLM, hidden: Float[Tensor, "rows suffix width"], prefill: Prefill
) -> Float[Tensor, "rows vocabulary"]:
    """Return the answer logits of rows that have left the last layer, the untouched one first."""
    return unembed(vlm, hidden[:, -1], replace(prefill, points=None))


@dataclass(eq=False)
class ResumedSite:
    """The attention of one layer while passes are resumed."""

    prefill: Prefill
    layer: int

    def __call__(
        self, module: Module, query: Tensor, key: Tensor, value: Tensor, mask: Mask, **options: Any
    ) -> Tensor:
        """Attend with what the untouched run left behind."""
        state = self.prefill.layers[self.layer]
        return attend_own(module, query, key, value, state, options)
