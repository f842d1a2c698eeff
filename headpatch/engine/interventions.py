"""Frozen descriptions of what to change in a pass.

`Intervention` is what a researcher asks for; `ZEdit` and `Cut` are what the attention function
does, one row of a batch at a time.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor

from headpatch.errors import InputError, RunError
from headpatch.heads import Head, HeadSet, Tower
from headpatch.kinds import KINDS, REWEIGHTED
from headpatch.models.seen import pixel_name
from headpatch.models.spans import Positions
from headpatch.models.vlm import VLM, Stack

if TYPE_CHECKING:
    from headpatch.engine.patching import Baseline

Direction = Literal["noising", "denoising"]
Toward = Literal["image", "region"]
"""Keys to which attention is re-weighted: every image token, or those of the pair's region."""
WITH, WITHOUT = 0, 1  # the runs' places in a pair's batch
VisionPositions = Literal["class", "patches", "all"]
"""Tokens of the vision tower: its class token, every other token, or both."""


@dataclass(frozen=True)
class Intervention:
    """Heads × kind × positions × direction: all that there is to say of a change."""

    heads: HeadSet
    kind: str  # what z becomes, of `headpatch.kinds.KINDS`
    # ``noising`` changes the with-run (is the head necessary?), ``denoising`` the without-run (is
    # it sufficient?)
    direction: Direction
    # Tokens at which heads of each tower are changed; None if there are none of it.
    positions: Positions | None = "answer"
    vision_positions: VisionPositions | None = "all"
    alpha: float | None = None  # of a kind that takes one; None of any other
    toward: Toward | None = None  # of a kind that re-weights attention; None of any other

    def __post_init__(self) -> None:
        for tower, name in (("lm", "positions"), ("vision", "vision_positions")):
            if all(head.tower != tower for head in self.heads):
                object.__setattr__(self, name, None)
            elif getattr(self, name) is None:
                raise ValueError(f"heads of tower {tower!r} are changed, but not where")
        if not KINDS[self.kind].alpha:
            object.__setattr__(self, "alpha", None)
        elif self.alpha is None:
            raise ValueError(f"kind {self.kind!r} needs alpha")
        if self.kind not in REWEIGHTED:
            object.__setattr__(self, "toward", None)
        elif self.vision_positions is not None:
            raise ValueError(f"kind {self.kind!r} is of language-model heads")
        else:
            object.__setattr__(self, "toward", self.toward or "image")

    # A pair has thousands of changes, the same in every pair; each is asked for these many times.
    @cached_property
    def follows(self) -> bool:
        """Whether z hangs on what the change itself does: rows re-weighted in several layers."""
        return self.toward is not None and len({head.layer for head in self.heads}) > 1

    @cached_property
    def run(self) -> int:
        """The run that is changed: `WITH` or `WITHOUT`."""
        return base_run(self.direction)

    @cached_property
    def way(self) -> tuple[str, float | None, Toward | None]:
        """What z becomes, whichever heads they are."""
        return self.kind, self.alpha, self.toward

    @property
    def scope(self) -> str:
        """Where heads are changed, as tables name it: ``answer``, ``patches``, ``answer+v:all``."""
        if self.positions and self.vision_positions:
            return f"{self.positions}+v:{self.vision_positions}"
        return self.positions or self.vision_positions or ""


def base_run(direction: Direction) -> int:
    """Return the run that a direction changes."""
    return WITH if direction == "noising" else WITHOUT


def replacement(
    kind: str,
    alpha: float | None,
    own: Tensor,
    other: Tensor,
    mean: Tensor | None,
    donor: tuple[Tensor, Tensor] | None = None,
) -> Tensor:
    """Return what a kind puts in the place of z.

    `own`, `other` and `mean` are z of the run that is changed, of the other run, and over a
    reference set; `donor`, of another pair's same run and other run. A ValueError if what is needed
    is missing.
    """
    source = KINDS[kind].source
    same_of_donor, other_of_donor = donor or (None, None)
    values = {"own": own, "other": other, "mean": mean}
    values |= {"same of donor": same_of_donor, "other of donor": other_of_donor}
    if source == "nothing":
        return torch.zeros_like(own)
    value = values[source]
    if value is None:
        raise ValueError(f"kind {kind!r} needs {'means' if source == 'mean' else 'another pair'}")
    return value if alpha is None else alpha * value


@dataclass(frozen=True, eq=False)
class ZEdit:
    """One head's z in one row of a batch, replaced; None is zero."""

    row: int
    head: Head
    positions: Int[Tensor, " positions"]
    value: Float[Tensor, "positions head_dim"] | None
    # Of a run in its layer, in a vision tower whose rows are not runs; None where a run has as
    # many rows as any other.
    tokens: int | None = None


@dataclass(frozen=True, eq=False)
class Cut:
    """Edges of heads in one row of a batch, removed: every query loses every key.

    The remaining attention is renormalised; a query that keeps no key gets z = 0. `own` says
    whether a query that is among the keys loses its own position too. With a `factor` edges are not
    removed but multiplied by it. Queries count from the first token, generated ones included.
    """

    row: int
    heads: Head | HeadSet
    queries: Int[Tensor, " queries"]
    keys: Int[Tensor, " keys"]
    own: bool = True
    factor: float = 0.0

    def by_layer(self) -> dict[tuple[Tower, int], list[int]]:
        """Return the heads' numbers, by tower and layer."""
        heads = [self.heads] if isinstance(self.heads, Head) else self.heads
        found: dict[tuple[Tower, int], list[int]] = {}
        for head in heads:
            found.setdefault((head.tower, head.layer), []).append(head.head)
        return found


def refused(vlm: VLM) -> str:
    """Say why heads of this vision tower cannot be changed; "" if they can."""
    if not vlm.family.vision:
        why = vlm.family.why_no_vision
        return f"headpatch cannot change the vision tower of this family{why and f' ({why})'}"
    return ""


def tower_of(vlm: VLM) -> Stack:
    """Return the vision tower's layers; a `RunError` if its heads cannot be changed."""
    if why := refused(vlm):
        raise RunError(f"{vlm.name}: {why}")
    return vlm.stack("vision")


def whole_layers(vlm: VLM) -> list[HeadSet]:
    """Return, for each vision layer, the set of all its heads."""
    return list(tower_of(vlm).grid.whole_layers())


def vision_positions(
    vlm: VLM, base: "Baseline", positions: VisionPositions
) -> Int[Tensor, " positions"]:
    """Return the positions of a scope among the tower's tokens of one run, tile after tile."""
    check_scope(vlm, positions)
    tokens = base.trace.z["vision"][0].shape[1]
    each = torch.arange(tokens)
    if positions == "all" or not vlm.family.class_token:
        return each
    prompt = base.prompt.select(0)
    tiles = prompt.inputs[pixel_name(prompt.inputs)].shape[:-3].numel()
    is_class = each % (tokens // tiles) == 0  # one a tile
    return each[is_class if positions == "class" else ~is_class]


def check_scope(vlm: VLM, positions: VisionPositions, argument: str = "--positions") -> None:
    """Refuse class tokens of a tower that has none."""
    if positions == "class" and not vlm.family.class_token:
        raise InputError(argument, "class: the tower has no class token", "patches or all")


def never_read(vlm: VLM, members: HeadSet) -> bool:
    """Whether all these heads are vision heads of layers that do not reach the language model."""
    last = vlm.feature_layer
    return last is not None and all(
        head.tower == "vision" and head.layer > last for head in members
    )


def edges_by_layer(vlm: VLM, cut: Cut) -> Iterator[tuple[Tower, int, list[int]]]:
    """Say where a cut is made: tower, layer and heads.

    Layers that look at the image across see no token of the prompt, so nothing is cut there.
    """
    for (tower, layer), numbers in cut.by_layer().items():
        if tower != "lm" or layer not in vlm.crossing:
            yield tower, layer, numbers
