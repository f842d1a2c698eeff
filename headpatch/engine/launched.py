"""What a plain pass does in a tower's layers, where those are launched at once."""

from collections.abc import Hashable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from headpatch.engine.at_once import at_once
from headpatch.engine.delta_forward import Points
from headpatch.engine.interventions import ZEdit
from headpatch.engine.prefill import Capture
from headpatch.engine.replay import Replays
from headpatch.engine.taps import AnswerRows, Put, Site
from headpatch.engine.trees import Tree
from headpatch.models.vlm import Stack

_MOST = 64 << 20  # bytes that edits may take, written out for every layer


class Edits(NamedTuple):
    """What is put in the place of z, written out for every layer, row and head.

    So the launches are the same whichever heads are changed.
    """

    heads: Bool[Tensor, "layers rows heads"]
    values: Float[Tensor, "layers rows positions heads dim"]
    positions: Int[Tensor, " positions"]


@dataclass(frozen=True, eq=False)
class Kept:
    """What a pass changes in one tower's layers, and all that it keeps of them."""

    stack: Stack
    sites: Mapping[nn.Module, Site]
    rows: int
    capture: Capture | None = None
    points: Points | None = None
    answer_rows: AnswerRows | None = None

    @property
    def here(self) -> list[Site]:
        """The sites of the tower, in the order of its layers."""
        return [self.sites[one] for one in self.stack.attentions if one in self.sites]

    @property
    def alike(self) -> bool:
        """Whether passes of other pairs launch the same: so unless edges are cut, say."""
        edited = any(site.edits for site in self.here)
        return not any(site.particular for site in self.here) and not (
            edited and self.edits is None
        )

    @cached_property
    def edits(self) -> Edits | None:
        """The edits of z; None if there are none, or they cannot be written out."""
        edits = [edit for site in self.here for edit in site.edits]
        if not edits or len(self.here) < len(self.stack.attentions):
            return None
        first, grid = edits[0].positions, self.stack.grid
        known = {id(first)}
        for one in edits:
            if id(one.positions) not in known:
                if one.positions.device.type != "cpu" or not torch.equal(one.positions, first):
                    return None
                known.add(id(one.positions))
        sizes = {one.value.shape[-1] for one in edits if one.value is not None}
        shape = grid.layers, self.rows, len(first), grid.heads, self.stack.head_dim
        if grid.without or sizes - {self.stack.head_dim} or 4 * torch.Size(shape).numel() > _MOST:
            return None
        return _written_out(edits, shape, next(self.stack.outputs[0].parameters()).device)

    def given(self) -> Tree:
        """Return the numbers that it hangs on."""
        return self.edits

    def use(self, given: Tree) -> None:
        """Put these edits in the place of z; None: its own."""
        for layer, site in enumerate(self.here):
            heads = None if given is None else given.heads[layer]
            site.put = None if heads is None else Put(heads, given.values[layer], given.positions)

    def collected(self) -> Tree:
        """Hand over what was kept once the layers have run."""
        capture, points, rows = self.capture, self.points, self.answer_rows
        captured = stood = None
        if capture is not None:
            captured, capture.attention = (capture.attention, capture.refused), {}
        if points is not None:
            stood, points.inputs, points.outputs = (points.inputs, points.outputs), {}, {}
        return [site.taken() for site in self.here], captured, stood, rows and rows.taken()

    def give(self, collected: Tree) -> None:
        """Keep what an equal pass has collected."""
        taken, captured, stood, rows = collected
        for site, one in zip(self.here, taken, strict=True):
            site.give(one)
        if self.capture is not None:
            self.capture.attention, refused = captured
            self.capture.refused = self.capture.refused or refused
        if self.points is not None:
            self.points.inputs, self.points.outputs = stood
        if self.answer_rows is not None:
            self.answer_rows.give(rows)


def _written_out(edits: Sequence[ZEdit], shape: tuple[int, ...], device: torch.device) -> Edits:
    """Write out edits, ``[layers, rows, positions, heads, dim]``; of one head the last counts."""
    last = {(one.head.layer, one.row, one.head.head): one.value for one in edits}
    layer, row, head = torch.tensor(list(last)).unbind(1)
    zero = torch.zeros(shape[2], shape[4], device=device)
    heads = torch.zeros(*shape[:2], shape[3], dtype=torch.bool)
    heads[layer, row, head] = True
    values = torch.zeros(shape, device=device)
    place = layer.to(device), row.to(device), slice(None), head.to(device)
    values[place] = torch.stack([zero if one is None else one.to(zero) for one in last.values()])
    return Edits(heads.to(device), values, edits[0].positions.to(device))


@contextmanager
def launched(
    replays: Replays | None, kept: Kept, layers: Sequence[nn.Module], *what: Hashable
) -> Iterator[None]:
    """Let the `layers` of a tower be launched at once where passes of other pairs launch the same.

    `what` says what the pass does, as far as the model and `kept` do not.
    """
    if replays is None or any("forward" in vars(one) for one in layers) or not kept.alike:
        yield
        return
    seen = kept.capture is not None or any(one._forward_hooks for one in layers)
    answer = kept.answer_rows and kept.answer_rows.position
    keeps_z = tuple(site.keep_z for site in kept.here)
    how = tuple(layers), keeps_z, seen, torch.is_inference_mode_enabled(), answer, *what
    with at_once(replays, layers, how, kept, not seen and kept.stack.grid.tower == "lm"):
        yield
