"""Devices that are not there: tensors that claim one, and computation that heeds the claim.

A `Claimed` tensor holds its numbers in a plain tensor of the CPU and says that it lies on ``xla:0``
or ``xla:1``. Its arithmetic is done on the CPU, but operands that claim different devices raise
torch's own error, as they would on two GPUs. So a model of any family can be spread over devices by
Accelerate's own hooks, and what forgets to move a tensor fails here as it would there.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import replace
from typing import Any

import pytest
import torch
from accelerate.hooks import attach_align_device_hook_on_blocks
from torch import Tensor, nn
from torch.nn import functional
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_map, tree_unflatten

from headpatch.models.vlm import VLM

CPU = torch.device("cpu")
FIRST, SECOND = torch.device("xla:0"), torch.device("xla:1")
"""Of a kind that torch starts no driver for, and that has no kernels of its own."""
_MAKE = torch.tensor
_ATEN = torch.ops.aten
_MOVES = {_ATEN._to_copy.default, _ATEN.copy_.default, _ATEN.copy.default}
_INDEXED = {  # indices may lie on the CPU, whatever they index
    _ATEN.index.Tensor, _ATEN.index_put.default, _ATEN.index_put_.default,
    _ATEN._index_put_impl_.default, _ATEN._unsafe_index.Tensor, _ATEN._unsafe_index_put.default,
}  # fmt: skip


class Claimed(Tensor):
    """A tensor that says it lies on another device; `inner` holds its numbers.

    To torch's own code it lies on the CPU: no driver is asked for.
    """

    inner: Tensor
    place: torch.device

    @staticmethod
    def __new__(cls, inner: Tensor, place: torch.device) -> "Claimed":
        made = Tensor._make_wrapper_subclass(
            cls,
            inner.shape,
            strides=inner.stride(),
            storage_offset=inner.storage_offset(),
            dtype=inner.dtype,
        )
        made.inner, made.place = inner, place
        return made

    def __repr__(self, **_: Any) -> str:
        return f"Claimed({self.inner!r}, device='{self.place}')"

    @property
    def device(self) -> torch.device:
        return self.place

    @property
    def data(self) -> Tensor:
        return self.detach()

    @data.setter
    def data(self, new: Tensor) -> None:
        Tensor.data.__set__(self, new)
        self.inner, self.place = new.inner, new.place

    def to(self, *args: Any, **kwargs: Any) -> Tensor:
        place, dtype = _asked(args, kwargs)
        place = place or self.place
        if place == self.place:
            return self if dtype in (None, self.dtype) else self.type(dtype)
        moved = _Moved.apply(self, place)
        return moved if dtype is None else moved.to(dtype)

    def cpu(self) -> Tensor:
        return self.to(CPU)

    def untyped_storage(self) -> Any:
        return self.inner.untyped_storage()

    def tolist(self) -> Any:
        return self.inner.tolist()

    def numpy(self, **_: Any) -> Any:
        raise TypeError(f"can't convert {self.place} device type tensor to numpy")

    @classmethod
    def __torch_function__(cls, call: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if call is Tensor.to and not isinstance(args[0], Claimed):  # to where another one is
            place, dtype = _asked(args[1:], kwargs)
            return args[0].to(place).to(dtype or args[0].dtype)
        if call is functional.scaled_dot_product_attention:
            tensors = [one for one in (*args, *kwargs.values()) if isinstance(one, Tensor)]
            if any(one.requires_grad for one in tensors):
                return _attended(*args, **kwargs)
            return _run(call, args, kwargs)
        with torch._C.DisableTorchFunctionSubclass():
            return call(*args, **kwargs)

    @classmethod
    def __torch_dispatch__(cls, call: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _run(call, args, kwargs or {})


class Devices(TorchDispatchMode):
    """While it is open, tensors can be made on the devices and moved to them."""

    def __torch_dispatch__(self, call: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _run(call, args, kwargs or {})


class _Moved(torch.autograd.Function):
    """A copy elsewhere, whose gradient comes back."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, place: torch.device) -> Tensor:
        ctx.back = x.device
        inner = x.inner if isinstance(x, Claimed) else x
        return inner.clone() if place == CPU else Claimed(inner.clone(), place)

    @staticmethod
    def backward(ctx: Any, slope: Tensor) -> Any:
        return slope.to(ctx.back), None


def _tensor(*args: Any, device: Any = None, **kwargs: Any) -> Tensor:
    """Make a tensor of numbers: torch's own way there is not asked of any mode."""
    args = tree_map(lambda one: one.inner if isinstance(one, Claimed) else one, args)
    return _MAKE(*args, **kwargs).to(CPU if device is None else device)


def _asked(args: Any, kwargs: Any) -> tuple[torch.device | None, torch.dtype | None]:
    """Return the device and dtype that `Tensor.to` is asked for."""
    first = args[0] if args else kwargs.get("other")
    if isinstance(first, Tensor):
        return first.device, first.dtype
    every = [*args, kwargs.get("device"), kwargs.get("dtype")]
    dtype = next((one for one in every if isinstance(one, torch.dtype)), None)
    where = (torch.device(one) for one in every if isinstance(one, str | torch.device))
    return next(where, None), dtype


def _attended(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Tensor:
    """Attend by its formula, with gradients: torch's own makes masks where it believes all lies."""
    if enable_gqa:
        group = query.shape[1] // key.shape[1]
        key, value = key.repeat_interleave(group, 1), value.repeat_interleave(group, 1)
    scores = query @ key.transpose(-2, -1) * (query.shape[-1] ** -0.5 if scale is None else scale)
    if is_causal:
        size = query.shape[2], key.shape[2]
        attn_mask = torch.ones(size, dtype=torch.bool, device=query.device).tril()
    if attn_mask is not None and attn_mask.dtype == torch.bool:
        scores = scores.masked_fill(~attn_mask, -torch.inf)
    elif attn_mask is not None:
        scores = scores + attn_mask
    return scores.softmax(-1).nan_to_num(0.0) @ value


def _run(call: Any, args: Any, kwargs: Mapping[str, Any]) -> Any:
    """Do on the CPU what is asked; results lie where operands do, or where they are made."""
    flat, form = tree_flatten((args, dict(kwargs)))
    tensors = [one for one in flat if isinstance(one, Tensor)]
    place, asked = _place(call, args, tensors), kwargs.get("device")
    # Torch's own code asks for where it believes an operand to lie.
    if asked is not None and not (torch.device(asked) == CPU and tensors):
        place = torch.device(asked)
    wrapped = {id(one.inner): one for one in tensors if isinstance(one, Claimed)}
    plain = [one.inner if isinstance(one, Claimed) else one for one in flat]
    inner_args, inner_kwargs = tree_unflatten(plain, form)
    if asked is not None:
        inner_kwargs["device"] = CPU
    found = call(*inner_args, **inner_kwargs)

    def wrap(one: Any) -> Any:
        if not isinstance(one, Tensor):
            return one
        if id(one) in wrapped:  # changed in place
            return wrapped[id(one)]
        return one if place == CPU else Claimed(one, place)

    return tree_map(wrap, found)


def _place(call: Any, args: Any, tensors: list[Tensor]) -> torch.device:
    """Return where operands lie; torch's own error where that is in two places."""
    if call in _MOVES:
        return args[0].device
    told = tensors
    if call in _INDEXED:
        told = [args[0], *(one for one in args[1] if one is not None and one.device != CPU)]
        told += [one for one in args[2:3] if isinstance(one, Tensor)]
    places = {one.device for one in told if one.ndim or one.device != CPU}
    if len(places) > 1:
        two = " and ".join(sorted(map(str, places)))
        raise RuntimeError(
            f"Expected all tensors to be on the same device, but found at least two devices, {two}!"
            f" ({call})"
        )
    return places.pop() if places else CPU


@contextmanager
def devices() -> Iterator[None]:
    """Let tensors lie on `FIRST` and `SECOND`; inference mode, which has no such views, is off."""
    with pytest.MonkeyPatch.context() as patch, Devices():
        patch.setattr(torch, "inference_mode", torch.no_grad)
        patch.setattr(torch, "tensor", _tensor)
        yield


def halves(vlm: VLM) -> dict[str, torch.device]:
    """Put the first half of each tower's layers on `FIRST` and the second on `SECOND`.

    The unembedding and the norm before it go with the second half, everything else with the first.
    """
    places: dict[int, torch.device] = {}
    for tower in filter(None, (vlm.lm, vlm.vision)):
        for index, layer in enumerate(tower.layers):
            places[id(layer)] = (FIRST, SECOND)[2 * index >= len(tower.layers)]
    places |= {id(vlm.final_norm): SECOND, id(vlm.unembedding): SECOND}
    return dict(_parts(vlm.model, "", places))


def _parts(
    module: nn.Module, name: str, places: Mapping[int, torch.device]
) -> Iterator[tuple[str, torch.device]]:
    """Yield the largest modules that lie in one place, and parameters that are beside some."""
    if id(module) in places:
        yield name, places[id(module)]
    elif not any(id(part) in places for part in module.modules()):
        yield name, FIRST
    else:
        start = f"{name}." if name else ""
        yield from ((start + own, FIRST) for own, _ in module.named_parameters(recurse=False))
        for own, child in module.named_children():
            yield from _parts(child, start + own, places)


def spread(vlm: VLM, places: Mapping[str, torch.device] | None = None) -> VLM:
    """Return a copy of a model, spread over devices by Accelerate's hooks; within `devices` only.

    `places` names modules that together hold every weight; None is `halves`.
    """
    places = halves(vlm) if places is None else places
    model: Any = deepcopy(vlm.model)
    for name, place in places.items():
        parent, _, own = name.rpartition(".")
        module = model.get_submodule(parent)
        if own in module._parameters:
            _claim(module, place, [own])
            continue
        for part in getattr(module, own).modules():
            _claim(part, place)
    attach_align_device_hook_on_blocks(model, dict(places))
    model.hf_device_map = dict(places)
    copy = replace(vlm, model=model)
    if "family" in vlm.__dict__:
        copy.__dict__["family"] = vlm.family
    return copy


def _claim(module: nn.Module, place: torch.device, only: Sequence[str] = ()) -> None:
    if place == CPU:
        return
    for name, weight in module.named_parameters(recurse=False):
        if not only or name in only:
            made = nn.Parameter(Claimed(weight.data, place), requires_grad=False)
            module._parameters[name] = made
    for name, buffer in module.named_buffers(recurse=False):
        if not only:
            module._buffers[name] = Claimed(buffer, place)
