"""Which rows of a widening pass walk together, where they join, and what is replaced in them."""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Int
from torch import Tensor

from headpatch.heads import Grid, HeadSet


class Row(NamedTuple):
    """One row of a widening pass: these heads, with the z that stands there in `sources`."""

    heads: HeadSet
    source: int
    early: bool = False  # whether it walks along from the first layer on, as others than it do

    @property
    def entry(self) -> int:
        """The layer at which the row joins: where it first differs, or the first."""
        return 0 if self.early else self.heads.heads[0].layer  # they are in order


Edits = Int[Tensor, "_ 3"]  # the z of one layer that is replaced: row, head, source


@dataclass(frozen=True, eq=False)
class Early:
    """What is replaced in rows that walk along from the first layer on.

    The shapes are the same whichever heads these are: see `headpatch.engine.replay`.
    """

    heads: Bool[Tensor, "layers rows heads"]
    source: Int[Tensor, " rows"]


@dataclass(frozen=True, eq=False)
class Chunk:
    """Rows that walk together: by layer, how many are `joining`, and what is replaced there.

    `order` is, for each row after the untouched one, its place in the list that was asked for; the
    `early` ones come first.
    """

    order: tuple[int, ...]
    joining: tuple[int, ...]
    edits: tuple[Edits | None, ...]
    early: Early | None = None

    @property
    def first(self) -> int:
        """The layer at which the walk begins."""
        return next(layer for layer, count in enumerate(self.joining) if count)


def plan(
    rows: Sequence[Row], grid: Grid, size: int, device: torch.device, carried: bool = True
) -> list[Chunk]:
    """Cut rows into chunks of at most `size` that start as late as they can.

    `carried`: whether the untouched run walks along as the first row (see `walk`).
    """
    by_entry = sorted(
        range(len(rows)), key=lambda index: (not rows[index].early, rows[index].entry)
    )
    return [
        _chunk(by_entry[start : start + size], rows, grid, device, int(carried))
        for start in range(0, len(by_entry), size)
    ]


def _chunk(
    order: Sequence[int], rows: Sequence[Row], grid: Grid, device: torch.device, first: int
) -> Chunk:
    asked, layers = [rows[index] for index in order], grid.layers
    joining = np.bincount([row.entry for row in asked], minlength=layers)
    early = [row for row in asked if row.early]
    edits = _edits(asked[len(early) :], layers, device, first + len(early))
    return Chunk(tuple(order), tuple(joining.tolist()), edits, _early(early, grid, device))


_latest: "deque[tuple[tuple[Row, ...], Any, tuple[Edits | None, ...]]]" = deque(maxlen=8)
"""Rows, what else their edits hang on, and those: over many pairs they are the same again."""


def _edits(
    rows: Sequence[Row], layers: int, device: torch.device, first: int
) -> tuple[Edits | None, ...]:
    """Return by layer what is replaced in `rows`, which stand from place `first` on."""
    if not rows:
        return (None,) * layers
    asked, more = tuple(rows), (layers, device, first)
    for known, others, edits in _latest:
        if more == others and len(known) == len(asked) and _same(known, asked):
            return edits
    sizes = [len(row.heads) for row in rows]
    layer, head = np.concatenate([row.heads.places for row in rows]).T
    place = np.repeat(np.arange(len(rows)) + first, sizes)
    source = np.repeat([row.source for row in rows], sizes)
    by_layer = layer.argsort(kind="stable")
    table = torch.from_numpy(np.stack([place, head, source], 1)[by_layer])
    parts = table.to(device).split(np.bincount(layer, minlength=layers).tolist())
    made = tuple(part if len(part) else None for part in parts)
    _latest.appendleft((asked, more, made))
    return made


def _same(rows: Sequence[Row], others: Sequence[Row]) -> bool:
    """Whether rows are of the very same sets of heads: a thousand are compared in no time."""
    return all(
        one.heads is other.heads and one.source == other.source
        for one, other in zip(rows, others, strict=True)
    )


def _early(rows: Sequence[Row], grid: Grid, device: torch.device) -> Early | None:
    if not rows:
        return None
    heads = np.zeros((grid.layers, len(rows), grid.heads), dtype=bool)
    for index, row in enumerate(rows):
        layer, head = row.heads.places.T
        heads[layer, index, head] = True
    source = torch.tensor([row.source for row in rows])
    return Early(torch.from_numpy(heads).to(device), source.to(device))
