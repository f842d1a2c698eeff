"""The answer position's attention rows: one small product a layer, the rest for all at once.

A forward pass is bound by how fast its kernels can be launched, so a layer adds a single one: its
answer's query times its keys, straight into a buffer that holds all layers.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn

from headpatch.engine.attention import Tap, is_causal, plain_attention, to_rows
from headpatch.engine.precision import batched_product
from headpatch.errors import RunError


class Way(NamedTuple):
    """What layers have in common whose rows can be finished together.

    Attributes
    ----------
    keys
        Shape of the keys: runs, key-value heads, keys, head_dim.
    heads
        Number of query heads.
    seen
        Number of keys that the answer sees where no mask says so.
    mask
        `id` of the mask that transformers passes.
    """

    keys: torch.Size
    heads: int
    device: torch.device
    scaling: float
    softcap: float | None
    seen: int
    mask: int


@dataclass(eq=False)
class _Group:
    """The scores of layers of one way.

    Attributes
    ----------
    scores
        ``[runs, layers, kv_heads, heads of one, keys]``, float32: neither scaled nor masked, filled
        as layers run.
    slots
        Its parts, a list for each run.
    row_mask
        The answer's row of the mask; None where it sees every key.
    layers
        Which layers have come, in the order of the slots.
    """

    scores: Tensor
    slots: list[list[Tensor]]
    row_mask: Tensor | None
    layers: list[int] = field(default_factory=list)


class AnswerRows:
    """Collects one pass's rows.

    Parameters
    ----------
    position
        The answer's, among the pass's tokens.
    layers
        How many will be recorded, one or more.
    """

    def __init__(self, position: int, layers: int) -> None:
        self.position, self.layers = position, layers
        self._groups: dict[Way, _Group] = {}
        self._masks: list[Tensor] = []  # held, so that an id stays one mask's

    def tap(self, layer: int) -> Tap:
        """Return a tap that does nothing but record this layer."""

        def record(
            module: nn.Module,
            query: Tensor,
            key: Tensor,
            value: Tensor,
            mask: Tensor | None,
            **options: Any,
        ) -> Tensor:
            self.record(layer, module, query, key, mask, options)
            return plain_attention(module, query, key, value, mask, **options)

        return record

    def record(
        self,
        layer: int,
        module: nn.Module,
        query: Float[Tensor, "batch heads queries head_dim"],
        key: Float[Tensor, "batch kv_heads keys head_dim"],
        mask: Tensor | None,
        options: Mapping[str, Any],
    ) -> None:
        """Multiply the answer's query with every key of this layer."""
        shape, (_, heads, length, _) = key.shape, query.shape
        _, kv_heads, keys, width = shape
        causal = mask is None and is_causal(module, length, options)
        seen = self.position + 1 + keys - length if causal else keys
        scaling = options.get("scaling")
        scaling = width**-0.5 if scaling is None else scaling
        way = Way(shape, heads, key.device, scaling, options.get("softcap"), seen, id(mask))
        group = self._groups.get(way) or self._new(way, mask)
        slot, grouped = len(group.layers), heads // kv_heads
        group.layers.append(layer)
        # Views of one call each: on the host, indexing costs as much as the product.
        of_run, of_head, of_query, within = query.stride()
        run, head, token, along = key.stride()
        at, first = query.storage_offset() + self.position * of_query, key.storage_offset()
        for index, slots in enumerate(group.slots):
            answer = query.as_strided(
                (kv_heads, grouped, width),
                (grouped * of_head, of_head, within),
                at + index * of_run,
            )
            turned = key.as_strided(
                (kv_heads, width, keys), (head, along, token), first + index * run
            )
            batched_product(answer, turned, slots[slot])

    def _new(self, way: Way, mask: Tensor | None) -> _Group:
        runs, kv_heads, keys, _ = way.keys
        scores = torch.empty(
            runs, self.layers, kv_heads, way.heads // kv_heads, keys, device=way.device
        )
        row_mask = None
        if mask is not None:
            self._masks.append(mask)
            row = mask[..., self.position, :keys]
            row_mask = row.unsqueeze(1) if row.ndim == 3 else row  # over a run's layers
        elif way.seen < keys:
            row_mask = torch.arange(keys, device=way.device) < way.seen
        slots = [list(run.unbind()) for run in scores.unbind()]
        group = self._groups[way] = _Group(scores, slots, row_mask)
        return group

    def stacked(self, tokens: int) -> Float[Tensor, "batch layers heads tokens"]:
        """Return the rows of all layers, in their order, on the first one's device.

        A query that sees no key has a row of zeros; a layer that attends to something else than
        `tokens` tokens has NaN.

        Raises
        ------
        RunError
            If a layer has not run.
        """
        if sum(len(group.layers) for group in self._groups.values()) != self.layers:
            raise RunError("an attention module never ran through headpatch's attention function")
        found: Tensor | None = None
        for way, group in self._groups.items():
            scores = group.scores[:, : len(group.layers)].flatten(2, 3)
            rows = to_rows(scores.mul_(way.scaling), group.row_mask, way.softcap)
            there = rows.shape[-1] == tokens
            if there and group.layers == list(range(self.layers)):
                return rows
            if found is None:
                found = rows.new_full((len(rows), self.layers, way.heads, tokens), torch.nan)
            if there:
                found[:, group.layers] = rows.to(found.device)
        assert found is not None
        return found
