"""Triton kernels of `headpatch.engine.fused` and of a walk's attention, for CUDA devices.

Each does in one launch, reading its operands once, what plain torch does in many.
"""

from collections.abc import Callable
from functools import wraps
from typing import Concatenate, ParamSpec, no_type_check

import torch
import triton
import triton.language as tl
from jaxtyping import Float
from torch import Tensor

_ROWS, _KEYS, _WARPS, _STAGES = 32, 64, 4, 2  # of a tile of attention

P = ParamSpec("P")


def _where_it_lies(
    launch: Callable[Concatenate[Tensor, P], Tensor],
) -> Callable[Concatenate[Tensor, P], Tensor]:
    """Launch on the device of the first tensor: Triton takes the current one, whatever it is."""

    @wraps(launch)
    def run(first: Tensor, /, *rest: P.args, **named: P.kwargs) -> Tensor:
        with torch.cuda.device(first.device):
            return launch(first, *rest, **named)

    return run


@triton.jit
@no_type_check
def _norm(d, x0, scale, out, width, suffix, eps, block: tl.constexpr):
    row = tl.program_id(0).to(tl.int64)
    at = tl.arange(0, block)
    inside = at < width
    move = tl.load(d + row * width + at, mask=inside, other=0.0).to(tl.float32)
    x = tl.load(x0 + (row % suffix) * width + at, mask=inside, other=0.0)
    factor = tl.load(scale + at, mask=inside, other=0.0)
    square = tl.sum(x * x) / width + eps
    more = tl.sum(move * (move + 2 * x)) / width
    r0 = 1 / tl.sqrt(square)
    r = 1 / tl.sqrt(square + more)
    change = -more * (r * r0) * (r * r0) / (r + r0)
    y = (move * r + x * change) * factor
    tl.store(out + row * width + at, y.to(out.dtype.element_ty), mask=inside)


@_where_it_lies
def norm_deviation(
    d: Float[Tensor, "rows suffix width"],
    x0: Float[Tensor, "1 suffix width"],
    scale: Float[Tensor, " width"],
    eps: float,
    low: torch.dtype,
) -> Float[Tensor, "rows suffix width"]:
    """See `headpatch.engine.fused`."""
    rows, suffix, width = d.shape
    out = torch.empty(d.shape, dtype=low, device=d.device)
    if rows:
        block = triton.next_power_of_2(width)
        _norm[(rows * suffix,)](
            d.contiguous(),
            x0.contiguous(),
            scale.contiguous(),
            out,
            width,
            suffix,
            eps,
            block=block,
            num_warps=min(max(block // 512, 1), 16),
        )
    return out


@triton.jit
@no_type_check
def _activated(x, gelu: tl.constexpr):
    if gelu:
        inner = 0.7978845608028654 * (x + 0.044715 * x * x * x)
        return x / (1 + tl.exp(-2 * inner))
    return x / (1 + tl.exp(-x))


@triton.jit
@no_type_check
def _gated(gate, up, gate0, up0, out, count, each, gelu: tl.constexpr, block: tl.constexpr):
    at = tl.program_id(0).to(tl.int64) * block + tl.arange(0, block)
    inside = at < count
    place = at % each
    g0 = tl.load(gate0 + place, mask=inside, other=0.0)
    u0 = tl.load(up0 + place, mask=inside, other=0.0)
    g = tl.load(gate + at, mask=inside, other=0.0)
    u = tl.load(up + at, mask=inside, other=0.0)
    before = _activated(g0, gelu)
    y = (_activated(g0 + g, gelu) - before) * (u0 + u) + before * u
    tl.store(out + at, y.to(out.dtype.element_ty), mask=inside)


@_where_it_lies
def gated_deviation(
    gate: Float[Tensor, "rows suffix width"],
    up: Float[Tensor, "rows suffix width"],
    gate0: Float[Tensor, "1 suffix width"],
    up0: Float[Tensor, "1 suffix width"],
    act: str,
    low: torch.dtype,
) -> Float[Tensor, "rows suffix width"]:
    """See `headpatch.engine.fused`; `act` is silu or gelu_tanh."""
    out = torch.empty(gate.shape, dtype=low, device=gate.device)
    if out.numel():
        block = 2048
        _gated[(triton.cdiv(out.numel(), block),)](
            gate.contiguous(),
            up.contiguous(),
            gate0.contiguous(),
            up0.contiguous(),
            out,
            out.numel(),
            gate0.numel(),
            gelu=act == "gelu_tanh",
            block=block,
            num_warps=8,
        )
    return out


@triton.jit
@no_type_check
def _expm1(x):
    x = tl.minimum(x, 80.0)  # more only happens to weights that are as good as none
    series = x * (1 + x / 2 * (1 + x / 3 * (1 + x / 4 * (1 + x / 5))))
    return tl.where(tl.abs(x) < 0.1, series, tl.exp(x) - 1)


@triton.jit
@no_type_check
def _log1p(x):
    u = 1 + x
    return tl.where(u == 1, x, tl.log(u) * x / tl.where(u == 1, 1.0, u - 1))


@triton.jit
@no_type_check
def _rows(at, step, left, row, column, dim):
    # A tile of rows `step` apart; zero beyond the last row and column.
    where = row[:, None] * step + column[None, :]
    inside = (row[:, None] < left) & (column[None, :] < dim)
    return tl.load(at + where, mask=inside, other=0.0)


@triton.jit
@no_type_check
def _moved(q_at, q_row, q0_at, k_at, k_row, k0_at, scale, left, row, column, dim):
    # By how much the scores of one place of the rows' own suffix have moved.
    q = _rows(q_at, q_row, left, row, column, dim).to(tl.float32)
    k = _rows(k_at, k_row, left, row, column, dim).to(tl.float32)
    q0 = tl.load(q0_at + column, mask=column < dim, other=0.0)
    k0 = tl.load(k0_at + column, mask=column < dim, other=0.0)
    return tl.sum(q * (k0[None, :] + k) + q0[None, :] * k, 1) * scale


@triton.jit
@no_type_check
def _attend(
    query, key, value, query0, key0, value0, weights, prefix_key, prefix_value, out, scale,
    rows, heads, kv_heads, suffix, prefix, dim,
    q_row, q_head, q_place, k_row, k_head, k_place, v_row, v_head, v_place,
    causal: tl.constexpr, tile: tl.constexpr, keys: tl.constexpr, wide: tl.constexpr,
):  # fmt: skip
    # A row's weights are b_j exp(s_j) / sum b exp(s): b of the untouched run, s_j by how much a
    # score has moved. Once through the keys for the sum, and once more for what is multiplied
    # with the values, b_j (exp(s_j - log sum) - 1).
    head = tl.program_id(1) // suffix
    place = tl.program_id(1) % suffix
    kv = head // (heads // kv_heads)
    first_row = tl.program_id(0).to(tl.int64) * tile
    left = rows - first_row
    row = tl.arange(0, tile)
    column = tl.arange(0, wide)
    q_at = query + first_row * q_row + head * q_head + place * q_place
    k_at = key + first_row * k_row + kv * k_head
    v_at = value + first_row * v_row + kv * v_head
    q0_at = query0 + (head * suffix + place) * dim
    own_at = kv * suffix * dim
    prefix_at = kv.to(tl.int64) * prefix * dim
    b_at = weights + (head * suffix + place).to(tl.int64) * (suffix + prefix)
    last = place + 1 if causal else suffix
    q = _rows(q_at, q_row, left, row, column, dim).to(tl.float32)
    low = (q * scale).to(prefix_key.dtype.element_ty)

    gain = tl.zeros((tile,), dtype=tl.float32)  # the sum less 1, exact where little has moved
    total = tl.zeros((tile,), dtype=tl.float32)  # the sum over exp(top), where much has
    top = tl.full((tile,), -1e30, dtype=tl.float32)
    for first in range(0, prefix, keys):
        at = first + tl.arange(0, keys)
        k = _rows(prefix_key + prefix_at, dim, prefix, at, column, dim)
        b = tl.load(b_at + at, mask=at < prefix, other=0.0)
        moved = tl.dot(low, tl.trans(k))
        gain += tl.sum(b[None, :] * _expm1(moved), 1)
        moved = tl.where(b[None, :] > 0, moved, -1e30)
        above = tl.maximum(top, tl.max(moved, 1))
        grown = tl.sum(b[None, :] * tl.exp(moved - above[:, None]), 1)
        total = total * tl.exp(top - above) + grown
        top = above
    for own in range(0, last):
        k0_at = key0 + own_at + own * dim
        moved = _moved(
            q_at, q_row, q0_at, k_at + own * k_place, k_row, k0_at, scale, left, row, column, dim
        )
        b = tl.load(b_at + prefix + own)
        gain += b * _expm1(moved)
        moved = tl.where(b > 0, moved, -1e30)
        above = tl.maximum(top, moved)
        total = total * tl.exp(top - above) + b * tl.exp(moved - above)
        top = above
    little = tl.abs(gain) < 0.5
    log_sum = tl.where(little, _log1p(tl.where(little, gain, 0.0)), top + tl.log(total))

    z = tl.zeros((tile, wide), dtype=tl.float32)
    for first in range(0, prefix, keys):
        at = first + tl.arange(0, keys)
        k = _rows(prefix_key + prefix_at, dim, prefix, at, column, dim)
        b = tl.load(b_at + at, mask=at < prefix, other=0.0)
        change = b[None, :] * _expm1(tl.dot(low, tl.trans(k)) - log_sum[:, None])
        v = _rows(prefix_value + prefix_at, dim, prefix, at, column, dim)
        z = tl.dot(change.to(low.dtype), v, z)
    for own in range(0, last):
        k0_at = key0 + own_at + own * dim
        moved = _moved(
            q_at, q_row, q0_at, k_at + own * k_place, k_row, k0_at, scale, left, row, column, dim
        )
        b = tl.load(b_at + prefix + own)
        change = b * _expm1(moved - log_sum)
        v0 = tl.load(value0 + own_at + own * dim + column, mask=column < dim, other=0.0)
        v = _rows(v_at + own * v_place, v_row, left, row, column, dim).to(tl.float32)
        z += change[:, None] * (v0[None, :] + v) + b * v
    out_at = out + ((first_row * suffix + place) * heads + head) * dim
    where = row[:, None] * (suffix * heads * dim) + column[None, :]
    inside = (row[:, None] < left) & (column[None, :] < dim)
    tl.store(out_at + where, z.to(out.dtype.element_ty), mask=inside)


@_where_it_lies
def attend(
    query: Float[Tensor, "rows heads suffix dim"],
    key: Float[Tensor, "rows kv_heads suffix dim"],
    value: Float[Tensor, "rows kv_heads suffix dim"],
    query0: Float[Tensor, "heads suffix dim"],
    key0: Float[Tensor, "kv_heads suffix dim"],
    value0: Float[Tensor, "kv_heads suffix dim"],
    weights: Float[Tensor, "heads suffix tokens"],
    prefix_key: Float[Tensor, "kv_heads prefix dim"],
    prefix_value: Float[Tensor, "kv_heads prefix dim"],
    scale: float,
    causal: bool,
) -> Float[Tensor, "rows suffix heads dim"]:
    """Return how far z deviates, given how far the rows' own queries, keys and values do.

    Parameters
    ----------
    query0, key0, value0
        Of the untouched run's suffix, float32.
    weights
        Its attention, float32; zero where masked.
    prefix_key, prefix_value
        In low precision; so is what is returned.
    causal
        Whether no place of the suffix sees a later one.
    """
    rows, heads, suffix, dim = query.shape
    kv_heads, prefix = prefix_key.shape[:2]
    out = torch.empty(rows, suffix, heads, dim, dtype=prefix_key.dtype, device=query.device)
    if not rows:
        return out
    query, key, value = (
        one if one.stride(-1) == 1 else one.contiguous() for one in (query, key, value)
    )
    grid = (triton.cdiv(rows, _ROWS), heads * suffix)
    _attend[grid](
        query, key, value, query0.contiguous(), key0.contiguous(), value0.contiguous(),
        weights.contiguous(), prefix_key.contiguous(), prefix_value.contiguous(), out, scale,
        rows, heads, kv_heads, suffix, prefix, dim,
        *query.stride()[:3], *key.stride()[:3], *value.stride()[:3],
        causal=causal, tile=_ROWS, keys=_KEYS, wide=max(triton.next_power_of_2(dim), 16),
        num_warps=_WARPS, num_stages=_STAGES,
    )  # fmt: skip
    return out
