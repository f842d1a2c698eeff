"""Tokens of a session's vision tower: where in the picture they lie, and what looks at them."""

import warnings
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float

from headpatch.core.session import Session
from headpatch.engine.forward import Keep, forward
from headpatch.models.tower_patches import TowerPatches, nowhere, tower_patches
from headpatch.stats.attention_mass import region_mask


def places_in_tower(session: Session) -> TowerPatches:
    """Find the place of every token of the vision tower; `TowerPatches.unknown` if none is known.

    It takes some passes up to the tower's first layer.
    """
    if session.study.context_images:
        return nowhere("the prompt shows several pictures")
    return tower_patches(session.vlm, session.pair.with_image, session.prompt)


def region_in_tower(session: Session, places: TowerPatches) -> Bool[np.ndarray, " placed"]:
    """Say which of the tower's tokens that have a place belong to the pair's region.

    None may, where the region holds the centre of an image token that is merged of several, and
    none of theirs.
    """
    return region_mask(places.boxes[places.placed], session.pair.region.box)


@dataclass(frozen=True, eq=False)
class InTower:
    """Attention to the tower's tokens that stand for a place, in both runs.

    Of the class token (``vision_cls``; none without one) and of the mean patch query
    (``vision_patch``).
    """

    rows: Mapping[str, Float[np.ndarray, "runs layers heads placed"]]
    boxes: Float[np.ndarray, "placed 4"]
    region: Bool[np.ndarray, " placed"]  # which tokens belong to the pair's region; some do


def in_tower(session: Session) -> InTower | None:
    """Run both pictures for it; None, with a warning, where tokens or the region are not known."""
    found = _in_tower(session)
    if not isinstance(found, str):
        return found
    if session.vlm.vision is not None:
        words = f"attention inside the vision tower of {session.vlm.name} is not drawn"
        warnings.warn(f"{words}: {found}", stacklevel=2)
    return None


def _in_tower(session: Session) -> InTower | str:
    """Return it, or why there is none."""
    places = places_in_tower(session)
    if places.unknown:
        return places.unknown
    if not (region := region_in_tower(session, places)).any():
        return "the region holds the centre of none of its patches"
    trace = forward(session.vlm, session.prompt, keep=Keep(vision_rows=True))
    kept = {"vision_cls": trace.vision_class_rows, "vision_patch": trace.vision_patch_rows}
    rows = {name: one.double().numpy() for name, one in kept.items() if one is not None}
    if any(one.shape[-1] != len(places.boxes) for one in rows.values()):
        return "it attends to other tokens than its patches"
    at = places.placed
    return InTower({name: one[..., at] for name, one in rows.items()}, places.boxes[at], region)
