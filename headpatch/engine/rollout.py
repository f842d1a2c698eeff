"""Attention rollout: one token's attention, followed back through the layers of both towers.

S. Abnar and W. Zuidema, Quantifying Attention Flow in Transformers (ACL 2020, arXiv:2005.00928):
each layer passes on half of what it has from where it was and half by attention, the mean over
heads: A' = (mean A + I) / 2, rows made to sum to 1, and the rollout is the product of A' over the
layers. One token's row needs no such product of maps: from the last layer to the first, a vector
is multiplied with each layer's A', of which only blocks of rows are ever made, from the q and k
that the attention function saw. So a pass holds q, k and v of every layer (for LLaVA-1.5-7B in
bfloat16 about 0.6 GB a run) and never a map of heads × tokens × tokens, of which that model's
layers would take 50 MB each and as much again for a gradient.

Neither the values, nor the MLPs, nor what heads cancel is seen: tokens that draw attention
without content (attention sinks) get weight here. `relevance` weighs by gradient.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import Module

from headpatch.engine.attention import Mask, attention_rows, plain_attention, tapped
from headpatch.engine.precision import answer_logits
from headpatch.errors import RunError
from headpatch.models.prompt import Prompt
from headpatch.models.vlm import VLM

_BLOCK = 64  # queries at a time, so that no layer's whole map is ever held

Target = Callable[[Float[Tensor, "runs vocabulary"]], Float[Tensor, " runs"]]
"""What gradients are taken of: a number a run, from its logits at the last position."""


@dataclass(eq=False)
class AttentionRecord:
    """A tap that keeps what one attention module saw, and how the target moves with its z.

    `query`, `key` and `value` are ``[runs, heads, tokens, head_dim]``, keys and values with fewer
    heads perhaps; `slope` is the gradient of the target, ``[runs, tokens, heads, head_dim]``, 0
    where the layer does not reach it.
    """

    module: nn.Module
    calls: int = 0
    query: Tensor = field(default_factory=lambda: torch.empty(0))
    key: Tensor = field(default_factory=lambda: torch.empty(0))
    value: Tensor = field(default_factory=lambda: torch.empty(0))
    mask: Tensor | None = None
    options: dict[str, Any] = field(default_factory=dict)
    leaf: Tensor | None = None
    slope: Tensor = field(default_factory=lambda: torch.empty(0))

    def __call__(  # noqa: D102
        self, module: Module, query: Tensor, key: Tensor, value: Tensor, mask: Mask, **options: Any
    ) -> Tensor:
        z = plain_attention(module, query, key, value, mask, **options)
        self.calls += 1
        self.query, self.key, self.value = query.detach(), key.detach(), value.detach()
        self.mask, self.options = mask, options
        self.leaf = torch.zeros_like(z, requires_grad=True)
        return z + self.leaf

    @property
    def tokens(self) -> int:
        """How many tokens attend."""
        return self.query.shape[2]

    def blocks(
        self, vector: Float[Tensor, "runs tokens"]
    ) -> Iterator[tuple[Int[Tensor, " chosen"], Float[Tensor, "runs heads chosen tokens"]]]:
        """Give the attention rows of those tokens that `vector` has anything of."""
        wanted = vector.ne(0).any(0).nonzero().flatten().to(self.query.device)
        for chosen in wanted.split(_BLOCK) if len(wanted) else ():
            taken = self.module, self.query, self.key, self.mask
            yield chosen, attention_rows(*taken, chosen, **self.options)


Step = Callable[[AttentionRecord, Float[Tensor, "runs tokens"]], Float[Tensor, "runs tokens"]]
"""From weights of a layer's outputs to those of its inputs."""


@dataclass(frozen=True, eq=False)
class TowerRecords:
    """What both towers saw in one pass, layer by layer.

    `vision` goes up to the layer whose output the language model reads; it is empty where the tower
    does not see the picture once, patch for patch as the language model does.
    """

    lm: tuple[AttentionRecord, ...]
    vision: tuple[AttentionRecord, ...]
    logits: Float[Tensor, "runs vocabulary"]


def whole_picture(vlm: VLM) -> bool:
    """Whether weights can be followed from the image tokens back through the vision tower.

    It must see the picture once, patch for patch as the language model does, and hand on the
    output of one layer.
    """
    names = ("vision_feature_layer", "vision_feature_layers")
    chosen = (getattr(vlm.model.config, name, None) for name in names)
    one = not any(isinstance(layers, list | tuple) and len(layers) > 1 for layers in chosen)
    return vlm.vision is not None and vlm.family.one_view and one


def record_attention(vlm: VLM, prompt: Prompt, target: Target) -> TowerRecords:
    """Run a batch once forwards and once backwards; keep what every attention module saw.

    The graph takes what `headpatch.engine.attribution` says; no weight gets a gradient. A
    `RunError` if a layer attends to something else than the tokens of its own tower, or the target
    or its gradient is not a number.
    """
    lm = tuple(AttentionRecord(module) for module in vlm.lm.attentions)
    vision: tuple[AttentionRecord, ...] = ()
    if whole_picture(vlm) and vlm.vision is not None and vlm.feature_layer is not None:
        vision = tuple(map(AttentionRecord, vlm.vision.attentions[: vlm.feature_layer + 1]))
    records = (*vision, *lm)
    with torch.enable_grad(), tapped(vlm.parts, {record.module: record for record in records}):
        logits = answer_logits(vlm, prompt, vlm.dtype)
        asked = target(logits)
        _check(vlm, prompt, lm, vision)
        leaves = [record.leaf for record in records if record.leaf is not None]
        slopes = torch.autograd.grad(asked.sum(), leaves, materialize_grads=True)
    for record, slope in zip(records, slopes, strict=True):
        record.slope, record.leaf = slope, None
    finite = [asked, *(record.slope for record in records)]
    if not all(bool(torch.isfinite(one).all()) for one in finite):
        what = f"the answer's logit or its gradient is not finite ({vlm.name}, {vlm.dtype})"
        raise RunError(f"{what}: try --dtype float32")
    return TowerRecords(lm, vision, logits.detach())


def _check(
    vlm: VLM, prompt: Prompt, lm: Sequence[AttentionRecord], vision: Sequence[AttentionRecord]
) -> None:
    own = all(one.calls == 1 and one.key.shape[2] == prompt.spans.length for one in lm)
    alike = all(one.calls == 1 and one.key.shape[2] == one.tokens for one in vision)
    runs = all(len(one.query) == prompt.runs for one in (*lm, *vision))
    if not (own and alike and runs):
        why = "a layer attends to more than its own tokens, or a run at a time"
        raise RunError(f"{vlm.name}: {why}: attention cannot be followed back")


def rollout(
    record: AttentionRecord, vector: Float[Tensor, "runs tokens"]
) -> Float[Tensor, "runs tokens"]:
    """Go back one layer: v A', with A' = (mean A + I) / 2 and its rows made to sum to 1."""
    found = torch.zeros_like(vector)
    for chosen, rows in record.blocks(vector):
        mean = rows.mean(1)
        weights = vector[:, chosen] / (mean.sum(-1) + 1)  # a token that sees nothing stays
        found += torch.einsum("rc,rct->rt", weights, mean)
        found[:, chosen] += weights
    return found


def back(
    records: Sequence[AttentionRecord], vector: Float[Tensor, "runs tokens"], step: Step
) -> Float[Tensor, "runs tokens"]:
    """Follow weights from the output of the last of some layers to the input of the first."""
    for record in reversed(records):
        vector = step(record, vector.to(record.query.device))
    return vector


@dataclass(frozen=True, eq=False)
class Flow:
    """Where a token's weight comes from, by one method."""

    # over the prompt's tokens, as they enter the language model
    tokens: Float[Tensor, "runs tokens"]
    # Over the vision tower's tokens, as they enter it, a class token first if there is one; None
    # where weights stop at the image tokens.
    patches: Float[Tensor, "runs vision_tokens"] | None


def follow(looked: TowerRecords, prompt: Prompt, step: Step) -> Flow:
    """Follow the last position's weight back to the prompt's tokens, and on to the patches.

    An image token is the output of one vision token at the layer that the language model reads:
    its weight goes on from there. The text's weight stays behind.
    """
    start = looked.logits.new_zeros(prompt.runs, prompt.spans.length)
    start[:, prompt.spans.answer] = 1
    tokens = back(looked.lm, start, step).cpu()
    if not looked.vision:
        return Flow(tokens, None)
    image = tokens[:, prompt.spans.image.cpu()]
    seen = looked.vision[-1].tokens
    before = seen - image.shape[1]  # a class token that the language model does not get
    if before not in (0, 1):
        return Flow(tokens, None)
    entering = torch.nn.functional.pad(image, (before, 0))
    return Flow(tokens, back(looked.vision, entering, step).cpu())


def relevance(
    record: AttentionRecord, vector: Float[Tensor, "runs tokens"]
) -> Float[Tensor, "runs tokens"]:
    """Go back one layer: v + v Ā, with Ā the mean over heads of (∂y/∂A ⊙ A)⁺.

    H. Chefer, S. Gur and L. Wolf, Generic Attention-model Explainability for Interpreting Bi-Modal
    and Encoder-Decoder Transformers (ICCV 2021, arXiv:2103.15679), their rule for self-attention:
    R = I before the first layer, and each adds Ā R; one token's row of R is a vector that goes from
    the last layer to the first. y is the target of `record_attention`. ∂y/∂A needs no graph:
    z = A V, so it is ∂y/∂z Vᵀ, made a block of rows at a time. The paper's two towers meet in
    cross-attention; here the image's tokens are handed from the vision tower to the language model,
    so the same rule goes on in the tower from their relevance.
    """
    found = vector.clone()
    for chosen, rows in record.blocks(vector):
        gained = (rows * _gradient(record, chosen)).clamp(min=0).mean(1)
        found += torch.einsum("rc,rct->rt", vector[:, chosen], gained)
    return found


def _gradient(record: AttentionRecord, chosen: Tensor) -> Float[Tensor, "runs heads chosen tokens"]:
    """∂y/∂A of the chosen queries: heads that share a value are multiplied with it together."""
    runs, kv_heads = record.value.shape[:2]
    slope = record.slope[:, chosen].transpose(1, 2).float()  # [runs, heads, chosen, dim]
    heads = slope.shape[1]
    grouped = slope.reshape(runs, kv_heads, -1, slope.shape[-1])
    product = grouped @ record.value.float().transpose(-1, -2)
    return product.reshape(runs, heads, len(chosen), -1)
