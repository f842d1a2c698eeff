"""What one ordinary pass leaves behind for the widening pass to start from."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from headpatch.engine.deviations import Points
from headpatch.engine.interventions import replacement


@dataclass(frozen=True, eq=False)
class Known:
    """What all rows of a walk have of the untouched run at one layer.

    Attributes
    ----------
    weights
        Its attention, float32; a key-value head's queries as in `scores`.
    scores
        Its scaled scores on the prefix: heads of one key-value head, then positions.
    key, value
        The prefix's, in low precision: what deviations are multiplied with.
    """

    weights: Float[Tensor, "kv_heads queries tokens"]
    scores: Float[Tensor, "kv_heads queries prefix"]
    key: Float[Tensor, "kv_heads prefix head_dim"]
    value: Float[Tensor, "kv_heads prefix dim"]


@dataclass(frozen=True, eq=False)
class LayerState:
    """One decoder layer of a pass, cut at the first position that may change.

    Attributes
    ----------
    hidden
        The layer's input from that position on: ``[runs, suffix, width]``.
    key, value, own_key, own_value
        What those positions attend to: before it, ``[runs, kv_heads, prefix, dim]``, and from it
        on. In a layer that attends to the image across, the image's are the first and there are no
        others.
    mask
        As transformers passed it, rows of the suffix only: ``[runs or 1, heads or 1, suffix,
        tokens]``; None where it is plainly causal.
    z, query
        ``[runs, suffix, heads, dim]`` and ``[runs, heads, suffix, head_dim]``.
    options
        The layer's other arguments (rotary embeddings and such), cut likewise.
    added
        What the model itself adds to the stream after the layer, whatever is in it:
        ``[runs, suffix, width]``. None if nothing, or where rows are deviations.
    scoring
        How the attention makes scores: ``scaling`` and ``softcap``, as transformers passes them.
    known
        Over low-precision weights, what all rows have of this run.
    """

    hidden: Float[Tensor, "runs suffix width"]
    key: Float[Tensor, "runs kv_heads prefix head_dim"]
    value: Float[Tensor, "runs kv_heads prefix dim"]
    own_key: Float[Tensor, "runs kv_heads own head_dim"]
    own_value: Float[Tensor, "runs kv_heads own dim"]
    mask: Tensor | None
    z: Float[Tensor, "runs suffix heads dim"]
    query: Float[Tensor, "runs heads suffix head_dim"]
    options: dict[str, Any]
    added: Float[Tensor, "runs suffix width"] | None = None
    scoring: dict[str, Any] = field(default_factory=dict)
    known: Known | None = None

    def run(self, index: int, runs: int) -> "LayerState":
        """Return one run of the batch."""
        one = slice(index, index + 1)
        mask = self.mask
        if mask is not None and len(mask) == runs:
            mask = mask[one]
        options = {
            name: _pick(value, index, runs, _BATCH.get(name))
            for name, value in self.options.items()
        }
        return LayerState(
            self.hidden[one],
            self.key[one],
            self.value[one],
            self.own_key[one],
            self.own_value[one],
            mask,
            self.z[one],
            self.query[one],
            options,
            None if self.added is None else self.added[one],
            self.scoring,
        )


@dataclass(frozen=True, eq=False)
class Prefill:
    """A pass of one run, ready to be widened.

    Attributes
    ----------
    start
        First position that may change; everything before it stays as it was.
    tokens
        Length of the prompt.
    layers
        Empty if the pass cannot be widened.
    points
        Where the linear layers stood, over low-precision weights; None in float32.
    refused
        Why it cannot be widened, if so.
    reading
        The part of a layer's weights that makes q, k and v: what a row need not multiply in the
        layer that it joins.
    cap
        The soft cap that the pass put on its logits, if any.
    """

    start: int
    tokens: int
    layers: tuple[LayerState, ...]
    points: Points | None = None
    refused: str = ""
    reading: float = 0.0
    cap: float | None = None

    @property
    def remembering(self) -> float:
        """The part that makes k and v: all that the last layer does for the other positions."""
        heads, kv_heads = self.layers[0].query.shape[1], self.layers[0].key.shape[1]
        return self.reading * 2 * kv_heads / (heads + 2 * kv_heads)


def split(
    layers: tuple[LayerState, ...],
    runs: int,
    start: int,
    tokens: int,
    points: Points | None,
    refused: str = "",
    reading: float = 0.0,
    cap: float | None = None,
) -> list[Prefill]:
    """Return one `Prefill` for each run of a batch."""
    if points is not None and points.inputs:
        layers = tuple(replace(layer, added=None) for layer in layers)
    return [
        Prefill(
            start,
            tokens,
            tuple(layer.run(index, runs) for layer in layers),
            points.run(index) if points is not None and points.inputs else None,
            refused,
            reading,
            cap,
        )
        for index in range(runs)
    ]


# Dimensions of the arguments that run over the batch, counted from the end.
_BATCH = {
    "position_embeddings": -3,
    "position_ids": -2,
    "full_text_row_masked_out_mask": -4,
}


def _pick(value: Any, run: int, runs: int, dim: int | None) -> Any:
    if dim is None:
        return value
    if isinstance(value, tuple | list):
        return type(value)(_pick(one, run, runs, dim) for one in value)
    if isinstance(value, Tensor) and value.ndim >= -dim and value.shape[dim] == runs:
        return value.narrow(dim, run, 1)
    return value


def sources(
    prefill: Prefill,
    other: Prefill,
    means: list[Tensor] | None,
    device: torch.device,
    kinds: Sequence[tuple[str, float | None]],
) -> list[Float[Tensor, "sources suffix heads dim"]]:
    """Stack, layer by layer, what each kind, with its alpha, puts in the place of z.

    Raises
    ------
    ValueError
        If the pass cannot be widened, or means are needed and missing.
    """
    if prefill.refused:
        raise ValueError(prefill.refused)
    stacked = []
    for index, (own, away) in enumerate(zip(prefill.layers, other.layers, strict=True)):
        z, mean = own.z[0], None
        if means is not None:
            mean = means[index][prefill.start :].to(device, z.dtype)
        parts = [replacement(*kind, z, away.z[0], mean) for kind in kinds]
        stacked.append(torch.stack(parts))
    return stacked
