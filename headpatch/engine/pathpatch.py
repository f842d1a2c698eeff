"""Path patching to named heads: through which of its inputs a head hears of the object.

A path runs from a *sender*, the stream at some tokens, to a *receiver*, one input of a head: its
query at the answer position, its keys or its values at those tokens. The receiver alone hears the
other run's sender; everything else that reads the stream there (every other head, every MLP, the
head's other inputs) hears the run as it is. The head's z at the answer position follows from its
inputs; it is put into the pass, and everything after it runs on. (Wang, Variengien, Conmy,
Shlegeris & Steinhardt, *Interpretability in the Wild*, 2022, arXiv:2211.00593; Goldowsky-Dill,
MacLeod, Sato & Arora, *Localizing Model Behavior with Path Patching*, 2023, arXiv:2304.05969.)

With grouped queries several heads share a key and a value; a path changes them for the named head
only. All three inputs at all tokens together are resampling the head.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import Module

from headpatch.engine.attention import Mask, attention_rows, plain_attention, tapped, weigh
from headpatch.engine.forward import forward
from headpatch.engine.residual import Put, putting
from headpatch.errors import RunError
from headpatch.models.prompt import Prompt
from headpatch.models.vlm import VLM


@dataclass(frozen=True, eq=False)
class Inputs:
    """What one layer's attention takes, as transformers passes it, after the rotary embedding."""

    module: nn.Module
    query: Float[Tensor, "rows heads tokens head_dim"]
    key: Float[Tensor, "rows kv_heads tokens head_dim"]
    value: Float[Tensor, "rows kv_heads tokens value_dim"]
    mask: Tensor | None
    options: dict[str, Any]


@dataclass(eq=False)
class _Site:
    """A tap that keeps what an attention module takes."""

    heard: list[Inputs] = field(default_factory=list)

    def __call__(
        self, module: Module, query: Tensor, key: Tensor, value: Tensor, mask: Mask, **options: Any
    ) -> Tensor:
        self.heard.append(Inputs(module, query, key, value, mask, options))
        return plain_attention(module, query, key, value, mask, **options)


def hear(
    vlm: VLM, prompt: Prompt, layers: Sequence[int], puts: Sequence[Put] = ()
) -> dict[int, Inputs]:
    """Run a batch, with values put into its stream, and keep what some layers' attention takes."""
    if vlm.lm.at_output:
        raise RunError(f"{vlm.name}: something lies between its attention and the projection")
    sites = {layer: _Site() for layer in dict.fromkeys(layers)}
    listening = {vlm.lm.attentions[layer]: site for layer, site in sites.items()}
    with tapped(vlm.parts, listening), putting(vlm, prompt.runs, puts):
        forward(vlm, prompt, exact=True)
    return {layer: site.heard[0] for layer, site in sites.items()}


@dataclass(frozen=True, eq=False)
class Sender:
    """Whose inputs of one layer a receiver hears, from which positions: the pass, and its row."""

    inputs: Inputs
    row: int
    positions: Int[Tensor, " positions"]


@torch.no_grad()
def answer_z(
    inputs: Inputs,
    row: int,
    query: Sender | None = None,
    key: Sender | None = None,
    value: Sender | None = None,
) -> Float[Tensor, "heads dim"]:
    """Return the z of every head at the answer position if it hears some inputs from senders.

    `inputs` and `row` are the run that is changed, untouched. A sender of the query counts if the
    answer position is among its positions; those of keys and values change its positions' own.
    """
    one, mask = slice(row, row + 1), inputs.mask
    q = _mixed(inputs.query[one], query, "query")
    k = _mixed(inputs.key[one], key, "key")
    v = _mixed(inputs.value[one], value, "value")
    if mask is not None and len(mask) > 1:
        mask = mask[one]
    answer = torch.tensor([q.shape[2] - 1], device=q.device)
    rows = attention_rows(inputs.module, q, k, mask, answer, **inputs.options)
    return weigh(rows, v)[0, 0]


def _mixed(own: Tensor, sender: Sender | None, name: str) -> Tensor:
    if sender is None:
        return own
    at, other = sender.positions.to(own.device), getattr(sender.inputs, name)
    mixed = own.clone()
    mixed[:, :, at] = other[sender.row : sender.row + 1, :, at]
    return mixed
