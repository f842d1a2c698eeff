"""What a worker sends to its driver, which holds no weights."""

import io
import pickle
from typing import Any

import torch

from headpatch.core.question import Verb, verbs
from headpatch.models.vlm import VLM


def without_weights(vlm: VLM) -> bytes:
    """Pickle a model just loaded; its tensors have no memory where it is `unpacked`."""
    from ray.cloudpickle import CloudPickler  # also takes what Accelerate puts around a module

    class Packing(CloudPickler):  # type: ignore[misc,unused-ignore]
        def reducer_override(self, one: Any) -> Any:
            if isinstance(one, torch.Tensor):
                more = one.dtype, isinstance(one, torch.nn.Parameter)
                return _without_memory, (tuple(one.shape), *more)
            return super().reducer_override(one)

    stream = io.BytesIO()
    Packing(stream).dump(vlm)
    return stream.getvalue()


def packed(value: Any, vlm: VLM) -> bytes:
    """Pickle a value but for its model and verbs: `unpacked` puts others there.

    Tensors of a device come to the CPU.
    """

    class Packing(pickle.Pickler):
        def persistent_id(self, one: Any) -> str | None:
            if isinstance(one, Verb):
                return one.name
            return "" if one is vlm else None

        def reducer_override(self, one: Any) -> Any:
            if isinstance(one, torch.Tensor) and one.device.type != "cpu":
                return torch.Tensor.cpu, (one.detach().cpu(),)
            return NotImplemented

    stream = io.BytesIO()
    Packing(stream, protocol=pickle.HIGHEST_PROTOCOL).dump(value)
    return stream.getvalue()


def unpacked(content: bytes, vlm: VLM | None = None) -> Any:
    """Return what was pickled, with a model where one was left out."""
    known = {verb.name: verb for verb in verbs()}

    class Unpacking(pickle.Unpickler):
        def persistent_load(self, name: str) -> VLM | Verb | None:
            return known[name] if name else vlm

    return Unpacking(io.BytesIO(content)).load()


def _without_memory(shape: tuple[int, ...], dtype: torch.dtype, parameter: bool) -> torch.Tensor:
    tensor = torch.empty(shape, dtype=dtype, device="meta")
    return torch.nn.Parameter(tensor, requires_grad=False) if parameter else tensor
