"""Where in the picture each token of the vision tower comes from.

Where image tokens are merged, pooled or dropped, the tower's own tokens are more, and finer. Which
patch of the pixel values a token is made of is seen by changing them (`headpatch.models.reach`);
where in the picture that patch lies is measured, as for image tokens.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import TypeAlias

import numpy as np
import torch
from jaxtyping import Float, Int
from PIL import Image
from torch import Tensor

from headpatch.models.measured import Placeless
from headpatch.models.patches import (
    best_fitting,
    block_of,
    internvl_grid,
    pixtral_view,
    qwen_view,
    tiles_of,
    tiles_then_whole,
    told_grid,
)
from headpatch.models.pictures import seen_by
from headpatch.models.prompt import Prompt
from headpatch.models.reach import patch_behind, tower_tokens
from headpatch.models.seen import Seen, pixel_name, placeless, view_of, within
from headpatch.models.vlm import VLM

Boxes: TypeAlias = Float[np.ndarray, "patches 4"]


@dataclass(frozen=True, eq=False)
class TowerPatches:
    """The picture's part behind each token of the tower in one run, in the tower's order."""

    boxes: Float[np.ndarray, "tokens 4"]
    """Left, top, right, bottom as fractions of the picture; NaN for a class token, or padding."""
    unknown: str = ""  # why no token has a place

    @property
    def placed(self) -> Int[np.ndarray, " placed"]:
        """Which tokens stand for a place."""
        return np.flatnonzero(np.isfinite(self.boxes[:, 0]))


def tower_patches(vlm: VLM, image: Image.Image, prompt: Prompt) -> TowerPatches:
    """Find the places of the tower's tokens in a run's picture, the only one in the prompt.

    It takes some twenty passes up to the tower's first layer.
    """
    if vlm.vision is None:
        why = vlm.family.why_no_vision
        return nowhere(why or "its layers are not known")
    if (unknown := prompt.patches.unknown) is not None:
        return nowhere(unknown.found)
    inputs = {name: value.cpu() for name, value in prompt.select(0).inputs.items()}
    seen = seen_by(vlm, image, inputs, prompt.text, len(prompt.spans.image))
    try:
        boxes = within(_LAYOUTS[vlm.family.layout](seen))
    except Placeless as error:
        return nowhere(error.found)
    name, pixels = pixel_name(inputs), seen.values

    def entering(changed: Tensor) -> Tensor:
        return tower_tokens(vlm, {**inputs, name: changed})

    behind = patch_behind(pixels, entering, _numbered(pixels, seen.patch))
    if not np.isin(np.flatnonzero(np.isfinite(boxes[:, 0])), behind).all():
        return nowhere("its tokens are not of one patch each")
    return TowerPatches(np.where(behind[:, None] >= 0, boxes[behind], np.nan))


def nowhere(why: str) -> TowerPatches:
    """Say why no token of a tower has a place."""
    return TowerPatches(placeless(0), why)


def _numbered(pixels: Tensor, side: int) -> Int[Tensor, "*pixels"]:
    """Number the patches view by view, row by row; a margin that no patch sees is -1."""
    if pixels.ndim == 2:  # loose patches
        return torch.arange(len(pixels))[:, None]
    height, width = pixels.shape[-2:]
    rows, columns = height // side, width // side
    row, column = torch.arange(height)[:, None] // side, torch.arange(width) // side
    views = torch.arange(pixels.shape[:-3].numel()).view(*pixels.shape[:-3], 1, 1, 1)
    number = (views * rows + row) * columns + column
    return torch.where((row < rows) & (column < columns), number, -1)


def _whole(seen: Seen) -> Boxes:
    return tiles_of(seen, 0, 1, 1, seen.patch)


def _anyres(seen: Seen) -> Boxes:
    return np.concatenate([_whole(seen), tiles_of(seen, 1, *best_fitting(seen), seen.patch)])


def _tiles(seen: Seen, grid: Callable[[Seen], tuple[int, int]]) -> Boxes:
    parts = [tiles_of(seen, *one, seen.patch) for one in tiles_then_whole(*grid(seen))]
    return np.concatenate(parts)


def _qwen(seen: Seen) -> Boxes:
    """Loose patches, those that are merged one after another."""
    rows, columns, arranged = qwen_view(seen)
    merge = block_of(seen)
    loose = np.arange(rows * columns).reshape(rows // merge, columns // merge, merge, merge)
    down, across = (np.arange(count) * seen.patch for count in (rows, columns))
    boxes = placeless(rows * columns)
    boxes[loose.swapaxes(1, 2).ravel()] = seen.view(arranged).cells(down, across, seen.patch)
    return boxes


def _pixtral(seen: Seen) -> Boxes:
    rows, columns, arranged = pixtral_view(seen)
    down, across = (np.arange(count) * seen.patch for count in (rows, columns))
    boxes = placeless(*(side // seen.patch for side in seen.pixels))
    cells = seen.view(arranged).cells(down, across, seen.patch)
    boxes[:rows, :columns] = cells.reshape(rows, columns, 4)
    return boxes.reshape(-1, 4)


def _traced(seen: Seen) -> Boxes:
    """View by view, where no table says how views make up a picture."""
    if "image_grid_thw" in seen.inputs:
        return _qwen(seen)
    pixels = seen.values
    if pixels.ndim < 4:
        raise Placeless("--model", "its pictures come to the tower as loose patches", "pictures")
    parts = []
    for index in range(pixels.shape[:-3].numel()):
        blank = seen.measured.blank(partial(view_of, index=index))
        one = tiles_of(seen, index, 1, 1, seen.patch) if not blank else None
        count = seen.pixels[0] // seen.patch * (seen.pixels[1] // seen.patch)
        parts.append(placeless(count) if one is None else one)
    return np.concatenate(parts)


_LAYOUTS: Mapping[str, Callable[[Seen], Boxes]] = {
    "crop": _whole,
    "anyres": _anyres,
    "idefics": partial(_tiles, grid=told_grid),
    "internvl": partial(_tiles, grid=internvl_grid),
    "qwen": _qwen,
    "pixtral": _pixtral,
    "traced": _traced,
}
"""Where patches of pixel values lie, in their order, by the name of `patches.LAYOUTS`; the layout
"none" has no places.
"""
