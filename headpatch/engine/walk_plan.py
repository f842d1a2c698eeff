"""Which rows of a widening pass walk together, where they join, and what is replaced in them."""

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, NamedTuple, TypeVar

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from headpatch.heads import Grid, HeadSet

Made = TypeVar("Made")
_FEWEST = 16  # rows that walk from the first layer on: fewer take as long


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
    `early` ones come first. Rows beyond those are walked for the shape alone, and change nothing.
    """

    order: tuple[int, ...]
    joining: tuple[int, ...]
    edits: tuple[Edits | None, ...]
    early: Early | None = None

    def asked(self, logits: Float[Tensor, "rows tokens"]) -> Float[Tensor, "rows_ tokens"]:
        """Return the rows that were asked for, behind the untouched one."""
        return logits[: 1 + len(self.order)]

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
    entries = np.fromiter((row.entry for row in rows), int, len(rows))
    early = np.fromiter((row.early for row in rows), bool, len(rows))
    order = np.lexsort((entries, ~early))
    return [
        _chunk(order[start : start + size], rows, entries, grid, device, int(carried), size)
        for start in range(0, len(order), size)
    ]


def _chunk(
    order: Int[np.ndarray, " rows"],
    rows: Sequence[Row],
    entries: Int[np.ndarray, " all"],
    grid: Grid,
    device: torch.device,
    first: int,
    size: int,
) -> Chunk:
    places, layers = order.tolist(), grid.layers
    asked = [rows[place] for place in places]
    joining = np.bincount(entries[order], minlength=layers)
    early, rest = [row for row in asked if row.early], [row for row in asked if not row.early]
    walking = len(early)
    if early and not rest:  # as many as in other chunks, whatever was asked for
        joining[0] = walking = min(_rounded(len(early)), size)
    edits: tuple[Edits | None, ...] = (None,) * layers
    if rest:
        place = first + len(early)
        edits = _latest_edits.of(
            rest, (layers, device, place), lambda: _edits(rest, layers, device, place)
        )
    replaced = None
    if early:
        how = grid, device, walking
        replaced = _latest_early.of(early, how, lambda: _early(early, *how))
    return Chunk(tuple(places), tuple(joining.tolist()), edits, replaced)


def _rounded(count: int) -> int:
    """Return the next power of four, and at least `_FEWEST`."""
    bits = (count - 1).bit_length()
    return max(1 << bits + bits % 2, _FEWEST)


class _Latest(Generic[Made]):
    """What was made of the latest lists of rows: over many pairs they are the same again."""

    def __init__(self) -> None:
        self._known: deque[tuple[tuple[Row, ...], Any, Made]] = deque(maxlen=8)

    def of(self, rows: Sequence[Row], more: Any, make: Callable[[], Made]) -> Made:
        """Return what was made of the same rows and of what else it hangs on, or make it."""
        for known, others, made in self._known:
            if more == others and len(known) == len(rows) and _same(known, rows):
                return made
        made = make()
        self._known.appendleft((tuple(rows), more, made))
        return made


def _same(rows: Sequence[Row], others: Sequence[Row]) -> bool:
    """Whether rows are of the very same sets of heads: a thousand are compared in no time."""
    return all(
        one.heads is other.heads and one.source == other.source
        for one, other in zip(rows, others, strict=True)
    )


_latest_edits = _Latest[tuple[Edits | None, ...]]()
_latest_early = _Latest[Early]()


def _edits(
    rows: Sequence[Row], layers: int, device: torch.device, first: int
) -> tuple[Edits | None, ...]:
    """Return by layer what is replaced in `rows`, which stand from place `first` on."""
    sizes = [len(row.heads) for row in rows]
    layer, head = np.concatenate([row.heads.places for row in rows]).T
    place = np.repeat(np.arange(len(rows)) + first, sizes)
    source = np.repeat([row.source for row in rows], sizes)
    by_layer = layer.argsort(kind="stable")
    table = torch.from_numpy(np.stack([place, head, source], 1)[by_layer])
    # Without waiting for what the device computes; what is copied from is taken at once.
    parts = table.to(device, non_blocking=True).split(np.bincount(layer, minlength=layers).tolist())
    return tuple(part if len(part) else None for part in parts)


def _early(rows: Sequence[Row], grid: Grid, device: torch.device, walking: int) -> Early:
    """Write out what is replaced in `rows`, the first of those that are `walking`."""
    heads = np.zeros((grid.layers, walking, grid.heads), dtype=bool)
    source = torch.zeros(walking, dtype=torch.long)
    for index, row in enumerate(rows):
        layer, head = row.heads.places.T
        heads[layer, index, head] = True
        source[index] = row.source
    there = torch.from_numpy(heads).to(device, non_blocking=True)
    return Early(there, source.to(device, non_blocking=True))
