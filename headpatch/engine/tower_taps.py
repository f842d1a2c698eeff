"""What passes read and edit in the vision tower, which may take a picture in parts."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import Module

from headpatch.engine.attention import Key, Mask, Options, Query, attention_rows
from headpatch.engine.taps import Site, sent, together, values_of
from headpatch.errors import RunError
from headpatch.models.prompt import Prompt
from headpatch.models.vlm import VLM

_BLOCK = 64  # queries at a time when rows are averaged, so that no N×N map is ever held


@dataclass(eq=False)
class Received:
    """The attention that a vision layer's tokens receive, tile after tile or call after call.

    Of a run with several tiles the rows of all patch queries (or class tokens) are averaged: a
    query sees the keys of its own tile alone, so each mean row sums to 1 over all of the run.
    """

    runs: int
    class_token: bool  # whether each tile begins with one
    patches: list[Tensor] = field(default_factory=list)  # ``[tokens, heads]`` of each call
    classes: list[Tensor] = field(default_factory=list)
    asked: int = 0  # patch queries of all runs
    tiles: int = 0  # class tokens of all runs

    def add(self, module: Module, query: Query, key: Key, mask: Mask, options: Options) -> None:
        """Add a call, whose rows are tiles, or all patches."""
        first = int(self.class_token)
        total = query.new_zeros(*query.shape[:2], key.shape[2], dtype=torch.float32)
        for block in torch.arange(first, query.shape[2], device=query.device).split(_BLOCK):
            total += attention_rows(module, query, key, mask, block, **options).sum(2)
        self.patches.append(total.transpose(1, 2).flatten(0, 1))
        self.asked += len(query) * (query.shape[2] - first)
        if first:
            chosen = torch.zeros(1, dtype=torch.long, device=query.device)
            row = attention_rows(module, query, key, mask, chosen, **options)[:, :, 0]
            self.classes.append(row.transpose(1, 2).flatten(0, 1))
            self.tiles += len(query)

    @property
    def patch_row(self) -> Float[Tensor, "runs heads tokens"] | None:
        """The mean row of a run's patch queries."""
        return self._mean(self.patches, self.asked)

    @property
    def class_row(self) -> Float[Tensor, "runs heads tokens"] | None:
        """The mean row of a run's class tokens, one a tile; None without any."""
        return self._mean(self.classes, self.tiles)

    def _mean(self, parts: Sequence[Tensor], queries: int) -> Tensor | None:
        if not parts:
            return None
        each: Tensor = torch.cat(list(parts)).unflatten(0, (self.runs, -1)).transpose(1, 2)
        return each / (queries / self.runs)


@dataclass(eq=False)
class TowerSite(Site):
    """A tap of the vision tower, whose tokens of one run may lie in several rows or calls.

    A run's tokens are counted through: tile after tile, or in the order in which the tower takes
    them. Where it takes those of all runs in one row, or each run in a call, edits say how many.
    """

    runs: int = 1
    seen: int = 0
    parts: list[Tensor] = field(default_factory=list)
    received: "Received | None" = None  # what tokens receive, if that is kept

    @property
    def used(self) -> bool:
        """Whether anything is read or changed here."""
        return super().used or self.received is not None

    @property
    def particular(self) -> bool:
        """Whether what is launched here hangs on the pair: edits are made one by one, too."""
        return super().particular or bool(self.edits) or self.received is not None

    def taken(self) -> Any:
        """Hand over what is kept of z."""
        parts, seen, self.parts, self.seen = self.parts, self.seen, [], 0
        return parts, seen

    def give(self, taken: Any) -> None:
        """Keep what an equal pass has taken."""
        self.parts, self.seen = taken

    def __call__(  # noqa: D102
        self, module: Module, query: Tensor, key: Tensor, value: Tensor, mask: Mask, **options: Any
    ) -> Tensor:
        if self.received is not None:
            self.received.add(module, query, key, mask, options)
        return super().__call__(module, query, key, value, mask, **options)

    def _take(self, z: Tensor) -> None:
        self.parts.append(z.flatten(0, 1))

    def kept(self) -> Tensor | None:
        """Z of all runs, ``[runs, tokens, heads, dim]``."""
        return torch.cat(self.parts).unflatten(0, (self.runs, -1)) if self.parts else None

    def _replace(self, z: Tensor) -> Tensor:
        z = z.clone(memory_format=torch.contiguous_format)
        flat = z.view(-1, *z.shape[2:])
        for same in together(self.edits, of_one_row=True):
            # Where, is found on the host: a choice on the device would have to be waited for.
            first, heads = same[0], torch.tensor([one.head.head for one in same])
            each = first.tokens or len(flat) // self.runs
            at = first.row * each + first.positions - self.seen
            here = ((at >= 0) & (at < len(flat))).nonzero()[:, 0]
            put = values_of(same, len(at), z)
            if len(here) < len(at):
                put = put[:, sent(here, z)]
            flat[sent(at[here], z), sent(heads, z)[:, None]] = put
        self.seen += len(flat)
        return z

    def _cut(self, z: Tensor, *taken: Any, **options: Any) -> Tensor:
        if len(z) != self.runs:
            raise RunError("edges of this vision tower cannot be cut: it sees a run in parts")
        return super()._cut(z, *taken, **options)


def tower_sites(
    vlm: VLM, prompt: Prompt, received: Sequence[Received] = ()
) -> dict[nn.Module, Site]:
    """Return a site for each attention of the vision tower; `received` is filled, one a layer."""
    if vlm.vision is None:
        return {}
    kept: Sequence[Received | None] = received or [None] * len(vlm.vision.attentions)
    return {
        module: TowerSite(runs=prompt.runs, received=one)
        for module, one in zip(vlm.vision.attentions, kept, strict=True)
    }
