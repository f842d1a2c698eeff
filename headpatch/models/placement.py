"""Where a model's weights go, and as which numbers."""

import warnings
from importlib.util import find_spec
from typing import Any

import torch

from headpatch.errors import InputError


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
    """Say where the weights go, as `from_pretrained` takes it.

    Raises
    ------
    InputError
        If a package that this needs is not installed.
    """
    if device_map is None and quantize is None:
        return {"device_map": None, "device": resolve_device(device)}
    if not installed("accelerate"):
        raise _not_installed("--quantize" if device_map is None else "--device-map", "accelerate")
    found: dict[str, Any] = {"device_map": device_map}
    if device_map is None:  # quantised, on one device
        found = {"device": resolve_device(device), "device_map": {"": resolve_device(device)}}
    if quantize is not None:
        if quantize not in ("8bit", "4bit"):
            raise InputError("--quantize", repr(quantize), "8bit or 4bit")
        if not installed("bitsandbytes"):
            raise _not_installed("--quantize", "bitsandbytes")
        from transformers import BitsAndBytesConfig

        # Of the two codes of 4 bits, nf4 is made for weights that scatter normally.
        way = {f"load_in_{quantize}": True, "bnb_4bit_quant_type": "nf4"}
        found["quantization_config"] = BitsAndBytesConfig(**way)
    return found


def installed(package: str) -> bool:
    """Whether a package is there to be imported."""
    return find_spec(package) is not None


def _not_installed(argument: str, package: str) -> InputError:
    return InputError(
        argument, f"{package} is not installed", f"the package {package}", f"pip install {package}"
    )


def dtype_of(dtype: str) -> torch.dtype | str:
    """Return torch's dtype of a name; ``auto`` stays as it is.

    Raises
    ------
    InputError
        If it is another name.
    """
    known = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
    if dtype == "auto":
        return "auto"
    if dtype not in known:
        raise InputError("--dtype", repr(dtype), f"auto, {', '.join(known)}")
    return known[dtype]
