"""A fast path against the plain one: how far they may lie apart, and whether they do.

Both compute in float32. Over low-precision weights a fast path rounds what enters its products, so
that it gets a change wrong by a share of the change. How large a share, the model itself shows: its
plain pass in the weights' precision rounds what enters the same products, and lies that far from
float32 arithmetic. The size of a change is how much it moves two logits apart, on average over the
vocabulary: LD alone may hardly move where everything else does. A path that does something else is
off by about the size of the change, however small that is.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import chain
from typing import Final, NamedTuple, TypeAlias

import numpy as np
import torch
from torch import Tensor

from headpatch.engine.forward import forward
from headpatch.engine.interventions import WITH, WITHOUT, Direction, Intervention
from headpatch.engine.patching import Baseline, Outcome, Read, patch
from headpatch.engine.precision import is_low
from headpatch.errors import InputError, RunError
from headpatch.heads import Grid, Head, HeadSet, Tower
from headpatch.models.vlm import VLM

TOLERANCE: Final = 1e-4
"""Logits by which a fast path may differ from the plain path in float32."""
_SHARES: Final = 4.0  # the share that rounding explains, in errors of the plain low-precision pass
_MOST: Final = 0.25  # of a change: beyond that it could as well be another one
_FLOAT32: Final = 2.0**-18  # of how far logits lie apart: what float32 itself may be off by
_SPLIT: Final = 2.0**-8  # the same over low-precision weights where products are split: `precision`
_TOKENS: Final = 512  # of the vocabulary are looked at
_FURTHER: Final = 3  # heads of a layer that must contradict one that is off
_LARGEST: Final = 4  # heads of each ranking that are taken where the first do not tell
Fast: TypeAlias = Callable[[list[Intervention], Read], list[Outcome]]


@dataclass(frozen=True)
class Check:
    """How a fast path compares with the plain path on a few heads."""

    # largest difference of an effect, in logits; infinite if it cannot run, for `reason`
    worst: float
    # What rounding explains of the largest change; or, if that is more, the difference at a head
    # that others of its layer contradict.
    allowed: float
    reason: str = ""  # why it may not be used, where that is known

    @property
    def exact(self) -> bool:
        """Whether the fast path may be used for this model."""
        return not self.reason and self.worst <= self.allowed

    @property
    def why(self) -> str:
        """Why it may not, in a few words."""
        return self.reason or f"it is off by {self.worst:.1e} logits"


@dataclass(frozen=True)
class Rounding:
    """What rounding explains, in logits.

    `share` is of a change (0 in float32), `still` what it leaves of no change at all.
    """

    share: float
    still: float

    @classmethod
    def of(cls, vlm: VLM, base: Baseline) -> "Rounding":
        """Measure it on the untouched runs."""
        exact = some(base.trace.logits)
        spread = max(map(size_of, exact))
        still = _FLOAT32 * spread
        if not is_low(vlm):
            return cls(0.0, still)
        try:
            off = max(map(size_of, some(forward(vlm, base.prompt).logits) - exact))
        except RunError:  # logits that are not finite
            off = float("inf")
        share = min(_SHARES * off / spread, _MOST) if spread else _MOST
        return cls(share, _SPLIT * share * spread if exact.device.type == "cuda" else still)

    def explains(self, size: float) -> float:
        """Return by how much a fast path may be off for a change of such a size."""
        return max(TOLERANCE, self.share * size + self.still) if self.share else TOLERANCE


def some(logits: Tensor) -> Tensor:
    """Return the logits of some tokens, float32, evenly drawn from the vocabulary."""
    return logits[..., :: max(1, logits.shape[-1] // _TOKENS)].float()


def size_of(moved: Tensor | Sequence[float]) -> float:
    """Return how much two of these logits move apart: √2 times their standard deviation."""
    return float(torch.as_tensor(moved).double().std(correction=0)) * 2**0.5


class Row(NamedTuple):
    """One change on both paths, in logits."""

    change: Intervention
    on_ld: float  # how far its effects lie apart
    off: float  # the same, or of all logits if that is more; NaN if either is
    size: float  # how much it moves the logits
    allowed: float

    @property
    def fails(self) -> bool:
        """Whether the paths lie further apart than rounding explains."""
        return not self.off <= self.allowed

    @property
    def gross(self) -> bool:
        """Whether no rounding could explain it: half of the change itself is wrong."""
        return not self.off <= max(self.size / 2, 4 * self.allowed)

    @property
    def tells(self) -> bool:
        """Whether a path that did something else would be seen."""
        return self.size >= 4 * self.allowed


class _Refused(Exception):
    def __init__(self, row: Row) -> None:
        self.row = row


@dataclass(frozen=True, eq=False)
class Comparison:
    """Compares a tower's paths on a head of each of some `layers`, and on more if need be.

    `asked` gives the changes of sets of heads; they change z at positions `where`. The logits
    depend on the first `reached` layers. `fast` may leave out what is read beside LD.
    """

    vlm: VLM
    base: Baseline
    tower: Tower
    layers: Sequence[int]
    reached: int
    where: Tensor
    asked: Callable[[Sequence[HeadSet]], list[Intervention]]
    fast: Fast

    def outcome(self) -> Check:
        """Compare the paths; a fast path whose layers cannot be run like this is refused."""
        rows = list[Row]()
        try:
            excused = self._compare(rows)
        except (torch.OutOfMemoryError, InputError):
            raise  # the plain path takes more memory, not less
        except _Refused as error:
            row = error.row
            words = f"it is off by {row.off:.1e} logits at {row.change.heads}"
            return Check(_worst(rows), row.allowed, f"{words}; rounding explains {row.allowed:.1e}")
        except RunError as error:
            return Check(float("inf"), TOLERANCE, str(error))
        except (RuntimeError, TypeError, ValueError, IndexError, AttributeError) as error:
            said = str(error).strip().partition("\n")[0]
            words = "its layers do not run on a part of the pass alone"
            raised = f"{type(error).__name__}: {said}".rstrip(": ")
            return Check(float("inf"), TOLERANCE, f"{words} ({raised})")
        return Check(_worst(rows), max(excused, *(row.allowed for row in rows)))

    def _compare(self, rows: list[Row]) -> float:
        """Fill in rows until they tell; return the largest difference that others contradict.

        A difference is not held against the path if other heads of its layer have none, unless it
        is gross. Where even half of all heads change next to nothing, no row may be off by a good
        part of what little it does.
        """
        excused = 0.0
        for sets in self._sets():
            found = self._rows(sets)
            rows += found
            if failed := [row for row in found if row.fails]:
                further = self._rows(self._others(failed))
                rows += further
                against = [row for row in failed if row.gross or not further]
                if against := [*against, *(row for row in further if row.fails)]:
                    raise _Refused(against[0])
                excused = max(excused, *(row.off for row in failed))
            if _all_tell(rows):
                return excused
        for row in rows:
            least = row.size / 4 + self._rounding.still
            if not row.off <= least:
                raise _Refused(row._replace(allowed=least))
        return excused

    def _sets(self) -> Iterator[Sequence[HeadSet]]:
        """Yield a head of each layer; those whose z is largest, or changes most; half of layers."""
        heads, grid = self._grid.heads, Grid(self.reached, self._grid.heads, self.tower)
        first = [Head(layer, layer % heads, self.tower) for layer in self.layers]
        yield [HeadSet.of(head) for head in first]
        every = list(grid)
        trace = self.base.seen_from(WITH).trace
        z = [each[:, self.where.to(each.device)] for each in trace.z[self.tower]]
        largest = dict[Head, None]()
        for parts in (
            [each[WITH] - each[WITHOUT] for each in z[: self.reached]],
            [each[WITH] for each in z[: self.reached]],
        ):
            sizes = np.stack([part.float().norm(dim=(0, 2)).cpu().numpy() for part in parts])
            order = np.argsort(-sizes.flatten(), kind="stable")[:_LARGEST]
            largest |= dict.fromkeys(every[place] for place in order.tolist())
        yield [HeadSet.of(head) for head in largest if head not in first]
        # Not whole layers: of one that writes nothing at all rounding is left, which a norm of what
        # it writes (Gemma's) would make as large as ever.
        half = [HeadSet(layer.heads[::2]) for layer in grid.whole_layers()]
        yield [*(half[layer] for layer in self.layers), HeadSet(tuple(chain(*half)))]

    def _others(self, failed: Sequence[Row]) -> list[HeadSet]:
        """Return further heads of the layers at which single heads failed."""
        alone = [row.change.heads.heads for row in failed if len(row.change.heads) == 1]
        known, step = {one for (one,) in alone}, max(1, self._grid.heads // (_FURTHER + 1))
        found = dict[Head, None]()
        for one in sorted(known):
            turned = ((one.head + step * k) % self._grid.heads for k in range(1, _FURTHER + 1))
            found |= dict.fromkeys(Head(one.layer, head, self.tower) for head in turned)
        return [HeadSet.of(head) for head in found if head not in known]

    def _rows(self, sets: Sequence[HeadSet]) -> list[Row]:
        """Run changes of sets of heads on both paths."""
        if not sets:
            return []
        asked = self.asked(sets)
        slow = patch(self.vlm, self.base, asked, read=some)
        found = []
        for one, other in zip(slow, self.fast(asked, some), strict=True):
            size, on_ld = size_of(one.read), abs(one.effect - other.effect)
            apart = size_of(np.subtract(other.read, one.read).tolist()) if other.read else 0.0
            off, allowed = float(np.max([on_ld, apart])), self._rounding.explains(size)
            found.append(Row(one.intervention, on_ld, off, size, allowed))
        return found

    @cached_property
    def _rounding(self) -> Rounding:
        return Rounding.of(self.vlm, self.base)

    @property
    def _grid(self) -> Grid:
        return self.vlm.stack(self.tower).grid


def _worst(rows: Sequence[Row]) -> float:
    return float(np.max([row.on_ld for row in rows]))  # NaN if any is: then it is not exact


def _all_tell(rows: Sequence[Row]) -> bool:
    """Whether of each kind and direction a change tells."""
    ways: dict[tuple[str, Direction], bool] = {}
    for row in rows:
        way = row.change.kind, row.change.direction
        ways[way] = ways.get(way, False) or row.tells
    return all(ways.values())
