"""Whether headpatch's own way of changing a tower's heads does what a plain torch hook does.

The fast paths are compared with headpatch's plain path (`headpatch.engine.selfcheck`); this
compares the plain path with the model itself, so that a wrong entry in
`headpatch.models.families`, for instance, does not give wrong numbers without a word.

The hooks know nothing of that module, the registered attention function or its taps. The text model
is the module that holds the input embeddings. An attention is a module that is called one and has
linear layers of its own; the one that runs last in it is its output projection, whose input is z.
Layers count in the order in which they run.
"""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any, TypeAlias, cast
from weakref import WeakKeyDictionary

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from headpatch.engine.interventions import Intervention
from headpatch.engine.patching import WITHOUT, Baseline, patch
from headpatch.engine.precision import answer_logits, is_low, raised
from headpatch.errors import InputError, RunError
from headpatch.heads import Head, HeadSet, Tower
from headpatch.models.prompt import Prompt
from headpatch.models.spans import Positions
from headpatch.models.vlm import VLM, Stack, implemented

HEADS_OF: dict[Tower, str] = {
    "lm": "heads of the language model",
    "vision": "heads of the vision tower",
}
_GAIN = 10.0  # times a head's own z: unchanged heads may do less than rounding
_CLOSE = {True: 0.05, False: 1e-3}  # over low-precision weights or not; a share
_FAILED = (RunError, RuntimeError, TypeError, ValueError, LookupError, AttributeError)
_known: WeakKeyDictionary[VLM, dict[Tower, str]] = WeakKeyDictionary()


def why_not(vlm: VLM, base: Baseline, tower: Tower, positions: Positions = "answer") -> str:
    """Say why a tower's heads cannot be controlled in this model; "" if they can.

    In one plain forward pass of the without-run, what enters each attention output projection must
    be the z that headpatch keeps, and LD headpatch's. In a second one a hook puts 2 to 10 times its
    own z in the place of each head of a layer in the middle; headpatch does the same, and LD must
    move alike. Done once for a model and tower; `base` must keep z of the tower.
    """
    known = _known.setdefault(vlm, {})
    if tower not in known:
        try:
            known[tower] = _compared(vlm, base, tower, positions)
        except (torch.OutOfMemoryError, InputError):
            raise
        except _FAILED as error:
            said = str(error).strip().partition("\n")[0]
            known[tower] = f"it does not run plainly ({type(error).__name__}: {said})"
    return known[tower]


def refuse_uncontrolled(
    vlm: VLM, base: Baseline, tower: Tower, positions: Positions = "answer"
) -> None:
    """Refuse to change heads that `why_not` says cannot be controlled."""
    if why := why_not(vlm, base, tower, positions):
        expected = "a model in which headpatch changes heads as a hook on their output projection"
        raise InputError(HEADS_OF[tower], uncontrolled(vlm, why), f"{expected} does")


def uncontrolled(vlm: VLM, why: str) -> str:
    """Say that heads cannot be controlled, and why."""
    return f"headpatch cannot control them in {vlm.name}: {why}"


def _compared(vlm: VLM, base: Baseline, tower: Tower, positions: Positions) -> str:
    base = base.seen_from(WITHOUT)
    kept, close, stack = base.trace.z[tower], _CLOSE[is_low(vlm)], vlm.stack(tower)
    layers = stack.grid.with_heads
    outputs = {stack.outputs[layer]: layer for layer in layers}
    wrong: list[int] = []

    def compare(where: Tower, projection: nn.Module, z: Tensor) -> None:
        layer = outputs.get(projection) if where == tower else None
        if layer is not None and not _alike(z, kept[layer][WITHOUT], close):
            wrong.append(layer)

    prompt = base.prompt.select(WITHOUT)
    untouched, projections = observe(vlm, prompt, compare)
    ran = projections[tower]
    if tower == "vision":  # of what runs beside its layers (another tower, a pooler), neither
        beside = _beside(vlm, stack)
        ran = [one for one in ran if one in beside]
    if stack.grid.without:  # of what runs in layers without heads nothing is claimed
        ran = [one for one in ran if one in outputs]
    ran = ran[: len(layers)]
    if len(ran) < len(layers):
        return f"{len(ran)} attention layers ran, not {len(layers)}"
    if off := [layer for layer, one in zip(layers, ran, strict=True) if outputs.get(one) != layer]:
        return f"what it knows as the output projection of layer {off[0]} is another module"
    size = max(1.0, abs(untouched))
    if not abs(untouched - base.ld_without) <= close * size:
        said = f"its untouched LD is {base.ld_without:+.3f}, that of the model {untouched:+.3f}"
        together = untouched if base.prompt.each else _ld(vlm, base.prompt, WITHOUT)
        if abs(together - base.ld_without) <= close * size:
            return f"{said}: the model mixes runs that it is given at once"
        return said
    if wrong:
        return (
            f"what it keeps of layer {wrong[0]} is not what enters that layer's attention output "
            "projection"
        )
    heads = _chosen(vlm, tower)
    layer = heads[0].layer
    put = [z[WITHOUT] for z in kept]
    put[layer] = put[layer] * torch.linspace(2, _GAIN, len(heads))[:, None].to(put[layer])
    asked = Intervention(HeadSet(heads), "mean", "denoising", positions)
    (own,) = patch(vlm, base, [asked], {tower: put})
    where = torch.arange(len(put[layer]))
    if tower == "lm":
        where = base.prompt.spans.positions(positions)
    value = put[layer][where.to(put[layer].device)].flatten(1)
    effect = changed(vlm, prompt, stack.outputs[layer], where, value) - untouched
    if not abs(effect - own.effect) <= close * max(size, abs(effect)):
        return (
            f"changing layer {layer} as it does moves LD by {own.effect:+.3f}, a hook on the "
            f"output projection by {effect:+.3f}"
        )
    return ""


def _beside(vlm: VLM, stack: Stack) -> set[nn.Module]:
    """Return every module of the lists that a stack's layers are in."""
    layers, model = set(stack.layers), cast("nn.Module", vlm.model)
    holders = [one for one in model.modules() if not layers.isdisjoint(one.children())]
    return {part for holder in holders for part in holder.modules()}


def _chosen(vlm: VLM, tower: Tower) -> tuple[Head, ...]:
    """Return the heads of a layer in the middle of those that are read."""
    grid = vlm.stack(tower).grid
    layers = grid.with_heads
    if tower == "vision" and vlm.feature_layer is not None:
        layers = layers[: vlm.feature_layer + 1]
    layer = layers[len(layers) // 2]
    return tuple(Head(layer, head, tower) for head in range(grid.heads))


def _alike(hooked: Tensor, kept: Tensor, close: float) -> bool:
    z = kept.flatten(1).to(hooked)
    return hooked.shape == z.shape and bool(
        torch.linalg.vector_norm(hooked - z) <= close * torch.linalg.vector_norm(hooked)
    )


Projections: TypeAlias = dict[Tower, list[nn.Module]]
"""By tower: each layer's attention output projection, in the order in which layers run."""
OnZ: TypeAlias = Callable[[Tower, nn.Module, Float[Tensor, "tokens width"]], None]
"""Called with a projection and what enters it: the heads' z side by side."""


def observe(vlm: VLM, prompt: Prompt, on_z: OnZ) -> tuple[float, Projections]:
    """Run one run untouched; return LD, and the projections that ran."""
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
            on_z(tower, linear, z.flatten(0, -2))
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

    `positions` are tokens, counted through all rows of the projection's input.
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
def _ld(vlm: VLM, prompt: Prompt, run: int = 0) -> float:
    """Return LD of one run in a plain forward pass over all of a prompt's, in float32."""
    dtype = torch.float32 if is_low(vlm) else vlm.dtype
    with implemented(vlm.parts, _own_attention(vlm)), raised(vlm):
        logits = answer_logits(vlm, prompt, dtype)[run]
    return float(prompt.answers.ld(logits))


def _own_attention(vlm: VLM) -> str:
    """Name the implementation of transformers' that computes what the model means."""
    caps = (getattr(part.config, "attn_logit_softcapping", None) for part in vlm.parts)
    capped = any(cap is not None for cap in caps)
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
            linears = [part for child in module.children() for part in _linear(child)]
            if linears:
                yield module, linears


def _linear(module: nn.Module) -> list[nn.Module]:
    """Return a module if it is a linear layer, or one that it only clips (Gemma 4's tower)."""
    inner = list(module.children())
    found = module if hasattr(module, "in_features") or len(inner) != 1 else inner[0]
    return [found] if hasattr(found, "in_features") else []
