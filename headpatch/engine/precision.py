"""Float32 results over bfloat16 or float16 weights.

Plain low precision rounds the residual stream as coarsely as most heads move it. Here the weights
stay as they are, and only they: the stream, norms, softmax and logits are float32, and so are the
products, each in one of two ways.

*Raised* (`raised`), for a whole pass: a float32 input is cut into two low-precision parts, high and
low, that are multiplied apart and added in float32 (about 16 bits of mantissa).

*As deviations* (`deviating`), for rows that differ little from an untouched run: a linear layer
gives W x = W x0 + W (x - x0), where the first term is kept from the raised run and the second is
rounded relative to the deviation itself. So an effect carries the relative error of one
low-precision product, however small it is beside the logits.
"""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from headpatch.models.vlm import VLM

LOW = (torch.bfloat16, torch.float16)


def is_low(vlm: VLM) -> bool:
    """Whether the model's weights are of low precision."""
    return vlm.dtype in LOW


@dataclass(eq=False)
class Points:
    """Where each linear layer of the decoder stood in an untouched run, from one position on.

    Attributes
    ----------
    start
        First position kept.
    low
        The weights' dtype.
    inputs, outputs
        Float32, ``[runs, suffix, width]``.
    """

    start: int
    low: torch.dtype
    inputs: dict[nn.Module, Tensor] = field(default_factory=dict)
    outputs: dict[nn.Module, Tensor] = field(default_factory=dict)

    def run(self, index: int) -> "Points":
        """Return one run of the batch."""
        one = slice(index, index + 1)
        return Points(
            self.start,
            self.low,
            {module: value[one] for module, value in self.inputs.items()},
            {module: value[one] for module, value in self.outputs.items()},
        )


@contextmanager
def raised(vlm: VLM, points: Points | None = None) -> Iterator[None]:
    """Compute in float32 over the weights as they are; keep `points` of the decoder's layers.

    Nothing changes for a float32 model. On leaving, also after an exception, every weight is the
    very tensor that it was.
    """
    if not is_low(vlm):
        yield
        return

    def linear(module: nn.Linear) -> Callable[[Tensor], Tensor]:
        def run(x: Tensor) -> Tensor:
            y = split_product(x.float(), module.weight)
            if module.bias is not None:
                y = y + module.bias.float()
            if points is not None:
                at = slice(None) if module is head else slice(points.start, None)  # answer only
                points.inputs[module], points.outputs[module] = x.float()[:, at], y[:, at]
            return y

        return run

    head = vlm.model.get_output_embeddings()
    embedding = vlm.model.get_input_embeddings()
    looked_up = embedding.forward
    with ExitStack() as stack:
        for module in _linears(vlm):
            stack.enter_context(replaced(module, linear(module)))
        stack.enter_context(replaced(embedding, lambda ids: looked_up(ids).float()))
        stack.enter_context(_in_float32(vlm))
        yield


@contextmanager
def deviating(vlm: VLM, points: Points | None) -> Iterator[None]:
    """Compute rows as deviations from one run's `points`; nothing changes where there are none."""
    if points is None:
        yield
        return

    last: list[tuple[Tensor, Tensor]] = []  # q, k and v have one input, gate and up another

    def linear(module: nn.Linear) -> Callable[[Tensor], Tensor]:
        x0, y0 = points.inputs[module], points.outputs[module]

        def run(x: Tensor) -> Tensor:
            if not last or last[0][0] is not x:
                last[:] = [(x, (x - x0).to(module.weight.dtype))]
            return product(last[0][1], module.weight).add_(y0)

        return run

    head = vlm.model.get_output_embeddings()
    with ExitStack() as stack:
        for module in _linears(vlm):
            if module is not head:
                stack.enter_context(replaced(module, linear(module)))
        yield


def product(x: Tensor, weight: Tensor) -> Tensor:
    """Return x Wᵀ of low-precision operands, accumulated and returned in float32."""
    if x.device.type != "cuda":
        return functional.linear(x.float(), weight.float())
    flat: Tensor = torch.mm(x.flatten(0, -2), weight.t(), out_dtype=torch.float32)
    return flat.view(*x.shape[:-1], -1)


def batched_product(
    a: Float[Tensor, "batch m k"], b: Float[Tensor, "batch k n"]
) -> Float[Tensor, "batch m n"]:
    """Return a b of low-precision operands, accumulated and returned in float32."""
    if a.device.type != "cuda":
        return a.float() @ b.float()
    return torch.bmm(a, b, out_dtype=torch.float32)


def split_product(x: Tensor, weight: Tensor) -> Tensor:
    """Return x Wᵀ of a float32 x and a low-precision W, to about 16 bits."""
    if x.device.type != "cuda" or weight.dtype not in LOW:
        return functional.linear(x, weight.float())
    high = x.to(weight.dtype)
    low = (x - high.float()).to(weight.dtype)
    both = product(torch.stack([high, low]), weight)
    return both[0] + both[1]


def _linears(vlm: VLM) -> list[nn.Linear]:
    """The decoder's linear layers and the unembedding, as far as their weights are plain."""
    found = [module for layer in vlm.lm.layers for module in layer.modules()]
    found.append(vlm.model.get_output_embeddings())
    return [
        module for module in found if isinstance(module, nn.Linear) and module.weight.dtype in LOW
    ]


@contextmanager
def replaced(module: nn.Module, run: Callable[..., Tensor]) -> Iterator[None]:
    """Let `module` do `run` in place of its own forward."""
    before = module.__dict__.get("forward")
    hook: Any = getattr(module, "_hf_hook", None)

    def hooked(x: Tensor) -> Tensor:  # Accelerate's hooks bring offloaded weights in
        (x,), _ = hook.pre_forward(module, x)
        y: Tensor = hook.post_forward(module, run(x))
        return y

    module.__dict__["forward"] = run if hook is None else hooked
    try:
        yield
    finally:
        if before is None:
            del module.__dict__["forward"]
        else:
            module.__dict__["forward"] = before


@contextmanager
def _in_float32(vlm: VLM) -> Iterator[None]:
    """Hold everything before the decoder (vision tower, projector) in float32: it is small.

    What Accelerate has put on disk stays in low precision, the same in every pass.
    """
    body = vlm.model.model
    parts = [part for part in body.children() if part is not vlm.decoder]
    stored = [
        (tensor, tensor.data)
        for part in parts
        for tensor in (*part.parameters(), *part.buffers())
        if tensor.dtype in LOW and not tensor.is_meta
    ]
    try:
        for tensor, data in stored:
            tensor.data = data.float()
        yield
    finally:
        for tensor, data in stored:
            tensor.data = data
