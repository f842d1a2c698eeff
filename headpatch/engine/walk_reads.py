"""What a walk reads, beside the model: of a prefill, in one piece of memory.

Some six hundred tensors: to name and copy them one by one before each launch of a recorded walk
takes Python some 9 ms.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from weakref import WeakKeyDictionary

from jaxtyping import Int
from torch import Tensor

from headpatch.engine.prefill import Prefill
from headpatch.engine.trees import Packed, Tree, changed, packed
from headpatch.models.vlm import VLM


@dataclass(frozen=True, eq=False)
class Given:
    """What a walk reads, beside the model; see `walk`."""

    prefill: Prefill
    source: Sequence[Tensor]
    positions: Int[Tensor, " positions"] | None
    tokens: Int[Tensor, " tokens"] | None


def _read(vlm: VLM, prefill: Prefill) -> Prefill:
    """Return a prefill without what rows that are deviations do not read."""
    assert prefill.points is not None
    layers = tuple(
        one if one.known is None else replace(one, key=one.key[:, :, :0], value=one.value[:, :, :0])
        for one in prefill.layers
    )
    points = prefill.points.needed(vlm.final_norm, vlm.unembedding)
    return replace(prefill, layers=layers, points=points)


_pieces: "WeakKeyDictionary[Prefill, Packed]" = WeakKeyDictionary()
"""Lean prefills, which are in one piece of memory."""


def in_one_piece(vlm: VLM, prefill: Prefill) -> Tree:
    """Return what walks read of a prefill, in one piece of memory; as it is where it cannot be."""
    if (known := _pieces.get(prefill)) is not None:
        return known
    read = _read(vlm, prefill)
    made = packed(read)
    return read if made is None else made


def lean(vlm: VLM, prefill: Prefill) -> Prefill:
    """Return what walks read of a prefill, in memory that holds nothing else.

    Of the keys and values before the suffix, those in low precision alone.
    """
    read = _read(vlm, prefill)
    made = packed(read)
    read = changed(read, Tensor.clone) if made is None else made.tree()
    layers = tuple(
        one
        if one.known is None
        else replace(one, key=one.known.key[None], value=one.known.value[None])
        for one in read.layers
    )
    found: Prefill = replace(read, layers=layers)
    if made is not None:
        _pieces[found] = made
    return found
