"""Attention of many rows to one prefix that they share, and of each row to its own suffix.

One batched product over the prefix serves all rows; no row has a copy of it.
"""

from collections.abc import Mapping
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from headpatch.engine.precision import batched_product
from headpatch.engine.prefill import LayerState

Queries = Float[Tensor, "rows heads suffix head_dim"]
Z = Float[Tensor, "rows suffix heads dim"]


def attend(
    query: Queries, key: Tensor, value: Tensor, state: LayerState, options: Mapping[str, Any]
) -> Z:
    """Return the rows' z.

    Parameters
    ----------
    query, key, value
        Of the rows' suffix: ``[rows, heads or kv_heads, suffix, dim]``.
    state
        The prefix's keys and values, and the mask.
    options
        As transformers passes them: ``scaling``, ``softcap``.
    """
    query = _scaled(query, options)
    prefix_key, prefix_value = state.key[0], state.value[0]
    together = _by_kv_head(query, len(prefix_key))
    weights = _weights(
        together @ prefix_key.transpose(1, 2), _own(query, key), len(query), state, options
    )
    z = weights[..., : prefix_key.shape[1]] @ prefix_value
    return _joined(z, weights, value, query.shape[1])


def attend_deviating(
    query: Queries,
    key: Tensor,
    value: Tensor,
    state: LayerState,
    options: Mapping[str, Any],
    low: torch.dtype,
) -> Z:
    """Return the rows' z over low-precision weights (see `headpatch.engine.precision`).

    What all rows have of the untouched run is computed once, in float32; only deviations from it
    are multiplied in `low`: of the queries with the keys, and of the weights with the values.
    """
    rows, prefix = len(query), state.key.shape[2]
    prefix_key, prefix_value = state.key[0].float(), state.value[0].float()
    kv_heads = len(prefix_key)
    query, untouched = _scaled(query, options), _scaled(state.query, options)
    known = _by_kv_head(untouched, kv_heads) @ prefix_key.transpose(1, 2)
    before = _weights(known, _own(untouched, state.own_key), 1, state, options)
    moved = _by_kv_head((query - untouched).to(low), kv_heads)
    scores = batched_product(moved, prefix_key.to(low).transpose(1, 2))
    scores = scores.view(kv_heads, rows, -1, prefix).add_(known[:, None])
    weights = _weights(scores.flatten(1, 2), _own(query, key), rows, state, options)
    change = weights.view(kv_heads, rows, -1, weights.shape[-1]) - before[:, None]
    change = change[..., :prefix].to(low).flatten(1, 2)
    z = batched_product(change, prefix_value.to(low)).view(kv_heads, rows, -1, value.shape[-1])
    z = z.add_((before[..., :prefix] @ prefix_value)[:, None]).flatten(1, 2)
    return _joined(z, weights, value, query.shape[1])


def _scaled(query: Tensor, options: Mapping[str, Any]) -> Tensor:
    scaling: float | None = options.get("scaling")
    return query * (query.shape[-1] ** -0.5 if scaling is None else scaling)


def _by_kv_head(query: Queries, kv_heads: int) -> Float[Tensor, "kv_heads queries head_dim"]:
    """Put all queries of one key-value head together: rows, then heads, then positions."""
    rows, _, _, width = query.shape
    grouped = query.reshape(rows, kv_heads, -1, width)
    return grouped.transpose(0, 1).reshape(kv_heads, -1, width)


def _own(query: Queries, key: Tensor) -> Float[Tensor, "rows kv_heads queries suffix"]:
    rows, kv_heads = key.shape[:2]
    return query.reshape(rows, kv_heads, -1, query.shape[-1]) @ key.transpose(2, 3)


def _weights(
    scores: Float[Tensor, "kv_heads queries prefix"],
    own: Float[Tensor, "rows kv_heads group_suffix suffix"],
    rows: int,
    state: LayerState,
    options: Mapping[str, Any],
) -> Float[Tensor, "kv_heads queries tokens"]:
    """Softmax over prefix and suffix together."""
    kv_heads, suffix = len(scores), own.shape[-1]
    joined = torch.cat([scores, own.transpose(0, 1).flatten(1, 2)], -1)
    apart = joined.view(kv_heads, rows, -1, suffix, joined.shape[-1])
    if (softcap := options.get("softcap")) is not None:
        apart = torch.tanh(apart / softcap) * softcap
    if state.mask is not None:
        apart = _masked(apart, state.mask[0], kv_heads)
    elif suffix > 1:
        ahead = torch.ones(suffix, suffix, dtype=torch.bool, device=own.device).triu(1)
        apart[..., scores.shape[-1] :].masked_fill_(ahead, -torch.inf)
    return apart.softmax(-1).view(kv_heads, -1, joined.shape[-1])


def _masked(
    scores: Float[Tensor, "kv_heads rows group suffix tokens"],
    seen: Tensor,
    kv_heads: int,
) -> Float[Tensor, "kv_heads rows group suffix tokens"]:
    """Apply a mask ``[heads or 1, suffix, tokens]``, boolean or additive."""
    if len(seen) > 1:
        seen = seen.view(kv_heads, 1, -1, *seen.shape[1:])
    if seen.dtype == torch.bool:
        return scores.masked_fill(~seen, -torch.inf)
    return scores + seen


def _joined(
    z: Float[Tensor, "kv_heads queries dim"],
    weights: Float[Tensor, "kv_heads queries tokens"],
    value: Float[Tensor, "rows kv_heads suffix dim"],
    heads: int,
) -> Z:
    """Add what each row has from its own suffix, and put z in transformers' order."""
    rows, kv_heads, suffix, dim = value.shape
    mine = weights[..., -suffix:].view(kv_heads, rows, -1, suffix).transpose(0, 1)
    whole = z.view(kv_heads, rows, -1, dim).transpose(0, 1) + mine @ value
    return whole.reshape(rows, heads, suffix, dim).transpose(1, 2).contiguous()
