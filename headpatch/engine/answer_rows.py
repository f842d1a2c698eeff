"""The answer position's attention rows: one small product a layer, the rest for all at once.

A forward pass is bound by how fast its kernels can be launched, so recording may add few of them.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn

from headpatch.engine.attention import is_causal, to_rows
from headpatch.engine.precision import batched_product


class Scores(NamedTuple):
    """One layer's, of the answer position to every key.

    Attributes
    ----------
    raw
        Neither scaled nor masked: ``[key-value heads, heads of one, keys]`` of each run, float32.
    scaling, softcap
        As transformers passes them.
    mask
        As transformers passes it; None where it is causal or nothing is masked.
    position, seen
        The answer's place among the queries, and the number of keys that it sees.
    """

    raw: list[Tensor]
    scaling: float
    softcap: float | None
    mask: Tensor | None
    position: int
    seen: int

    @property
    def way(self) -> tuple[Any, ...]:
        """What layers that can be finished together have in common."""
        raw = self.raw[0]
        return raw.shape, raw.device, self.scaling, self.softcap, id(self.mask), self.seen

    @property
    def row_mask(self) -> Tensor | None:
        """The answer's row of the mask."""
        keys = self.raw[0].shape[-1]
        if self.mask is not None:
            return self.mask[..., self.position, :keys]
        if self.seen < keys:
            return torch.arange(keys, device=self.raw[0].device) < self.seen
        return None


def scores(
    module: nn.Module,
    query: Float[Tensor, "batch heads queries head_dim"],
    key: Float[Tensor, "batch kv_heads keys head_dim"],
    mask: Tensor | None,
    position: int,
    options: Mapping[str, Any],
) -> Scores:
    """Multiply the query at `position` with every key."""
    batch, _, length, width = query.shape
    kv_heads, keys = key.shape[1:3]
    picked, turned = query.select(2, position).view(batch, kv_heads, -1, width), key.transpose(2, 3)
    scaling, causal = options.get("scaling"), mask is None and is_causal(module, length, options)
    return Scores(
        [batched_product(picked[run], turned[run]) for run in range(batch)],
        width**-0.5 if scaling is None else scaling,
        options.get("softcap"),
        mask,
        position,
        position + 1 + keys - length if causal else keys,
    )


def rows(layers: Sequence[Scores]) -> list[Float[Tensor, "batch heads keys"]]:
    """Return the rows of each layer, float32; zero throughout where a query sees no key."""
    found: dict[int, Tensor] = {}
    ways: dict[tuple[Any, ...], list[int]] = {}
    for index, one in enumerate(layers):
        ways.setdefault(one.way, []).append(index)
    for members in ways.values():
        first = layers[members[0]]
        raw = torch.stack([one for index in members for one in layers[index].raw])
        raw = raw.flatten(1, 2).unflatten(0, (len(members), -1)) * first.scaling
        found.update(zip(members, to_rows(raw, first.row_mask, first.softcap), strict=True))
    return [found[index] for index in range(len(layers))]
