"""Float32 results over bfloat16 or float16 weights.

Plain low precision rounds the residual stream as coarsely as most heads move it. Here the weights
stay as they are, and only they: the stream, norms, softmax and logits are float32, and so are the
products, each in one of two ways.

*Raised* (`raised`), for a whole pass: a float32 input is cut into two low-precision parts, high and
low, that are multiplied apart and added in float32 (about 16 bits of mantissa).

*As deviations* (`headpatch.engine.delta_forward`), for rows that differ little from an untouched
run: only what a row has beyond that run is carried and multiplied, so an effect has the relative
error of low-precision products, however small it is beside the logits.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any, TypeGuard
from weakref import WeakKeyDictionary, WeakSet

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from headpatch.engine.devices import brought_to_layers
from headpatch.models.joined import joined
from headpatch.models.prompt import Prompt
from headpatch.models.vlm import VLM

LOW = (torch.bfloat16, torch.float16)


def is_low(vlm: VLM) -> bool:
    """Whether the model's weights are of low precision."""
    return vlm.dtype in LOW


def low_linear(module: nn.Module) -> TypeGuard[nn.Linear]:
    """Whether `module` is a linear layer of plain low-precision weights."""
    return isinstance(module, nn.Linear) and module.weight.dtype in LOW


_raised: "WeakSet[nn.Module]" = WeakSet()
"""Models that compute in float32 now."""
_raisings: "WeakKeyDictionary[nn.Module, _Raising]" = WeakKeyDictionary()
"""What to do for it, of models whose passes are recorded."""


@contextmanager
def raised(vlm: VLM) -> Iterator[None]:
    """Compute in float32 over the weights as they are.

    Nothing changes for a float32 model, nor inside of another such context: one round many passes
    saves what entering it costs. On leaving, also after an exception, every weight is the very
    tensor that it was.
    """
    if not is_low(vlm) or vlm.model in _raised:
        yield
        return
    raising = _raisings.get(vlm.model) or _Raising(vlm)
    with swapped(raising.runs), raising.in_float32():
        _raised.add(vlm.model)
        try:
            yield
        finally:
            _raised.discard(vlm.model)
            raising.last.clear()


@contextmanager
def kept_raised(vlm: VLM) -> Iterator[None]:
    """Keep what `raised` makes for later passes, also where it lies; weights stay as they are."""
    if not is_low(vlm) or vlm.model in _raisings:
        yield
        return
    raising = _raisings[vlm.model] = _Raising(vlm)
    raising.copies = {}
    try:
        yield
    finally:
        del _raisings[vlm.model]


def raising_runs(vlm: VLM) -> "Runs":
    """Return what modules do while a model is raised whose passes are recorded."""
    return _raisings[vlm.model].runs if vlm.model in _raisings else ()


class _Raising:
    """What it takes to compute in float32 over a model's weights."""

    def __init__(self, vlm: VLM) -> None:
        self.last: list[tuple[Tensor, Tensor]] = []  # q, k, v have one input, gate and up another
        self.copies: dict[int, Tensor] | None = None  # those in float32, by the weight's `id`
        embedding = vlm.model.get_input_embeddings()
        looked_up = embedding.forward
        linears = [module for layer in vlm.lm.layers for module in layer.modules()]
        runs = [(one, self._linear(one)) for one in (*linears, vlm.unembedding) if low_linear(one)]
        runs.append((embedding, lambda ids: looked_up(ids).float()))
        self.runs = [(module, _brought(module, run)) for module, run in runs]
        # Everything before the decoder (vision tower, projector) is held in float32: it is small.
        body = vlm.model.model
        self._low = [
            (kept, name, tensor)
            for part in body.children()
            if part is not vlm.decoder
            for module in part.modules()
            for kept in (module._parameters, module._buffers)
            for name, tensor in kept.items()
            if tensor is not None and tensor.dtype in LOW
        ]

    def _linear(self, module: nn.Linear) -> Callable[[Tensor], Tensor]:
        last = self.last

        def run(x: Tensor) -> Tensor:
            if x.device.type != "cuda":
                y = split_product(x.float(), module.weight)
            else:
                if not last or last[-1][0] is not x:
                    last[:] = [(x, split(x.float(), module.weight.dtype))]
                y = _both(last[-1][1], module.weight)
            bias: Tensor | None = module.bias
            return y if bias is None else y + bias.float()

        return run

    @contextmanager
    def in_float32(self) -> Iterator[None]:
        """Hold what lies before the decoder in float32."""
        low = [(kept, name, tensor, tensor.data) for kept, name, tensor in self._low]
        try:
            for _, _, tensor, data in low:
                # What Accelerate has offloaded is brought in with the dtype of what stands there
                tensor.data = self._copy(tensor, data)
            yield
        finally:
            for kept, name, tensor, data in low:
                tensor.data = data
                kept[name] = tensor  # in the place of what Accelerate has put there

    def _copy(self, tensor: Tensor, data: Tensor) -> Tensor:
        if self.copies is None:
            return data.float()
        if (copy := self.copies.get(id(tensor))) is None:
            copy = self.copies[id(tensor)] = data.float()
        return copy


def answer_logits(vlm: VLM, prompt: Prompt, dtype: torch.dtype) -> Float[Tensor, "runs vocabulary"]:
    """Run the model on inputs of `dtype`; return its logits at the last position, float32."""
    inputs = {
        key: value.to(dtype) if value.is_floating_point() else value
        for key, value in prompt.inputs.items()
    }
    with brought_to_layers(vlm):
        output = vlm.model(**joined(inputs), use_cache=False, logits_to_keep=1)
    logits: Tensor = output.logits[:, -1].float()
    return logits


def product(x: Tensor, weight: Tensor) -> Tensor:
    """Return x Wᵀ of low-precision operands, accumulated and returned in float32."""
    if x.device.type != "cuda":
        return functional.linear(x.float(), weight.float())
    flat: Tensor = torch.mm(x.flatten(0, -2), weight.t(), out_dtype=torch.float32)
    return flat.view(*x.shape[:-1], -1)


def batched_product(
    a: Float[Tensor, "batch m k"],
    b: Float[Tensor, "batch k n"],
    out: Float[Tensor, "batch m n"] | None = None,
) -> Float[Tensor, "batch m n"]:
    """Return a b of operands of one dtype, accumulated and returned in float32 (into `out`)."""
    if a.device.type != "cuda" or a.dtype not in LOW:
        return torch.bmm(a.float(), b.float(), out=out)
    if out is None:
        return torch.bmm(a, b, out_dtype=torch.float32)
    return torch.bmm(a, b, out_dtype=torch.float32, out=out)


def split_product(x: Tensor, weight: Tensor) -> Tensor:
    """Return x Wᵀ of a float32 x and a low-precision W, to about 16 bits."""
    if x.device.type != "cuda" or weight.dtype not in LOW:
        return functional.linear(x, weight.float())
    return _both(split(x, weight.dtype), weight)


def split(x: Tensor, low: torch.dtype) -> Float[Tensor, "2 *shape"]:
    """Cut a float32 tensor into its rounded value and the rest, both low."""
    parts = x.new_empty(2, *x.shape, dtype=low)
    parts[0] = x
    torch.sub(x, parts[0], out=parts[1])
    return parts


def _both(parts: Float[Tensor, "2 *shape"], weight: Tensor) -> Tensor:
    both = product(parts, weight)
    return both[0].add_(both[1])


def lowered_difference(a: Tensor, b: Tensor, low: torch.dtype) -> Tensor:
    """Return a - b, of the shape of `a`, rounded once."""
    return torch.sub(a, b, out=torch.empty_like(a, dtype=low))


@contextmanager
def weights_there(module: nn.Module) -> Iterator[None]:
    """Have the weights of `module` where it computes, also if Accelerate has offloaded them."""
    hook: Any = getattr(module, "_hf_hook", None)
    if hook is None:
        yield
        return
    hook.pre_forward(module)
    try:
        yield
    finally:
        hook.post_forward(module, None)


Runs = Sequence[tuple[nn.Module, Callable[..., Any]]]
"""What modules do in place of their own forward."""


def replaced(runs: Runs) -> AbstractContextManager[None]:
    """Let modules do something else than their own forward; offloaded weights are brought in."""
    return swapped([(module, _brought(module, run)) for module, run in runs])


def _brought(module: nn.Module, run: Callable[..., Any]) -> Callable[..., Any]:
    hook: Any = getattr(module, "_hf_hook", None)
    if hook is None:
        return run

    def hooked(x: Tensor) -> Any:  # Accelerate's hooks bring offloaded weights in
        (x,), _ = hook.pre_forward(module, x)
        return hook.post_forward(module, run(x))

    return hooked


@contextmanager
def swapped(runs: Runs) -> Iterator[None]:
    """Let modules do something else than their own forward and Accelerate's hooks round it."""
    # All at once: a context for each of hundreds of modules takes longer than what they compute.
    before = [(module.__dict__, module.__dict__.get("forward")) for module, _ in runs]
    try:
        for module, run in runs:
            module.__dict__["forward"] = run
        yield
    finally:
        for own, forward in reversed(before):
            if forward is None:
                own.pop("forward", None)
            else:
                own["forward"] = forward
