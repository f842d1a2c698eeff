"""Which pixels stand behind each image token: seen by changing them, a stripe at a time.

Attention would carry any change to every token. So while this is looked at, each token of the tower
attends to itself alone, and what is left is the way from patches to tokens: merging, shuffling,
pooling, cutting into tiles.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.masking_utils import sdpa_mask

from headpatch.models.vlm import VLM, implemented

Features: TypeAlias = Callable[[Tensor], Float[Tensor, "tokens width"]]
"""Gives the tokens that pixel values make, as they enter one of the towers."""
_ALONE = "headpatch_alone"
_CHANGED = 1e-3  # of the largest change of a token: less is rounding


def _alone(
    module: nn.Module, query: Tensor, key: Tensor, value: Tensor, *_: Any, **__: Any
) -> tuple[Tensor, None]:
    """Let each token attend to itself; where others are asked, to all alike."""
    value = value.repeat_interleave(query.shape[1] // value.shape[1], 1)
    if query.shape[2] != key.shape[2]:
        value = value.mean(2, keepdim=True).expand(-1, -1, query.shape[2], -1)
    return value.transpose(1, 2).contiguous(), None


AttentionInterface.register(_ALONE, _alone)
AttentionMaskInterface.register(_ALONE, sdpa_mask)


class _Entered(Exception):
    def __init__(self, hidden: Tensor) -> None:
        super().__init__()
        self.hidden = hidden


def image_tokens(
    vlm: VLM, inputs: dict[str, Tensor], image: Int[Tensor, " image"]
) -> Float[Tensor, "image width"]:
    """Return what of one run's picture enters the language model's first layer.

    Where nothing does, since features are added between layers alone, what enters the last one.
    """
    for layer in (vlm.lm.layers[0], vlm.lm.layers[-1]):
        entered = _entering(vlm, layer, inputs)
        found = entered[0, image.to(entered.device)].flatten(1).float().cpu()
        if found.any():
            break
    return found


def tower_tokens(vlm: VLM, inputs: dict[str, Tensor]) -> Float[Tensor, "tokens width"]:
    """Return what of one run's picture enters the vision tower's first layer."""
    return _entering(vlm, vlm.stack("vision").layers[0], inputs).flatten(0, -2).float().cpu()


@torch.no_grad()
def _entering(vlm: VLM, layer: nn.Module, inputs: dict[str, Tensor]) -> Tensor:
    """Return the stream that enters a layer; what comes after it does not run."""

    def leave(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        raise _Entered(args[0] if args else kwargs["hidden_states"])

    given = {
        name: (value.to(vlm.dtype) if value.is_floating_point() else value).to(vlm.device)
        for name, value in inputs.items()
    }
    handle = layer.register_forward_pre_hook(leave, with_kwargs=True)
    try:
        with implemented(vlm.parts, _ALONE):
            vlm.model(**given, use_cache=False)
    except _Entered as entered:
        return entered.hidden
    finally:
        handle.remove()
    raise AssertionError("the layer did not run")


@dataclass(frozen=True, eq=False)
class Reach:
    """Which views of a picture, and which stripes of them, change each token."""

    views: Bool[np.ndarray, "tokens views"]
    rows: Bool[np.ndarray, "tokens rows"]
    columns: Bool[np.ndarray, "tokens columns"]


def reach(pixels: Float[Tensor, "*views 3 height width"], features: Features, side: int) -> Reach:
    """Change each view, and in all views each stripe of `side` pixels, and see what tokens move."""
    before = features(pixels)
    noise = 2 * torch.randn(pixels.shape, generator=torch.Generator().manual_seed(0))
    count = pixels.shape[:-3].numel()

    def moved(where: Tensor) -> Bool[np.ndarray, " tokens"]:
        return _moved(before, features(torch.where(where, pixels.cpu() + noise, pixels.cpu())))

    each = torch.arange(count).view(*pixels.shape[:-3], 1, 1, 1)
    row, column = (torch.arange(length) // side for length in pixels.shape[-2:])
    return Reach(
        np.stack([moved(each == one) for one in range(count)], -1),
        np.stack([moved(row[:, None] == one) for one in range(int(row[-1]) + 1)], -1),
        np.stack([moved(column == one) for one in range(int(column[-1]) + 1)], -1),
    )


def patch_behind(
    pixels: Tensor, features: Features, number: Int[Tensor, "*pixels"]
) -> Int[np.ndarray, " tokens"]:
    """Say which one patch changes each token; -1 where none does, or several do.

    `number` says of every pixel (or loose patch of pixels) in which patch it lies, -1 in none. Of
    each binary digit of the numbers, patches that have it are changed, then those that do not: a
    token of one patch follows it alone.
    """
    draw = torch.Generator().manual_seed(0)
    plain, noise = (torch.randn(pixels.shape, generator=draw) for _ in range(2))
    before = features(plain)

    def moved(where: Tensor) -> Bool[np.ndarray, " tokens"]:
        return _moved(before, features(torch.where(where, plain + 2 * noise, plain)))

    found, alone = np.zeros(len(before), dtype=np.int64), np.ones(len(before), dtype=bool)
    for digit in range(max(int(number.max()).bit_length(), 1)):
        has = (number >> digit & 1).bool() & (number >= 0)
        one, zero = moved(has), moved(~has & (number >= 0))
        alone &= one != zero
        found |= one.astype(np.int64) << digit
    return np.where(alone, found, -1)


def _moved(before: Tensor, after: Tensor) -> Bool[np.ndarray, " tokens"]:
    off = (after - before).abs().amax(-1)
    return np.asarray(off > _CHANGED * off.max()) if off.max() > 0 else np.zeros(len(off), bool)
