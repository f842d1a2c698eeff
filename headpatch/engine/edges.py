r"""Edges between heads: what one head tells another, estimated for all and exact for a few.

An edge runs from a *sender*, an earlier head at all tokens, to a *receiver*, a later head at the
answer position. With :math:`Δ_u` what the sender would write into the stream if its z were the
other run's, the edge's effect is LD once the receiver alone hears the stream with :math:`Δ_u` in
it, through its query, keys and values, less LD (path patching, see `headpatch.engine.pathpatch`).
To first order that is

.. math:: \sum_p Δ_u(p) · \frac{∂z_v}{∂x(p)}^{T} \frac{∂LD}{∂z_v},

x the stream that enters the receiver's layer: edge attribution patching (Syed, Rager & Conmy, 2023,
arXiv:2310.10348). Integrated gradients take the mean of the product over a line of inputs between
the two runs (EAP-IG: Hanna, Pezzelle & Belinkov, 2024, arXiv:2403.17806), as
`headpatch.engine.attribution` has it for nodes.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import groupby
from operator import attrgetter
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from headpatch.engine import attribution
from headpatch.engine.attention import Mask, attention_rows, plain_attention, tapped, weigh
from headpatch.engine.attribution import points_between
from headpatch.engine.direct import adds_plainly
from headpatch.engine.forward import forward
from headpatch.engine.interventions import WITH, WITHOUT, ZEdit
from headpatch.engine.patching import PLAIN_BATCH, Baseline
from headpatch.engine.pathpatch import answer_z, hear
from headpatch.engine.precision import answer_logits
from headpatch.engine.residual import Put, edited, record
from headpatch.errors import RunError
from headpatch.heads import Head
from headpatch.models.prompt import Prompt
from headpatch.models.vlm import VLM

Scores = Float[Tensor, "runs senders_layers senders receivers_layers receivers"]


@dataclass(frozen=True)
class Edge:
    """From one head's writes at all tokens to a later one's z at the answer, in one run."""

    run: int
    sender: Head
    receiver: Head


def refused(vlm: VLM, prompt: Prompt) -> str:
    """Say why edges of this model, or of these prompts, cannot be told apart; "" if they can."""
    if why := attribution.refused(vlm):
        return why
    if vlm.crossing:
        return "some of its layers look at the image across"
    if prompt.each:
        return "the two questions are of several lengths"
    if not all(isinstance(one, nn.Linear) for one in vlm.lm.outputs):
        return "an output projection of its attention is no linear layer"
    if not adds_plainly(vlm, prompt):
        return "its layers do not add what heads write as it is"
    return ""


def edge_scores(vlm: VLM, base: Baseline, steps: int = 1) -> Scores:
    """Estimate every edge of both runs, in logits; 0 where the sender's layer is no earlier.

    `steps` points of the line between the runs, as `headpatch.engine.attribution.integrated` has
    them. `base` keeps z of all tokens.
    """
    z = [one.float() for one in base.trace.z["lm"]]
    found = _scores(vlm, base.prompt, [one.flip(0) - one for one in z])
    between = torch.zeros_like(found[0])
    for prompt in points_between(base.prompt, steps):
        moved = [one[WITHOUT] - one[WITH] for one in z]  # as the with-run's
        between += _scores(vlm, prompt, moved).sum(0)
    return torch.stack([found[WITH] + between, found[WITHOUT] - between]) / steps


def _scores(vlm: VLM, prompt: Prompt, moved: Sequence[Tensor]) -> Scores:
    """Estimate the edges of each row at its own point; `moved`: what each z would gain."""
    streams: dict[int, Tensor] = {}
    made: dict[int, Tensor] = {}  # z
    alone: dict[int, Tensor] = {}  # z of the answer position

    def entering(layer: int, hidden: Tensor) -> Tensor:
        streams[layer] = torch.zeros_like(hidden, requires_grad=True)
        return hidden + streams[layer]

    def attending(
        layer: int, module: nn.Module, query: Tensor, key: Tensor, value: Tensor, mask: Mask,
        **options: Any,
    ) -> Tensor:  # fmt: skip
        # The answer's row by itself: a backward pass through it is far cheaper than through all.
        rows = attention_rows(module, query, key, mask, at_answer.to(query.device), **options)
        alone[layer] = weigh(rows, value)[:, 0]
        made[layer] = plain_attention(module, query, key, value, mask, **options)
        return made[layer]

    layers, heads, answer = len(vlm.lm.layers), vlm.lm.grid.heads, prompt.spans.answer
    at_answer = torch.tensor([answer])
    where = {("lm", layer): partial(entering, layer) for layer in range(layers)}
    taps = {module: partial(attending, at) for at, module in enumerate(vlm.lm.attentions)}
    with torch.enable_grad():
        with tapped(vlm.parts, taps), edited(vlm, where):  # type: ignore[arg-type]
            ld = prompt.answers.ld(answer_logits(vlm, prompt, vlm.dtype))
        every = [made[layer] for layer in range(layers)]
        slopes = torch.autograd.grad(ld.sum(), every, retain_graph=True)
        found = torch.zeros(prompt.runs, layers, heads, layers, heads)
        for layer in range(1, layers):
            heard = [
                torch.autograd.grad(
                    alone[layer][:, head],
                    streams[layer],
                    slopes[layer][:, answer, head],
                    retain_graph=True,
                )[0].float()
                for head in range(heads)
            ]
            slope = torch.stack(heard, 1).flatten(2)  # [runs, receivers, tokens x width]
            for sender in range(layer):
                weight = _weight(vlm, sender).unflatten(1, (heads, -1)).to(slope)
                gained = moved[sender].to(slope).transpose(-3, -2)  # […, heads, tokens, dim]
                written = (gained @ weight.permute(1, 2, 0)).flatten(-2)
                found[:, sender, :, layer] = (written @ slope.mT).cpu()
    if not bool(torch.isfinite(found).all()):
        raise RunError(f"a gradient is not finite ({vlm.name}, {vlm.dtype}): --dtype float32")
    return found


@torch.no_grad()
def edge_effects(vlm: VLM, base: Baseline, edges: Sequence[Edge]) -> list[float]:
    """Patch edges, each in a pass of its own row; return their effects on LD, in logits.

    `base` keeps z of all tokens.
    """
    streams = record(vlm, base.prompt)["lm"]
    effects: dict[Edge, float] = {}
    for run, layer, part in _batches(edges):
        stream, prompt = streams[layer][run], base.prompt.select(run)
        everywhere = torch.arange(prompt.spans.length)
        puts = [
            Put(row, "lm", layer, everywhere, stream + _write(vlm, base, one).to(stream))
            for row, one in enumerate(part)
        ]
        heard = hear(vlm, prompt.repeat(len(part)), [layer], puts)[layer]
        answer = torch.tensor([prompt.spans.answer])
        edits = [
            ZEdit(row + 1, one.receiver, answer, answer_z(heard, row)[one.receiver.head][None])
            for row, one in enumerate(part)
        ]
        rows = prompt.repeat(len(part) + 1)
        ld = forward(vlm, rows, edits, exact=True).ld(rows)
        effects |= zip(part, (ld[1:] - ld[:1]).tolist(), strict=True)
    return [effects[one] for one in edges]


def _batches(edges: Sequence[Edge]) -> Iterator[tuple[int, int, list[Edge]]]:
    """Yield edges of one run into one layer, as many as are run together."""
    place = attrgetter("run", "receiver.layer")
    for (run, layer), each in groupby(sorted(dict.fromkeys(edges), key=place), place):
        part = list(each)
        for first in range(0, len(part), PLAIN_BATCH - 1):
            yield run, layer, part[first : first + PLAIN_BATCH - 1]


def _write(vlm: VLM, base: Baseline, edge: Edge) -> Float[Tensor, "tokens width"]:
    """Return what the sender would write beside what it writes, with the other run's z."""
    z = base.trace.z["lm"][edge.sender.layer][:, :, edge.sender.head].float()
    moved, width = z[1 - edge.run] - z[edge.run], z.shape[-1]
    first = edge.sender.head * width
    weight = _weight(vlm, edge.sender.layer)[:, first : first + width]
    return functional.linear(moved, weight.to(moved))


def _weight(vlm: VLM, layer: int) -> Float[Tensor, "width heads_dim"]:
    """Return the weight of a layer's attention output projection."""
    weight = vlm.lm.outputs[layer].weight
    assert isinstance(weight, Tensor)
    return weight
