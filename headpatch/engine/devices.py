"""What a pass brings to its layers where they lie on several devices.

Accelerate moves what enters a module to where that computes, for each module anew. What layers
share (a mask, rotary embeddings) is moved here instead, once a device, and before anything looks at
it: so whatever is kept of a layer lies where the layer computes, and is not moved again.
"""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from headpatch.models.vlm import VLM


@contextmanager
def brought_to_layers(vlm: VLM) -> Iterator[None]:
    """Let whatever enters a decoder layer lie on its device, before any other hook sees it."""
    if len(set(vlm.devices())) == 1:
        yield
        return
    with ExitStack() as stack:
        moved: dict[tuple[int, torch.device], tuple[Tensor, Tensor]] = {}
        for layer, device in zip(vlm.lm.layers, vlm.lm.devices(), strict=True):
            bring = _bring(device, moved)
            handle = layer.register_forward_pre_hook(bring, prepend=True, with_kwargs=True)
            stack.callback(handle.remove)
        yield


def _bring(
    device: torch.device, moved: dict[tuple[int, torch.device], tuple[Tensor, Tensor]]
) -> Callable[..., tuple[tuple[Any, ...], dict[str, Any]]]:
    def shared(one: Tensor) -> Tensor:
        if one.device == device:
            return one
        key = id(one), device
        if key not in moved:
            moved[key] = one, one.to(device)  # held, so that an id stays one tensor's
        return moved[key][1]

    def bring(
        _: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        own = tuple(one.to(device) if isinstance(one, Tensor) else one for one in args)
        options = {name: on_tensors(value, shared) for name, value in kwargs.items()}
        return own, options

    return bring


def on_tensors(value: Any, change: Callable[[Tensor], Tensor]) -> Any:
    """Change every tensor of a tensor, tuple or list of them; leave anything else."""
    if isinstance(value, tuple | list):
        return type(value)(on_tensors(one, change) for one in value)
    return change(value) if isinstance(value, Tensor) else value
