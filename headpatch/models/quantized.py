"""Weights that bitsandbytes keeps in 8 or 4 bits, multiplied as the numbers that they stand for.

bitsandbytes' own 8-bit product rounds the activations as well, to 255 steps of the largest in a
row, and leaves out columns in which *any* row of the batch is large (Dettmers et al., *LLM.int8()*,
2022, arXiv:2208.07339). A row's logits would then depend on the rows beside it, and what most heads
move would be lost between two steps. So the weights alone are quantised here: each is turned back
into numbers where it is used, for as long as that takes, and everything that headpatch does over
low-precision weights works as ever.
"""

from collections.abc import Callable
from copy import copy
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.utils import parametrize
from transformers import PreTrainedModel

_EIGHT, _FOUR = "Linear8bitLt", "Linear4bit"  # by name: bitsandbytes may not be installed


def quantized(model: PreTrainedModel) -> bool:
    """Whether weights of the model are stored in fewer bits than they are multiplied with."""
    return getattr(model, "hf_quantizer", None) is not None


def quantize_weights_alone(model: PreTrainedModel) -> None:
    """Put in place of bitsandbytes' layers plain ones over the same stored weights."""
    dtype: torch.dtype = model.dtype
    stored = [
        (name, module)
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear) and type(module).__name__ in (_EIGHT, _FOUR)
    ]
    for name, module in stored:
        model.set_submodule(name, _plain(module, dtype))


def _plain(module: nn.Linear, dtype: torch.dtype) -> nn.Linear:
    plain = nn.Linear(module.in_features, module.out_features, bias=False, device="meta")
    plain.weight, plain.bias = module.weight, module.bias
    restore = _from_eight(module) if type(module).__name__ == _EIGHT else _from_four(module)
    parametrize.register_parametrization(plain, "weight", _Restored(restore, dtype), unsafe=True)
    return plain.eval()


class _Restored(nn.Module):
    """Gives a stored weight as numbers, of the dtype that `like` has.

    `like` is empty: it is cast whenever the model's other weights are.
    """

    like: Tensor

    def __init__(self, restore: Callable[[Tensor], Tensor], dtype: torch.dtype) -> None:
        super().__init__()
        self.restore = restore
        self.register_buffer("like", torch.empty(0, dtype=dtype), persistent=False)

    def forward(self, stored: Tensor) -> Float[Tensor, "out in"]:
        """Return the weight."""
        return self.restore(stored).to(self.like.dtype)


def _from_eight(module: nn.Linear) -> Callable[[Tensor], Tensor]:
    from bitsandbytes.functional import int8_vectorwise_dequant

    parameter: Any = module.weight  # of bitsandbytes' own kind
    scales: Tensor = parameter.SCB

    def restore(stored: Tensor) -> Tensor:
        weight: Tensor = int8_vectorwise_dequant(stored.data, scales)
        return weight

    return restore


def _from_four(module: nn.Linear) -> Callable[[Tensor], Tensor]:
    from bitsandbytes.functional import dequantize_4bit

    shape = module.out_features, module.in_features
    # As one long row: bitsandbytes 0.50 on a CPU gives wrong numbers where a block goes over the
    # end of a row (its width a multiple of 16, but not of the block).
    parameter: Any = module.weight
    state = copy(parameter.quant_state)
    state.shape = torch.Size((1, state.shape.numel()))

    def restore(stored: Tensor) -> Tensor:
        weight: Tensor = dequantize_4bit(stored.data, state)
        return weight.view(shape)

    return restore
