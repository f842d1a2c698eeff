"""Attention of many rows to one prefix that they share, and of each row to its own suffix.

One batched product over the prefix serves all rows; no row has a copy of it.
"""

from typing import Any, cast

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import Module

from headpatch.engine.attention import Options, plain_attention
from headpatch.engine.fused import kernels_on
from headpatch.engine.precision import batched_product
from headpatch.engine.prefill import Known, LayerState

Queries = Float[Tensor, "rows heads asked head_dim"]
Weights = Float[Tensor, "kv_heads queries tokens"]
Z = Float[Tensor, "rows asked heads dim"]


def attend(query: Queries, key: Tensor, value: Tensor, state: LayerState, options: Options) -> Z:
    """Return the rows' z; queries may be of the suffix's last positions alone.

    `state` has the prefix's keys and values, and the mask; `options` are transformers' ``scaling``
    and ``softcap``.
    """
    query, prefix = _scaled(query, options), state.key.shape[2]
    own = _own(query, key)
    queries, keys = _by_kv_head(query, len(state.key[0])), state.key[0].transpose(1, 2)
    scores = queries.new_empty(*queries.shape[:2], prefix + own.shape[-1])
    torch.bmm(queries, keys, out=scores[..., :prefix])  # in place: to join them costs as much again
    scores[..., prefix:] = own.transpose(0, 1).flatten(1, 2)
    weights = _softmax(scores, len(query), query.shape[2], own.shape[-1], state.mask, options)
    z = weights[..., :prefix] @ state.value[0]
    return _joined(z, weights, value, query)


def attend_own(
    module: Module, query: Queries, key: Tensor, value: Tensor, state: LayerState, options: Options
) -> Z:
    """Return the rows' z, also where no prefix is shared: then it is plain attention."""
    if state.key.shape[2] == 0:
        mask = None if state.mask is None else state.mask[..., -query.shape[2] :, :]
        return plain_attention(module, query, key, value, mask, **options)
    return attend(query, key, value, state, options)


def known(
    query: Float[Tensor, "runs heads suffix head_dim"],
    key: Float[Tensor, "runs kv_heads prefix head_dim"],
    value: Float[Tensor, "runs kv_heads prefix dim"],
    own_key: Float[Tensor, "runs kv_heads own head_dim"],
    mask: Tensor | None,
    scoring: Options,
    low: torch.dtype,
    **_: Any,
) -> Known:
    """Return what all rows have of the runs at one layer, in float32; see `LayerState`.

    Of all runs at once, as if their heads were those of one.
    """
    runs, kv_heads = key.shape[:2]
    scaled = _scaled(query, scoring).flatten(0, 1)[None]
    queries = _by_kv_head(scaled, runs * kv_heads)
    scores = queries @ key.flatten(0, 1).float().transpose(1, 2)
    own = _own(scaled, own_key.flatten(0, 1)[None])
    if mask is not None and runs > 1:
        mask = mask.expand(runs, query.shape[1], *mask.shape[2:]).flatten(0, 1)[None]
    weights = _weights(scores, own, query.shape[2], mask, scoring)
    weights, scores = (one.unflatten(0, (runs, kv_heads)) for one in (weights, scores))
    return Known(weights, scores, key.to(low), value.to(low))


def attend_deviating(query: Queries, key: Tensor, value: Tensor, state: LayerState) -> Z:
    """Return how far z deviates from the untouched run's, in low precision.

    Of the rows' suffix, `query`, `key` and `value` say how far they deviate. Only deviations are
    multiplied in low precision: of the queries with the keys, and of the weights with the values.
    """
    assert state.known is not None  # see `known`
    untouched, options = state.known, state.scoring
    low = untouched.key.dtype
    heads, suffix = query.shape[1:3]
    kernels = kernels_on(query.device)
    if kernels is not None and options.get("softcap") is None and key.shape[2] == suffix:
        before = state.query[0], state.own_key[0], state.own_value[0]
        attended = untouched.weights.view(heads, suffix, untouched.weights.shape[-1])
        known = attended, untouched.key, untouched.value, _scaling(query, options)
        rows_z = kernels.attend(query, key, value, *before, *known, state.mask is None)
        return cast("Tensor", rows_z)
    rows, (kv_heads, prefix) = len(query), untouched.key.shape[:2]
    query = _scaled(query, options)
    after = query + _scaled(state.query, options)
    scores = batched_product(_by_kv_head(query.to(low), kv_heads), untouched.key.transpose(1, 2))
    scores = scores.view(kv_heads, rows, -1, prefix).add_(untouched.scores[:, None])
    own = _own(after, state.own_key + key)
    weights = _weights(scores.flatten(1, 2), own, suffix, state.mask, options)
    change = weights.view(kv_heads, rows, -1, weights.shape[-1]) - untouched.weights[:, None]
    change = change.flatten(1, 2)
    z = batched_product(change[..., :prefix].to(low), untouched.value)
    moved = _joined(z, change, state.own_value, query) + _joined(0 * z, weights, value, query)
    return moved.to(low)


def _scaling(query: Tensor, options: Options) -> float:
    scaling: float | None = options.get("scaling")
    return float(query.shape[-1] ** -0.5 if scaling is None else scaling)


def _scaled(query: Tensor, options: Options) -> Tensor:
    return query * _scaling(query, options)


def _by_kv_head(query: Queries, kv_heads: int) -> Float[Tensor, "kv_heads queries head_dim"]:
    """Put all queries of one key-value head together: rows, then heads, then positions."""
    rows, _, _, width = query.shape
    grouped = query.reshape(rows, kv_heads, -1, width)
    return grouped.transpose(0, 1).reshape(kv_heads, -1, width)


def _own(query: Queries, key: Tensor) -> Float[Tensor, "rows kv_heads queries suffix"]:
    return query.reshape(len(query), key.shape[1], -1, query.shape[-1]) @ key.transpose(2, 3)


def _weights(
    scores: Float[Tensor, "kv_heads queries prefix"],
    own: Float[Tensor, "rows kv_heads group_asked suffix"],
    asked: int,
    mask: Tensor | None,
    options: Options,
) -> Weights:
    """Softmax over prefix and suffix together, at the last `asked` positions."""
    joined = torch.cat([scores, own.transpose(0, 1).flatten(1, 2)], -1)
    return _softmax(joined, len(own), asked, own.shape[-1], mask, options)


def _softmax(
    joined: Weights, rows: int, asked: int, suffix: int, mask: Tensor | None, options: Options
) -> Weights:
    """Softmax of scores on prefix and suffix, side by side, which may be overwritten."""
    kv_heads, tokens = len(joined), joined.shape[-1]
    apart = joined.view(kv_heads, rows, -1, asked, tokens)
    if (softcap := options.get("softcap")) is not None:
        apart = torch.tanh(apart / softcap) * softcap
    if mask is not None:
        apart = _masked(apart, mask[0, :, -asked:], kv_heads)
    elif suffix > 1:
        ahead = torch.ones(asked, suffix, dtype=torch.bool, device=joined.device)
        ahead = ahead.triu(1 + suffix - asked)
        apart[..., tokens - suffix :].masked_fill_(ahead, -torch.inf)
    return apart.softmax(-1).view(kv_heads, -1, tokens)


def _masked(
    scores: Float[Tensor, "kv_heads rows group asked tokens"], seen: Tensor, kv_heads: int
) -> Float[Tensor, "kv_heads rows group asked tokens"]:
    """Apply a mask ``[heads or 1, asked, tokens]``, boolean or additive."""
    if len(seen) > 1:
        seen = seen.view(kv_heads, 1, -1, *seen.shape[1:])
    if seen.dtype == torch.bool:
        return scores.masked_fill(~seen, -torch.inf)
    return scores + seen


def _joined(
    z: Float[Tensor, "kv_heads queries dim"],
    weights: Weights,
    value: Float[Tensor, "rows_or_one kv_heads suffix dim"],
    query: Queries,
) -> Z:
    """Add what each row has from its own suffix, and put z in transformers' order."""
    (rows, heads, asked, _), (kv_heads, suffix, dim) = query.shape, value.shape[1:]
    own = weights[..., weights.shape[-1] - suffix :]
    mine = own.view(kv_heads, rows, heads // kv_heads * asked, suffix).transpose(0, 1)
    weighed = mine * value if suffix == 1 else mine @ value  # one by one: no product of matrices
    whole = z.view(kv_heads, rows, -1, dim).transpose(0, 1) + weighed
    return whole.reshape(rows, heads, asked, dim).transpose(1, 2).contiguous()
