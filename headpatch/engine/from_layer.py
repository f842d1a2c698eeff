"""Passes that start at the layer that is changed, from what the untouched run left there.

Cutting edges and swapping the stream have a plain path of whole passes, and this one.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import Module

from headpatch.engine.attention import Mask
from headpatch.engine.patching import Outcome
from headpatch.engine.prefill import Prefill
from headpatch.engine.shared_prefix import attend_own
from headpatch.errors import HeadpatchError


def refusal(prefills: Sequence[Prefill], start: int, what: str) -> str:
    """Say why a pass cannot be resumed from position `start` on for `what`; nothing if it can."""
    if not prefills or prefills[0].start > start:
        return "the baseline keeps too short a suffix"
    if prefills[0].points is not None:
        return f"over low-precision weights every {what} is a whole pass"
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
