"""Every head in one widening pass.

A change at the last positions leaves every earlier key and value as it was. So the pair is run
once, the keys and values are kept, and then the layers are walked once with a batch that starts as
the untouched run alone: at each layer, rows whose heads sit there join it as copies of the
untouched row with those heads' z replaced, and walk on together. Every row is exact: it does the
arithmetic of its own forward pass, less what it shares with the untouched run.

The model's own layers do the work. Only attention differs: the kept prefix is attended by all rows
in one batched product, without a copy of it for each row.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional

from headpatch.engine.attention import plain_attention, tapped
from headpatch.engine.precision import Points, deviating, replaced, split_product
from headpatch.engine.prefill import SOURCES, LayerState, Prefill
from headpatch.engine.shared_prefix import attend, attend_deviating
from headpatch.heads import HeadSet
from headpatch.models.vlm import VLM


@dataclass(frozen=True)
class Row:
    """One row of a widening pass: these heads, with z from that source (see `SOURCES`)."""

    heads: HeadSet
    kind: str

    @property
    def entry(self) -> int:
        """The layer at which the row first differs from the untouched run."""
        return min(head.layer for head in self.heads)


@dataclass(frozen=True, eq=False)
class Edits:
    """The z of one layer that is replaced: element i is row ``rows[i]``, head ``heads[i]``."""

    rows: Int[Tensor, " edits"]
    heads: Int[Tensor, " edits"]
    sources: Int[Tensor, " edits"]


@dataclass(frozen=True, eq=False)
class Chunk:
    """Rows that walk together.

    Attributes
    ----------
    order
        For each row after the untouched one: its place in the list that was asked for.
    joining
        By layer: how many rows join there.
    edits
        By layer.
    """

    order: tuple[int, ...]
    joining: tuple[int, ...]
    edits: tuple[Edits | None, ...]

    @property
    def first(self) -> int:
        """The layer at which the walk begins."""
        return next(layer for layer, count in enumerate(self.joining) if count)

    @property
    def layer_rows(self) -> int:
        """Rows × layers that are computed, the untouched row included."""
        total, rows = 0, 1
        for count in self.joining[self.first :]:
            rows += count
            total += rows
        return total


def plan(
    rows: Sequence[Row], layers: int, size: int, device: torch.device, carried: bool = True
) -> list[Chunk]:
    """Cut rows into chunks of at most `size` that start as late as they can.

    `carried`: whether the untouched run walks along as the first row (see `walk`).
    """
    by_entry = sorted(range(len(rows)), key=lambda index: rows[index].entry)
    return [
        _chunk(by_entry[start : start + size], rows, layers, device, int(carried))
        for start in range(0, len(by_entry), size)
    ]


def _chunk(
    order: Sequence[int], rows: Sequence[Row], layers: int, device: torch.device, first: int
) -> Chunk:
    joining = [0] * layers
    edits: list[list[tuple[int, int, int]]] = [[] for _ in range(layers)]
    for place, index in enumerate(order, start=first):
        row = rows[index]
        joining[row.entry] += 1
        for head in row.heads:
            edits[head.layer].append((place, head.head, SOURCES[row.kind]))

    def packed(listed: list[tuple[int, int, int]]) -> Edits | None:
        if not listed:
            return None
        table = torch.tensor(listed, device=device)
        return Edits(table[:, 0], table[:, 1], table[:, 2])

    return Chunk(tuple(order), tuple(joining), tuple(packed(listed) for listed in edits))


@dataclass(eq=False)
class _Site:
    """The attention of one layer during a walk."""

    prefill: Prefill
    layer: int
    source: Float[Tensor, "sources suffix heads dim"]
    positions: Int[Tensor, " positions"] | None
    edits: Edits | None = None

    def __call__(
        self,
        module: nn.Module,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        mask: Tensor | None,
        **options: Any,
    ) -> Tensor:
        state = self.prefill.layers[self.layer]
        if self.prefill.start == 0:
            z = plain_attention(module, query, key, value, state.mask, **options)
        else:
            z = self._attend(query, key, value, state, options)
        if self.edits is not None:
            rows, heads, sources = self.edits.rows, self.edits.heads, self.edits.sources
            if self.positions is None:
                z[rows, :, heads] = self.source[sources, :, heads].to(z.dtype)
            else:
                where = self.positions[None, :]
                place = (rows[:, None], where, heads[:, None])
                z[place] = self.source[sources[:, None], where, heads[:, None]].to(z.dtype)
        return z

    def _attend(
        self, query: Tensor, key: Tensor, value: Tensor, state: LayerState, options: dict[str, Any]
    ) -> Tensor:
        points = self.prefill.points
        if points is None:
            return attend(query, key, value, state, options)
        return attend_deviating(query, key, value, state, options, points.low)


@torch.no_grad()
def walk(
    vlm: VLM,
    prefill: Prefill,
    chunks: Sequence[Chunk],
    source: Sequence[Tensor],
    positions: Int[Tensor, " positions"] | None = None,
    tokens: Int[Tensor, " tokens"] | None = None,
) -> Iterator[tuple[Chunk, Float[Tensor, "rows tokens"]]]:
    """Walk each chunk through the layers; yield its answer logits, the untouched row first.

    In float32 the untouched run walks along as the first row, so that what a batch's shape does to
    rounding cancels. Over low-precision weights rows are deviations from it, and it need not.

    Parameters
    ----------
    source
        By layer: ``[sources, suffix, heads, dim]``, see `headpatch.engine.prefill.sources`.
    positions
        Which of the suffix's positions are changed, counted from its start; None for all.
    tokens
        Vocabulary entries whose logits are wanted; None for all.
    """
    sites = [_Site(prefill, layer, source[layer], positions) for layer in range(len(source))]
    taps = dict(zip(vlm.lm.attentions, sites, strict=True))
    with tapped(vlm.model, taps), deviating(vlm, prefill.points):
        for chunk in chunks:
            for site, edits in zip(sites, chunk.edits, strict=True):
                site.edits = edits
            hidden = _through(vlm, prefill, chunk)
            yield chunk, unembed(vlm, hidden, prefill.points, tokens)


def _through(vlm: VLM, prefill: Prefill, chunk: Chunk) -> Float[Tensor, "rows width"]:
    """Return the rows' last hidden state at the answer position, before the final norm."""
    carried = prefill.points is None
    hidden = prefill.layers[chunk.first].hidden[: int(carried)]
    for index in range(chunk.first, len(vlm.lm.layers)):
        state = prefill.layers[index]
        if joining := chunk.joining[index]:
            copied = hidden[:1] if carried else state.hidden
            hidden = torch.cat([hidden, copied.expand(joining, -1, -1)])
        output = vlm.lm.layers[index](
            hidden,
            attention_mask=state.mask,
            past_key_values=None,
            use_cache=False,
            **state.options,
        )
        hidden = output[0] if isinstance(output, tuple) else output
    return hidden[:, -1]


def unembed(
    vlm: VLM,
    hidden: Float[Tensor, "rows width"],
    points: Points | None,
    tokens: Int[Tensor, " tokens"] | None = None,
) -> Float[Tensor, "rows_ tokens"]:
    """Final norm and unembedding in float32; of `tokens` alone, or of the whole vocabulary.

    The untouched run's row, if it did not walk along, is put first.
    """
    final: nn.Module = vlm.decoder.norm  # type: ignore[assignment]
    head = vlm.model.get_output_embeddings()
    x: Tensor = final(hidden)
    logits: Tensor
    if points is not None:
        x = torch.cat([points.inputs[head][:, -1], x])
    if head.weight.is_meta:  # offloaded: only the module itself brings its weights in
        with replaced(head, lambda row: split_product(row.float(), head.weight)):
            logits = head(x)
        logits = logits if tokens is None else logits[:, tokens]
    elif tokens is not None:
        logits = functional.linear(x.float(), head.weight[tokens].float())
        if head.bias is not None:
            logits = logits + head.bias[tokens].float()
    elif x.dtype == head.weight.dtype:
        logits = head(x).float()
    else:
        logits = split_product(x, head.weight)
    cap = getattr(vlm.model.config.get_text_config(), "final_logit_softcapping", None)
    return torch.tanh(logits / cap) * cap if cap else logits
