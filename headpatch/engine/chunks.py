"""What a widening pass is to do: rows, cut into chunks that walk together."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Int
from torch import Tensor

from headpatch.heads import HeadSet


@dataclass(frozen=True)
class Row:
    """One row of a widening pass: these heads, with the z that stands there in `sources`."""

    heads: HeadSet
    source: int

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
            edits[head.layer].append((place, head.head, row.source))
    listed = [edit for layer in edits for edit in layer]
    table = torch.tensor(listed, device=device).reshape(-1, 3)  # sent to the device at once
    parts = table.split([len(layer) for layer in edits])
    packed = (Edits(*part.T) if len(part) else None for part in parts)
    return Chunk(tuple(order), tuple(joining), tuple(packed))
