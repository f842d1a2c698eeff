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
"""Gives the image tokens that pixel values make, as they enter the language model."""
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


@torch.no_grad()
def image_tokens(
    vlm: VLM, inputs: dict[str, Tensor], image: Int[Tensor, " image"]
) -> Float[Tensor, "image width"]:
    """Return what of one run's picture enters the language model's first layer."""

    def leave(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        raise _Entered(args[0] if args else kwargs["hidden_states"])

    given = {
        name: (value.to(vlm.dtype) if value.is_floating_point() else value).to(vlm.device)
        for name, value in inputs.items()
    }
    handle = vlm.lm.layers[0].register_forward_pre_hook(leave, with_kwargs=True)
    try:
        with implemented(vlm.parts, _ALONE):
            vlm.model(**given, use_cache=False)
    except _Entered as entered:
        return entered.hidden[0, image.to(entered.hidden.device)].float().cpu()
    finally:
        handle.remove()
    raise AssertionError("the language model did not run")


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
        after = features(torch.where(where, pixels.cpu() + noise, pixels.cpu()))
        off = (after - before).abs().amax(-1)
        return np.asarray(off > _CHANGED * off.max()) if off.max() > 0 else np.zeros(len(off), bool)

    each = torch.arange(count).view(*pixels.shape[:-3], 1, 1, 1)
    row, column = (torch.arange(length) // side for length in pixels.shape[-2:])
    return Reach(
        np.stack([moved(each == one) for one in range(count)], -1),
        np.stack([moved(row[:, None] == one) for one in range(int(row[-1]) + 1)], -1),
        np.stack([moved(column == one) for one in range(int(column[-1]) + 1)], -1),
    )
