"""The one attention function that headpatch registers with transformers, for both towers.

transformers hands it q, k, v per head after the rotary embedding, and its return value is z: so
attention rows and z can be read, z changed and edges cut without a hook on any module and without
an N×N map. What to do at a module is a `Tap`, hung on that module for the length of one pass.
"""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Protocol, TypeAlias, runtime_checkable

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn import Module, functional
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from headpatch.errors import RunError
from headpatch.models.observed import SINKS
from headpatch.models.vlm import implemented

Query = Float[Tensor, "batch heads queries head_dim"]
Key = Float[Tensor, "batch kv_heads keys head_dim"]
Rows = Float[Tensor, "batch heads chosen keys"]
Edges = Bool[Tensor, "batch heads chosen keys"] | Float[Tensor, "batch heads chosen keys"]
"""Edges that are left (False: removed), or the logarithm of what each is multiplied by."""
Options: TypeAlias = Mapping[str, Any]
Mask: TypeAlias = Tensor | None
"""As transformers passes it to sdpa: boolean (True = seen), additive, or None."""
NAME = "headpatch"
_TAP = "_headpatch_tap"
_BLOCK = 64  # queries at a time where sdpa cannot be used
_CHANGES = (*SINKS, "softcap", "position_bias", "cache", "output_attentions")


@runtime_checkable
class Tap(Protocol):
    """What happens at one attention module; returns z."""

    def __call__(
        self,
        module: Module,
        query: Query,
        key: Key,
        value: Float[Tensor, "batch kv_heads keys value_dim"],
        mask: Mask,
        **options: Any,
    ) -> Float[Tensor, "batch queries heads value_dim"]:
        """Return z."""


def attention(
    module: Module, query: Tensor, key: Tensor, value: Tensor, attention_mask: Mask, **options: Any
) -> tuple[Tensor, None]:
    """Be transformers' sdpa attention, unless a tap hangs on `module`."""
    if options.get("position_bias") is not None:  # Inkling's: taps see it as a part of the mask
        attention_mask = _biased(module, query, key, attention_mask, options)
        options["position_bias"] = None
    tap: Tap | None = module.__dict__.get(_TAP)
    if tap is None:
        return plain_attention(module, query, key, value, attention_mask, **options), None
    return tap(module, query, key, value, attention_mask, **options), None


def _biased(module: Module, query: Query, key: Key, mask: Mask, options: Options) -> Tensor:
    """Return the additive mask that a bias of scores and a mask come to."""
    bias: Tensor = options["position_bias"]
    length, keys = query.shape[2], key.shape[2]
    if mask is None and is_causal(module, length, options):
        after = keys - length
        mask = bias.new_ones(length, keys, dtype=torch.bool).tril(after)
    if mask is None:
        return bias
    mask = mask[..., :keys]
    if mask.dtype == torch.bool:
        return bias.masked_fill(~mask, torch.finfo(bias.dtype).min)
    return bias + mask


def plain_attention(
    module: Module, query: Tensor, key: Tensor, value: Tensor, mask: Mask, **options: Any
) -> Tensor:
    """Return z as transformers' sdpa attention computes it, ``[batch, queries, heads, dim]``.

    Scores that are capped, which sdpa cannot do, are computed as eager attention would; attention
    with sinks, which sdpa would leave out without a word, is a `RunError`.
    """
    if mask is None and query.shape == key.shape and _is_bare(options):
        # What transformers' function comes to. Its look at every case costs as much as a kernel.
        z = functional.scaled_dot_product_attention(
            query,
            key,
            value,
            scale=options.get("scaling"),
            is_causal=is_causal(module, query.shape[2], options),
        )
        return z.transpose(1, 2).contiguous()
    if any(options.get(name) is not None for name in SINKS):
        raise RunError("the model's attention has sinks (as gpt-oss's), which headpatch cannot run")
    if options.get("softcap") is not None:
        blocks = torch.arange(query.shape[2], device=query.device).split(_BLOCK)
        rows = (attention_rows(module, query, key, mask, one, **options) for one in blocks)
        return torch.cat([weigh(row, value) for row in rows], 1)
    found: Tensor
    found, _ = sdpa_attention_forward(module, query, key, value, mask, **options)
    return found


def _is_bare(options: Options) -> bool:
    """Whether nothing is asked for that changes attention, beyond scaling and causality."""
    return not options.get("dropout") and all(options.get(name) is None for name in _CHANGES)


AttentionInterface.register(NAME, attention)
AttentionMaskInterface.register(NAME, sdpa_mask)  # else padded batches are silently wrong


@contextmanager
def tapped(parts: Iterable[PreTrainedModel], taps: Mapping[Module, Tap]) -> Iterator[None]:
    """Run a model through `attention` with `taps` hung on its attention modules.

    `parts` are all models that it is made of (`headpatch.models.vlm.parts`). On leaving, also after
    an exception, the taps are gone and every part has the attention implementation that it had
    before.
    """
    with implemented(parts, NAME):
        try:
            for module, tap in taps.items():
                module.__dict__[_TAP] = tap
            yield
        finally:
            for module in taps:
                module.__dict__.pop(_TAP, None)


def attention_rows(
    module: Module,
    query: Query,
    key: Key,
    mask: Mask,
    queries: Int[Tensor, " chosen"],
    allowed: Edges | None = None,
    scaling: float | None = None,
    **options: Any,
) -> Rows:
    """Return the attention of the chosen queries to every key, in float32.

    Without a mask it is causal where the module is. `allowed` further removes edges where False, or
    multiplies attention before it is renormalised; a query that keeps no key gets a row of zeros.
    """
    batch, heads, length, width = query.shape
    kv_heads, keys = key.shape[1], key.shape[2]
    picked = query[:, :, queries].float() * (width**-0.5 if scaling is None else scaling)
    grouped = picked.reshape(batch, kv_heads, -1, width)
    scores = (grouped @ key.float().transpose(-1, -2)).reshape(batch, heads, -1, keys)
    if mask is not None:
        mask = mask[..., queries, :keys]
    elif is_causal(module, length, options):
        mask = torch.arange(keys, device=key.device) <= queries[:, None] + (keys - length)
    return to_rows(scores, mask, options.get("softcap"), allowed)


def to_rows(
    scores: Float[Tensor, "*layers heads chosen keys"],
    mask: Mask,
    softcap: float | None = None,
    allowed: Tensor | None = None,
) -> Float[Tensor, "*layers heads chosen keys"]:
    """Return what attention makes of scaled scores; for `allowed` see `Edges`."""
    if softcap is not None:
        scores = torch.tanh(scores / softcap) * softcap
    if mask is not None:
        seen = mask.dtype == torch.bool
        scores = scores.masked_fill(~mask, -torch.inf) if seen else scores + mask
    if allowed is not None:
        removed = allowed.dtype == torch.bool
        scores = scores.masked_fill(~allowed, -torch.inf) if removed else scores + allowed
    return scores.softmax(-1).nan_to_num(0.0)  # NaN: no key left


def is_causal(module: Module, length: int, options: Options) -> bool:
    """Whether sdpa would mask the future without being given a mask."""
    causal = options.get("is_causal")
    return length > 1 and bool(getattr(module, "is_causal", True) if causal is None else causal)


def weigh(
    rows: Rows, value: Float[Tensor, "batch kv_heads keys dim"]
) -> Float[Tensor, "batch chosen heads dim"]:
    """Return the z that attention rows give."""
    batch, heads, chosen, keys = rows.shape
    grouped = rows.reshape(batch, value.shape[1], -1, keys)
    z = (grouped @ value.float()).reshape(batch, heads, chosen, value.shape[-1])
    return z.transpose(1, 2).to(value.dtype)
