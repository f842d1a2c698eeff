"""A widening pass captured as a CUDA graph: launched as one, for pairs of one prompt length.

A walk is some thousand small kernels, and launching them one by one takes longer than running
them. Captured once, it is replayed for every further pair: the pair's prefill is copied into the
captured one's tensors. The recorded kernels read the model's weights where they are.

Capturing takes about three walks, so it pays from the third or so pair of one prompt length on,
and then saves a small part of what a pair costs: its two raised passes take several times as long
as a walk. `headpatch.engine.widen` therefore walks without it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import torch
from jaxtyping import Float, Int
from torch import Tensor

from headpatch.engine.memory import tensors_in
from headpatch.engine.prefill import Prefill
from headpatch.engine.widening import Chunk, walk
from headpatch.models.vlm import VLM

_WARM_UPS = 2  # passes before capture, so that libraries set up their workspaces outside of it


@runtime_checkable
class Replayable(Protocol):
    """What a `torch.cuda.CUDAGraph` is used for here."""

    def replay(self) -> None:
        """Run what was recorded."""
        ...


@dataclass(frozen=True, eq=False)
class GraphedWalk:
    """One chunk's walk, ready to be replayed."""

    graph: Replayable
    prefill: Prefill  # what the graph reads; `replay` overwrites its tensors
    source: Sequence[Tensor]  # likewise
    logits: Float[Tensor, "rows tokens"]  # what it writes, the untouched row first
    held: tuple[Any, ...] = ()  # what else it reads, lest its memory be given to something else

    def replay(
        self, prefill: Prefill | None = None, source: Sequence[Tensor] | None = None
    ) -> Float[Tensor, "rows tokens"]:
        """Walk again, over another prefill of the captured shape and its sources if given."""
        if prefill is not None:
            _copy(list(tensors_in(prefill)), list(tensors_in(self.prefill)))
        if source is not None:
            _copy(source, self.source)
        self.graph.replay()
        return self.logits


@torch.no_grad()
def capture(
    vlm: VLM,
    prefill: Prefill,
    chunk: Chunk,
    source: Sequence[Tensor],
    positions: Int[Tensor, " positions"] | None = None,
    tokens: Int[Tensor, " tokens"] | None = None,
    pool: Any = None,
) -> GraphedWalk:
    """Capture the walk of one chunk; see `headpatch.engine.widening.walk` for the parameters.

    `pool` is memory shared with other graphs (``graph.pool()`` of one) that are replayed one after
    the other, whose logits are read before the next replay. A RuntimeError says that the model's
    layers do something that cannot be captured (look at a value, say).
    """
    graph = torch.cuda.CUDAGraph()
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(_WARM_UPS):
            _once(vlm, prefill, chunk, source, positions, tokens)
    torch.cuda.current_stream().wait_stream(side)
    with torch.cuda.graph(graph, pool=pool):
        logits = _once(vlm, prefill, chunk, source, positions, tokens)
    return GraphedWalk(graph, prefill, source, logits, (chunk, positions, tokens))


def _once(vlm: VLM, prefill: Prefill, chunk: Chunk, *rest: Any) -> Tensor:
    ((_, logits),) = walk(vlm, prefill, [chunk], *rest)
    return logits


def _copy(new: Sequence[Tensor], old: Sequence[Tensor]) -> None:
    if [tensor.shape for tensor in new] != [tensor.shape for tensor in old]:
        raise ValueError("this prefill is not of the captured shape: capture the walk again")
    for source, place in zip(new, old, strict=True):
        place.copy_(source)
