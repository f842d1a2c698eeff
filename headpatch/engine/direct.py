"""Direct logit attribution: what each part of the language model itself adds to LD.

At the answer position the residual stream is a sum: the token's embedding, and what each head and
each MLP has written. The final norm multiplies it by a gain and a scale, the unembedding takes
logit(Yes) - logit(No) of it. With the scale held where the run has it (frozen), LD is linear in the
stream, and so is a sum over the parts, exactly:

    LD = scale · (embedding + Σ heads + Σ MLPs + Σ biases) · (gain ⊙ (W_U[yes] - W_U[no])) + b

with a head's write z · W_O (nostalgebraist, *interpreting GPT: the logit lens*, 2020; Elhage et
al., *A Mathematical Framework for Transformer Circuits*, 2021). Where a layer norms what attention
gives before it adds it (Gemma 2 and 3), that norm's scale is frozen too. LD is meant before a soft
cap of the logits, where a model has one.

It says what is written, not what matters: a later part may read it, cancel it or repeat it.
"""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from headpatch.engine.forward import forward
from headpatch.engine.interventions import ZEdit
from headpatch.engine.precision import raised, weights_there
from headpatch.engine.softcap import cap_of, capped
from headpatch.errors import RunError
from headpatch.heads import Head
from headpatch.models.prompt import Prompt
from headpatch.models.vlm import VLM, device_of

_CLOSE = 1e-4  # of the size of what is compared: far above what float32 sums are off by
_NORMED = ("post_attention_layernorm", "post_feedforward_layernorm")
"""What some layers put attention and MLP through before they add them."""


@dataclass(frozen=True, eq=False)
class Parts:
    """What each part writes along gain ⊙ (W_U[yes] - W_U[no]), in rows of a batch.

    Times `scale`, the final norm's, it is in logits. `start` is the answer token's embedding,
    `biases` are those of the attention's output projection, `bias` that of the unembedding
    (logits).
    """

    start: Float[Tensor, " rows"]
    heads: Float[Tensor, "rows layers heads"]
    mlps: Float[Tensor, "rows layers"]
    biases: Float[Tensor, "rows layers"]
    scale: Float[Tensor, " rows"]
    bias: float

    @property
    def total(self) -> Float[Tensor, " rows"]:
        """All parts together, before the scale."""
        return self.start + self.heads.sum((1, 2)) + self.mlps.sum(1) + self.biases.sum(1)

    @property
    def ld(self) -> Float[Tensor, " rows"]:
        """LD, in logits: before a soft cap, where the model has one."""
        return self.scale * self.total + self.bias


@dataclass(frozen=True, eq=False)
class Apart:
    """One batch, taken apart at the answer position."""

    parts: Parts
    logits: Float[Tensor, "rows vocabulary"]
    z: tuple[Float[Tensor, "rows heads dim"], ...]  # by layer, as it entered the output projection
    final: Float[Tensor, "rows width"]  # the stream that enters the final norm
    # By layer: what multiplies attention's output before it is added; None where nothing does.
    gains: tuple[Float[Tensor, "rows width"] | None, ...]
    gain: Float[Tensor, " width"]  # the final norm's
    direction: Float[Tensor, " width"]  # `gain` times W_U[yes] - W_U[no]


@torch.no_grad()
def take_apart(vlm: VLM, prompt: Prompt, edits: Sequence[ZEdit] = ()) -> Apart:
    """Run one batch with `edits` and attribute LD to the parts of the language model.

    A `RunError` if the model's layers, its final norm or its logits add up in another way than
    described above: then no attribution is better than a wrong one.
    """
    if vlm.lm.grid.without:
        raise RunError(f"{vlm.name}: some layers have no attention heads to attribute LD to")
    with _listening(vlm) as heard:
        logits = forward(vlm, prompt, edits, exact=True).logits
    with raised(vlm):
        final = heard[-1].after.float()
        norm = vlm.final_norm
        gain = norm(torch.ones_like(final[:1]))[0].float()
        scale = _scale(norm(final).float(), gain * final)
        words, biases = _words(vlm, prompt)
        expected = scale[:, None] * (gain * final) @ words.T + biases
        _refuse_other_logits(vlm, prompt, expected, logits)
        direction = gain * (words[0] - words[1])
        z = tuple(one.z.unflatten(-1, (vlm.lm.grid.heads, -1)) for one in heard)
        gains = tuple(_gain(vlm, index, one) for index, one in enumerate(heard))
        heads, before_mlp, written = [], [], []
        for index, one in enumerate(heard):
            along = direction if gains[index] is None else gains[index] * direction
            nothing = _made(vlm.lm.outputs[index], torch.zeros_like(one.z[:1]))
            each = _written(vlm, index, z[index]) - nothing
            heads.append((each * along.unsqueeze(-2)).sum(-1))
            written.append((nothing * along).sum(-1).expand(len(final)))
            before_mlp.append((one.attention.float() * along).sum(-1))
    for earlier, later in pairwise(heard):
        if not _alike(earlier.after, later.before, later.before):
            raise RunError(f"{vlm.name}: the model changes the stream itself between two layers")
    start = heard[0].before.float() @ direction
    grown = torch.stack([(one.after - one.before).float() @ direction for one in heard], 1)
    parts = Parts(
        start.cpu(),
        torch.stack(heads, 1).cpu(),
        (grown - torch.stack(before_mlp, 1)).cpu(),
        torch.stack(written, 1).cpu(),
        scale.cpu(),
        float(biases[0] - biases[1]),
    )
    return Apart(parts, logits, z, final, gains, gain, direction)


def adds_plainly(vlm: VLM, prompt: Prompt) -> bool:
    """Whether each layer adds to the stream what its attention and its MLP give, and no more."""
    with _listening(vlm) as heard:
        forward(vlm, prompt, exact=True)
    return all(
        one.mlp is not None
        and _alike(one.after.float(), (one.before + one.attention + one.mlp).float(), one.after)
        for one in heard
    )


@dataclass(frozen=True)
class DirectEffect:
    """What a change of heads does to LD by what they write alone, everything later left as it was.

    In logits: with the final norm's scale as it was (`frozen`), and with the norm computed anew,
    the path from the heads straight to the logits, patched (`renormed`).
    """

    frozen: float
    renormed: float


@torch.no_grad()
def direct_effect(vlm: VLM, apart: Apart, row: int, heads: Sequence[Head]) -> DirectEffect:
    """Return the direct effect of what `heads` write in row `row` in place of the first row.

    Norms between a head and the stream keep the first row's scale.
    """
    change = torch.zeros_like(apart.final[0])
    with raised(vlm):
        for layer in dict.fromkeys(head.layer for head in heads):
            numbers = [head.head for head in heads if head.layer == layer]
            output, z = vlm.lm.outputs[layer], apart.z[layer]
            moved = torch.zeros_like(z[:1])
            moved[0, numbers] = z[row, numbers] - z[0, numbers]
            nothing = torch.zeros_like(moved)
            written = (_made(output, moved.flatten(1)) - _made(output, nothing.flatten(1)))[0]
            gain = apart.gains[layer]
            change += written if gain is None else gain[0] * written
        after = (apart.final[0] + change)[None]
        norm = vlm.final_norm
        scale = float(_scale(norm(after).float(), apart.gain * after)[0])
    along, parts = float(change @ apart.direction), apart.parts
    before = float(parts.scale[0])
    total = float(apart.final[0] @ apart.direction)
    return DirectEffect(before * along, scale * (total + along) - before * total)


@dataclass(eq=False)
class _Heard:
    """What one layer took and gave at the answer position, in each row."""

    before: Tensor
    z: Tensor
    attention: Tensor
    mlp: Tensor | None
    after: Tensor


@contextmanager
def _listening(vlm: VLM) -> Iterator[list[_Heard]]:
    """Listen to every decoder layer; the list is filled when a pass has run.

    All that is heard is brought to where the final norm computes, and summed there.
    """
    found: list[_Heard] = []
    seen: dict[str, Tensor] = {}
    device = device_of(vlm.final_norm)

    def answer(value: Any) -> Tensor:
        hidden: Tensor = value[0] if isinstance(value, tuple) else value
        return hidden[:, -1].to(device, copy=True)

    def enter(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        seen.clear()
        seen["before"] = answer(args[0] if args else kwargs["hidden_states"])

    def project(_: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        seen["z"], seen["attention"] = answer(args[0]), answer(output)

    def think(_: nn.Module, __: tuple[Any, ...], output: Any) -> None:
        seen["mlp"] = answer(output)

    def leave(_: nn.Module, __: tuple[Any, ...], output: Any) -> None:
        found.append(_Heard(after=answer(output), mlp=seen.pop("mlp", None), **seen))

    with ExitStack() as stack:
        for layer, projection in zip(vlm.lm.layers, vlm.lm.outputs, strict=True):
            stack.callback(layer.register_forward_pre_hook(enter, with_kwargs=True).remove)
            stack.callback(projection.register_forward_hook(project).remove)
            if isinstance(mlp := getattr(layer, "mlp", None), nn.Module):
                stack.callback(mlp.register_forward_hook(think).remove)
            stack.callback(layer.register_forward_hook(leave).remove)
        yield found


def _written(
    vlm: VLM, layer: int, z: Float[Tensor, "rows heads dim"]
) -> Float[Tensor, "rows heads width"]:
    """Return what the output projection makes of each head's z alone."""
    rows, heads, _ = z.shape
    alone = torch.zeros(rows, heads, *z.shape[1:], dtype=z.dtype, device=z.device)
    numbers = torch.arange(heads, device=z.device)
    alone[:, numbers, numbers] = z
    return _made(vlm.lm.outputs[layer], alone.flatten(2))


def _made(module: nn.Module, x: Tensor) -> Tensor:
    """Return what a module makes of `x`, where `x` is, in float32."""
    made: Tensor = module(x)
    return made.to(x.device).float()


def _words(vlm: VLM, prompt: Prompt) -> tuple[Float[Tensor, "2 width"], Float[Tensor, " 2"]]:
    """Return the unembedding of Yes and No, and its biases, where the final norm computes."""
    if prompt.answers.variants is not None:
        why = "LD sums the spellings of each answer, so it is no longer linear in the stream"
        raise RunError(f"{why}: it cannot be attributed to parts; leave out --sum-variants")
    head: Any = vlm.unembedding
    asked = torch.tensor([prompt.answers.yes, prompt.answers.no], device=device_of(head))
    with weights_there(head):
        words = head.weight[asked].float()
        bias = getattr(head, "bias", None)
        biases = words.new_zeros(2) if bias is None else bias[asked].float()
    device = device_of(vlm.final_norm)
    return words.to(device), biases.to(device)


def _gain(vlm: VLM, index: int, heard: _Heard) -> Float[Tensor, "rows width"] | None:
    """Return what multiplies a layer's attention before it is added; None where nothing does."""
    layer, grown = vlm.lm.layers[index], (heard.after - heard.before).float()
    attention, mlp = heard.attention.float(), heard.mlp
    if mlp is not None:
        if _alike(grown - attention, mlp.float(), grown):
            return None
        first, second = (getattr(layer, name, None) for name in _NORMED)
        if isinstance(first, nn.Module) and isinstance(second, nn.Module):
            added = _made(first, attention)
            if _alike(grown - added, _made(second, mlp), grown):
                gain = _made(first, torch.ones_like(attention[:1]))
                return _scale(added, gain * attention)[:, None] * gain
    adds = f"layer {index} adds more to the stream than its attention and its MLP"
    raise RunError(f"{vlm.name}: {adds}, so LD cannot be attributed to heads")


def _scale(
    normed: Float[Tensor, "rows width"], gained: Float[Tensor, "rows width"]
) -> Float[Tensor, " rows"]:
    """Return the scale by which an RMS norm has multiplied a row, its gain apart."""
    scale = (normed * gained).sum(-1) / (gained * gained).sum(-1)
    if not _alike(normed, scale[:, None] * gained, normed):
        raise RunError("a norm of the language model is no RMS norm: LD cannot be attributed")
    return scale


def _alike(a: Tensor, b: Tensor, size: Tensor) -> bool:
    return bool((a - b).abs().max() <= _CLOSE * size.abs().max())


def _refuse_other_logits(
    vlm: VLM, prompt: Prompt, expected: Float[Tensor, "rows 2"], logits: Tensor
) -> None:
    """Refuse a model that makes other logits of its stream than are attributed to."""
    logits = logits.to(expected)
    found = logits[:, [prompt.answers.yes, prompt.answers.no]]
    expected = capped(expected, cap_of(vlm, expected, found))
    if not _alike(found, expected, torch.maximum(logits.abs().max(), expected.abs().max())):
        raise RunError(f"{vlm.name}: its logits are not its final norm times its unembedding")
