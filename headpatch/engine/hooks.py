"""Heads changed by a torch hook in the model's own forward pass: what headpatch is held against.

Nothing here knows `headpatch.models.families`, the registered attention function or its taps. The
text model is the module that holds the input embeddings. An attention is a module that is called
one and has linear layers of its own; the one that runs last in it is its output projection, whose
input is z. Layers count in the order in which they run.
"""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any, TypeAlias, cast

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from headpatch.engine.attention import implemented
from headpatch.engine.precision import is_low, raised
from headpatch.heads import Tower
from headpatch.models.prompt import Prompt
from headpatch.models.vlm import VLM

Projections: TypeAlias = dict[Tower, list[nn.Module]]
"""By tower: each layer's attention output projection, in the order in which layers run."""
OnZ: TypeAlias = Callable[[Tower, int, Float[Tensor, "tokens width"]], None]
"""Called with what enters the projection of a layer: the heads' z side by side."""


def observe(vlm: VLM, prompt: Prompt, on_z: OnZ) -> tuple[float, Projections]:
    """Run one run untouched.

    Parameters
    ----------
    prompt
        Of one run.

    Returns
    -------
    LD, and the projections that ran.
    """
    inside = set(_text_model(vlm).modules())
    found: Projections = {"lm": [], "vision": []}
    last: dict[nn.Module, tuple[nn.Module, Tensor]] = {}

    def entered(attention: nn.Module) -> Callable[[nn.Module, tuple[Any, ...]], None]:
        def keep(linear: nn.Module, args: tuple[Any, ...]) -> None:
            last[attention] = linear, args[0]

        return keep

    def left(attention: nn.Module, _: tuple[Any, ...], __: Any) -> None:
        if attention in last:
            linear, z = last.pop(attention)
            tower: Tower = "lm" if attention in inside else "vision"
            on_z(tower, len(found[tower]), z.flatten(0, -2))
            found[tower].append(linear)

    with ExitStack() as stack:
        for attention, linears in _attentions(vlm.model):
            for linear in linears:
                handle = linear.register_forward_pre_hook(entered(attention))
                stack.callback(handle.remove)
            stack.callback(attention.register_forward_hook(left).remove)
        return _ld(vlm, prompt), found


def changed(
    vlm: VLM,
    prompt: Prompt,
    projection: nn.Module,
    positions: Int[Tensor, " positions"],
    value: Float[Tensor, "positions width"],
) -> float:
    """Return LD of one run with `value` in place of a layer's z.

    Parameters
    ----------
    positions
        Tokens, counted through all rows of the projection's input.
    """

    def replace(_: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...]:
        z = args[0].clone(memory_format=torch.contiguous_format)
        z.view(-1, z.shape[-1])[positions.to(z.device)] = value.to(z.device, z.dtype)
        return (z, *args[1:])

    handle = projection.register_forward_pre_hook(replace)
    try:
        return _ld(vlm, prompt)
    finally:
        handle.remove()


@torch.no_grad()
def _ld(vlm: VLM, prompt: Prompt) -> float:
    """Return LD of a plain forward pass of one run, in float32."""
    low = is_low(vlm)
    inputs = {
        key: value.float() if low and value.is_floating_point() else value
        for key, value in prompt.inputs.items()
    }
    with implemented(vlm.parts, _own_attention(vlm)), raised(vlm):
        output = vlm.model(**inputs, use_cache=False, logits_to_keep=1)
    logits = output.logits[0, -1].float()
    return float(logits[prompt.answers.yes] - logits[prompt.answers.no])


def _own_attention(vlm: VLM) -> str:
    """Name the implementation of transformers' that computes what the model means."""
    capped = any(
        getattr(part.config, "attn_logit_softcapping", None) is not None for part in vlm.parts
    )
    fast = all(getattr(part, "_supports_sdpa", False) for part in vlm.parts)
    return "sdpa" if fast and not capped else "eager"  # sdpa leaves caps out


def _text_model(vlm: VLM) -> nn.Module:
    embedding, modules = vlm.model.get_input_embeddings(), cast("nn.Module", vlm.model).modules()
    return next(
        module for module in modules if any(child is embedding for child in module.children())
    )


def _attentions(model: nn.Module) -> Iterator[tuple[nn.Module, list[nn.Module]]]:
    for module in model.modules():
        name = type(module).__name__.lower()
        if "attention" in name or "attn" in name:
            linears = [child for child in module.children() if hasattr(child, "in_features")]
            if linears:
                yield module, linears
