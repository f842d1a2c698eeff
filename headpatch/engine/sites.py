"""What the plain pass reads and edits at each attention module of the two towers."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Bool, Int
from torch import Tensor, nn

from headpatch.engine.answer_rows import AnswerRows
from headpatch.engine.attention import attention_rows, plain_attention, weigh
from headpatch.engine.capture import Capture
from headpatch.engine.interventions import Cut, ZEdit
from headpatch.errors import RunError
from headpatch.heads import Tower
from headpatch.models.prompt import Prompt
from headpatch.models.vlm import VLM

_BLOCK = 64  # queries at a time when rows are averaged, so that no N×N map is ever held


def edges_by_layer(vlm: VLM, cut: Cut) -> Iterator[tuple[Tower, int, list[int]]]:
    """Say where a cut is made: tower, layer and heads.

    Layers that look at the image across see no token of the prompt, so nothing is cut there.
    """
    for (tower, layer), numbers in cut.by_layer().items():
        if tower != "lm" or layer not in vlm.crossing:
            yield tower, layer, numbers


def allowed_edges(
    cuts: Sequence[tuple[Cut, list[int]]],
    queries: Int[Tensor, " queries"],
    shape: tuple[int, int, int, int],
) -> tuple[Bool[Tensor, "rows heads queries keys"], Bool[Tensor, "rows queries heads"]]:
    """Say which edges cuts leave at one layer, and which queries of which heads they concern.

    Parameters
    ----------
    cuts
        Each with its heads' numbers in this layer.
    queries
        Their positions in the prompt, ascending.
    shape
        Rows, heads, queries, keys.
    """
    device = queries.device
    allowed = torch.ones(shape, dtype=torch.bool, device=device)
    touched = torch.zeros(shape[0], shape[2], shape[1], dtype=torch.bool, device=device)
    for cut, numbers in cuts:
        keys, heads = cut.keys.to(device), torch.tensor(numbers, device=device)
        where = torch.isin(queries, cut.queries.to(device)).nonzero()[:, 0]
        edges = cut.row, heads[:, None, None], where[:, None], keys
        if cut.own:
            allowed[edges] = False
        else:
            allowed[edges] &= keys == queries[where, None]
        touched[cut.row, where[:, None], heads] = True
    return allowed, touched


@dataclass(eq=False)
class Site:
    """A tap that reads and edits one attention module in the plain pass."""

    edits: list[ZEdit] = field(default_factory=list)
    cuts: list[tuple[Cut, list[int]]] = field(default_factory=list)
    answer_rows: AnswerRows | None = None
    class_and_patches: bool = False
    class_token: bool = False
    keep_z: bool = False
    capture: Capture | None = None
    layer: int = 0
    class_row: Tensor | None = None
    patch_row: Tensor | None = None
    z: Tensor | None = None

    @property
    def used(self) -> bool:
        """Whether anything is read or changed here."""
        return bool(self.edits or self.cuts or self.keep_z or self.class_and_patches)

    def __call__(  # noqa: D102
        self,
        module: nn.Module,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        mask: Tensor | None,
        **options: Any,
    ) -> Tensor:
        z = plain_attention(module, query, key, value, mask, **options)
        if self.cuts:
            z = self._cut(z, module, query, key, value, mask, options)
        if self.keep_z:
            self._take(z)
        if self.capture is not None:
            self.capture.keep(self.layer, query, key, value, mask, z, options)
        if self.edits:
            z = self._replace(z)
        if self.answer_rows is not None:
            self.answer_rows.record(self.layer, module, query, key, mask, options)
        if self.class_and_patches:
            self._average(module, query, key, mask, options)
        return z

    def _take(self, z: Tensor) -> None:
        self.z = z

    def kept(self) -> Tensor | None:
        """Z of all runs, ``[runs, tokens, heads, dim]``."""
        return self.z

    def _replace(self, z: Tensor) -> Tensor:
        z = z.clone()
        for edit in self.edits:
            where = edit.positions.to(z.device)
            z[edit.row, where, edit.head.head] = (
                0.0 if edit.value is None else edit.value.to(z.device, z.dtype)
            )
        return z

    def _cut(
        self,
        z: Tensor,
        module: nn.Module,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        mask: Tensor | None,
        options: dict[str, Any],
    ) -> Tensor:
        queries = torch.cat([cut.queries for cut, _ in self.cuts]).unique().to(z.device)
        shape = len(z), z.shape[2], len(queries), key.shape[2]
        allowed, touched = allowed_edges(self.cuts, queries, shape)
        rows = attention_rows(module, query, key, mask, queries, allowed, **options)
        z = z.clone()
        z[:, queries] = torch.where(touched[..., None], weigh(rows, value), z[:, queries])
        return z

    def _average(
        self,
        module: nn.Module,
        query: Tensor,
        key: Tensor,
        mask: Tensor | None,
        options: dict[str, Any],
    ) -> None:
        first = int(self.class_token)
        total = query.new_zeros(*query.shape[:2], key.shape[2], dtype=torch.float32)
        for block in torch.arange(first, query.shape[2], device=query.device).split(_BLOCK):
            total += attention_rows(module, query, key, mask, block, **options).sum(2)
        self.patch_row = total / (query.shape[2] - first)
        if self.class_token:
            chosen = torch.zeros(1, dtype=torch.long, device=query.device)
            self.class_row = attention_rows(module, query, key, mask, chosen, **options)[:, :, 0]


@dataclass(eq=False)
class TowerSite(Site):
    """A tap of the vision tower, whose tokens of one run may lie in several rows or calls.

    A run's tokens are counted through: tile after tile, or in the order in which the tower takes
    them.

    Attributes
    ----------
    runs
        Of the batch.
    patches
        Tokens of one run, where the tower takes those of all runs in one row, in one or several
        calls.
    """

    runs: int = 1
    patches: int | None = None
    seen: int = 0
    parts: list[Tensor] = field(default_factory=list)

    def _take(self, z: Tensor) -> None:
        self.parts.append(z.flatten(0, 1))

    def kept(self) -> Tensor | None:
        """Z of all runs, ``[runs, tokens, heads, dim]``."""
        return torch.cat(self.parts).unflatten(0, (self.runs, -1)) if self.parts else None

    def _replace(self, z: Tensor) -> Tensor:
        z = z.clone(memory_format=torch.contiguous_format)
        flat = z.view(-1, *z.shape[2:])
        each = self.patches or len(flat) // self.runs
        for edit in self.edits:
            at = edit.row * each + edit.positions.to(z.device) - self.seen
            here = (at >= 0) & (at < len(flat))
            flat[at[here], edit.head.head] = (
                0.0 if edit.value is None else edit.value.to(z.device, z.dtype)[here]
            )
        self.seen += len(flat)
        return z

    def _cut(self, z: Tensor, *arguments: Any) -> Tensor:
        if len(z) != self.runs:
            raise RunError("edges of this vision tower cannot be cut: it sees a run in parts")
        return super()._cut(z, *arguments)


def tower_sites(vlm: VLM, prompt: Prompt) -> dict[nn.Module, Site]:
    """Return a site for each attention of the vision tower."""
    if vlm.vision is None:
        return {}
    pixels = prompt.inputs.get("pixel_values")
    flat = vlm.family.one_row and pixels is not None and pixels.ndim == 2
    patches = len(pixels) // prompt.runs if flat and pixels is not None else None
    return {
        module: TowerSite(runs=prompt.runs, patches=patches) for module in vlm.vision.attentions
    }
