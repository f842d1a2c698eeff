"""Where a model's weights go, and as which numbers; those of bitsandbytes, and what they stand for.

bitsandbytes' own 8-bit product rounds the activations as well, to 255 steps of the largest in a
row, and leaves out columns in which *any* row of the batch is large (Dettmers et al., *LLM.int8()*,
2022, arXiv:2208.07339). A row's logits would then depend on the rows beside it, and what most heads
move would be lost between two steps. So the weights alone are quantised here: each is turned back
into numbers where it is used, for as long as that takes, and everything that headpatch does over
low-precision weights works as ever.
"""

import warnings
from collections.abc import Callable
from copy import copy
from importlib.util import find_spec
from typing import Any, cast

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.utils import parametrize
from transformers import BitsAndBytesConfig, PreTrainedModel

from headpatch.errors import InputError

_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
_EIGHT, _FOUR = "Linear8bitLt", "Linear4bit"  # by name: bitsandbytes may not be installed


def resolve_device(device: str) -> torch.device:
    """Turn ``auto`` or a device's name into a device that exists here."""
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            place = torch.device(device)
            torch.zeros(1, device=place).item()  # device `meta` holds no numbers
    except (RuntimeError, AssertionError, ImportError):
        raise InputError(
            "--device", repr(device), "a device of this machine: auto, cpu, cuda, cuda:1 or mps"
        ) from None
    return place


def placement(
    device: str, device_map: str | dict[str, str] | None, quantize: str | None
) -> dict[str, Any]:
    """Say where the weights go, as `from_pretrained` takes it."""
    if device_map is None and quantize is None:
        return {"device_map": None, "device": resolve_device(device)}
    _need("--quantize" if device_map is None else "--device-map", "accelerate")
    found: dict[str, Any] = {"device_map": device_map}
    if device_map is None:  # quantised, on one device
        found = {"device": resolve_device(device), "device_map": {"": resolve_device(device)}}
    if quantize is not None:
        if quantize not in ("8bit", "4bit"):
            raise InputError("--quantize", repr(quantize), "8bit or 4bit")
        _need("--quantize", "bitsandbytes")
        # Of the two codes of 4 bits, nf4 is made for weights that scatter normally.
        way = {f"load_in_{quantize}": True, "bnb_4bit_quant_type": "nf4"}
        found["quantization_config"] = BitsAndBytesConfig(**way)
    return found


def installed(package: str) -> bool:
    """Whether a package is there to be imported."""
    return find_spec(package) is not None


def _need(argument: str, package: str) -> None:
    if not installed(package):
        expected, hint = f"the package {package}", f"pip install {package}"
        raise InputError(argument, f"{package} is not installed", expected, hint)


def dtype_of(dtype: str) -> torch.dtype | str:
    """Return torch's dtype of a name; ``auto`` stays as it is."""
    if dtype == "auto":
        return "auto"
    if dtype not in _DTYPES:
        raise InputError("--dtype", repr(dtype), f"auto, {', '.join(_DTYPES)}")
    return _DTYPES[dtype]


def quantized(model: PreTrainedModel) -> bool:
    """Whether weights of the model are stored in fewer bits than they are multiplied with."""
    return getattr(model, "hf_quantizer", None) is not None


def quantize_weights_alone(model: PreTrainedModel) -> None:
    """Put in place of bitsandbytes' layers plain ones over the same stored weights."""
    dtype: torch.dtype = model.dtype
    for name, module in list(model.named_modules()):
        if isinstance(module, nn.Linear) and type(module).__name__ in (_EIGHT, _FOUR):
            model.set_submodule(name, _plain(module, dtype))


def _plain(module: nn.Linear, dtype: torch.dtype) -> nn.Linear:
    plain = nn.Linear(module.in_features, module.out_features, bias=False, device="meta")
    plain.weight, plain.bias = module.weight, module.bias
    restore = _from_eight(module) if type(module).__name__ == _EIGHT else _from_four(module)
    parametrize.register_parametrization(plain, "weight", _Restored(restore, dtype), unsafe=True)
    return plain.eval()


class _Restored(nn.Module):
    """Gives a stored weight in the dtype of `like`, which is cast whenever other weights are."""

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
    return lambda stored: cast("Tensor", int8_vectorwise_dequant(stored.data, scales))


def _from_four(module: nn.Linear) -> Callable[[Tensor], Tensor]:
    from bitsandbytes.functional import dequantize_4bit

    shape = module.out_features, module.in_features
    # As one long row: bitsandbytes 0.50 on a CPU gives wrong numbers where a block goes over the
    # end of a row (its width a multiple of 16, but not of the block).
    parameter: Any = module.weight
    state = copy(parameter.quant_state)
    state.shape = torch.Size((1, state.shape.numel()))
    return lambda stored: dequantize_4bit(stored.data, state).view(shape)
