"""The vision tower's heads and tokens: which there are, and which can make a difference."""

from typing import TYPE_CHECKING

import torch
from jaxtyping import Int
from torch import Tensor

from headpatch.engine.interventions import VisionPositions
from headpatch.errors import InputError, RunError
from headpatch.heads import HeadSet
from headpatch.models.vlm import VLM, Stack

if TYPE_CHECKING:
    from headpatch.engine.patching import Baseline


def refused(vlm: VLM) -> str:
    """Say why heads of this vision tower cannot be changed; "" if they can."""
    if not vlm.family.vision:
        return "headpatch cannot change the vision tower of this family"
    return ""


def tower_of(vlm: VLM) -> Stack:
    """Return the vision tower's layers.

    Raises
    ------
    RunError
        If its heads cannot be changed.
    """
    if why := refused(vlm):
        raise RunError(f"{vlm.name}: {why}")
    return vlm.stack("vision")


def whole_layers(vlm: VLM) -> list[HeadSet]:
    """Return, for each vision layer, the set of all its heads."""
    return list(tower_of(vlm).grid.whole_layers())


def vision_positions(
    vlm: VLM, base: "Baseline", positions: VisionPositions
) -> Int[Tensor, " positions"]:
    """Return the positions of a scope among the tower's tokens of one run, tile after tile.

    Raises
    ------
    InputError
        If the tower has no class token and it is asked for.
    """
    check_scope(vlm, positions)
    tokens = base.trace.z["vision"][0].shape[1]
    each = torch.arange(tokens)
    if positions == "all" or not vlm.family.class_token:
        return each
    tiles = base.prompt.inputs["pixel_values"].shape[:-3].numel() // base.prompt.runs
    is_class = each % (tokens // tiles) == 0  # one a tile
    return each[is_class if positions == "class" else ~is_class]


def check_scope(vlm: VLM, positions: VisionPositions, argument: str = "--positions") -> None:
    """Refuse a scope that no picture can have in this tower.

    Raises
    ------
    InputError
        If the tower has no class token and it is asked for.
    """
    if positions == "class" and not vlm.family.class_token:
        raise InputError(argument, "class: the tower has no class token", "patches or all")


def never_read(vlm: VLM, members: HeadSet) -> bool:
    """Whether all these heads are vision heads of layers that do not reach the language model."""
    last = vlm.feature_layer
    return last is not None and all(
        head.tower == "vision" and head.layer > last for head in members
    )
