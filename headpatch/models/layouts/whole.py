"""The whole picture in its own shape, in as many patches as its size asks for; or no place."""

from functools import partial

import numpy as np
from torch import Tensor

from headpatch.errors import InputError
from headpatch.models.layouts.axis import placeless
from headpatch.models.layouts.measured import Arrange
from headpatch.models.layouts.seen import Patches, Seen


def qwen(seen: Seen) -> Patches:
    """Find the tokens of a Qwen-VL, each of which merges several patches."""
    _, rows, columns = (int(count) for count in seen.inputs["image_grid_thw"][0])
    merge = int(seen.config.vision_config.spatial_merge_size)
    unrolled = partial(_unrolled, rows=rows, columns=columns, merge=merge, patch=seen.patch)
    return _whole(seen, rows, columns, unrolled)


def _unrolled(pixels: Tensor, rows: int, columns: int, merge: int, patch: int) -> Tensor:
    """Undo Qwen's order: merged patches one after another, each of equal frames."""
    blocks = pixels.reshape(
        rows // merge, columns // merge, merge, merge, 3, -1, patch, patch
    )[..., 0, :, :]  # fmt: skip
    return blocks.permute(4, 0, 2, 5, 1, 3, 6).reshape(3, rows * patch, columns * patch)


def pixtral(seen: Seen) -> Patches:
    """Find the tokens of a Pixtral tower; those that end its lines are not image tokens."""
    height, width = (int(side) for side in seen.inputs["image_sizes"][0])
    cut = partial(_cut, height=height, width=width)
    return _whole(seen, height // seen.patch, width // seen.patch, cut)


def _cut(pixels: Tensor, height: int, width: int) -> Tensor:
    return pixels.flatten(0, -4)[0, :, :height, :width]


def nowhere(seen: Seen) -> Patches:
    """Give no token a place."""
    why = InputError(
        "--model",
        "it looks at the image by cross-attention, without image tokens",
        "a model whose image is among the prompt's tokens",
        "Named heads can be changed (ablate --heads 24.17).",
    )
    return Patches(placeless(seen.tokens), (0, 0), why)


def _whole(seen: Seen, rows: int, columns: int, arrange: Arrange) -> Patches:
    merge = seen.merged(rows * columns)
    rows, columns, side = rows // merge, columns // merge, seen.patch * merge
    seen.need(rows * columns)
    view = seen.view(arrange)
    boxes = view.cells(np.arange(rows) * side, np.arange(columns) * side, side)
    return seen.fitted(Patches(boxes, (rows, columns)))
