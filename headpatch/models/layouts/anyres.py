"""The whole picture squashed to one tile, then the picture in the best-fitting set of tiles.

LLaVA-NeXT's and LLaVA-OneVision's. The tiles make one grid, row by row: rows and columns that hold
padding alone are dropped, a grid that is too large is shrunk (LLaVA-OneVision), and a token that
ends the line follows each row.
"""

from math import sqrt

import numpy as np
from transformers.image_processing_utils import get_patch_output_size, select_best_resolution

from headpatch.models.layouts.seen import Axis, Patches, Seen, axis, cells, placeless


def anyres(seen: Seen) -> Patches:
    """Find the tokens of the squashed picture, of the tiles' grid, and of its line ends."""
    tile, patch = seen.pixels[0], seen.patch
    side = tile // patch
    squashed = axis(np.arange(side) * patch, patch, 0, tile)
    down, across = _canvas(seen, tile, side)
    down, across = _unpadded(seen, down, across)
    down, across = _shrunk(seen, down, across, side)
    rows, columns = len(down), len(across)
    grid = cells(down.clip(0, 1), across.clip(0, 1)).reshape(rows, columns, 4)
    grid[(grid[..., 0] == grid[..., 2]) | (grid[..., 1] == grid[..., 3])] = np.nan  # padding alone
    lines = np.concatenate([grid, placeless(rows, 1)], 1).reshape(-1, 4)
    boxes = np.concatenate([cells(squashed, squashed), lines])
    return seen.fitted(Patches(boxes, (rows, columns)))


def _canvas(seen: Seen, tile: int, side: int) -> list[Axis]:
    """Rows and columns of all tiles.

    The picture is resized to fit the canvas and pasted at its centre. A tile whose side is no
    multiple of the patch has a margin at its end that no patch sees.
    """
    width, height = seen.image.size
    canvas = select_best_resolution((height, width), seen.processor.image_grid_pinpoints)
    shape = np.broadcast_to(np.uint8(0), (1, height, width))
    resized = get_patch_output_size(shape, canvas, input_data_format="channels_first")
    axes = []
    for whole, size in zip(canvas, resized, strict=True):
        starts = np.arange(whole // tile)[:, None] * tile + np.arange(side) * seen.patch
        axes.append(axis(starts.ravel(), seen.patch, (whole - size) // 2, size))
    return axes


def _unpadded(seen: Seen, down: Axis, across: Axis) -> list[Axis]:
    """Drop the rows or columns that the model drops as padding (its `unpad_image`)."""
    width, height = seen.image.size
    rows, columns = len(down), len(across)
    if width / height > columns / rows:
        padding = (rows - int(round(height * (columns / width), 7))) // 2
        return [down[padding : rows - padding], across]
    padding = (columns - int(round(width * (rows / height), 7))) // 2
    return [down, across[padding : columns - padding]]


def _shrunk(seen: Seen, down: Axis, across: Axis, side: int) -> list[Axis]:
    """Shrink a grid of more tokens than ``anyres_max_N`` allows, by interpolation."""
    limit = str(getattr(seen.config, "vision_aspect_ratio", ""))
    if not limit.startswith("anyres_max_"):
        return [down, across]
    most = int(limit.removeprefix("anyres_max_")) * side**2
    ratio = sqrt(len(down) * len(across) / most)
    if ratio <= 1.1:
        return [down, across]
    return [_fewer(row, int(len(row) // ratio)) for row in (down, across)]


def _fewer(before: Axis, count: int) -> Axis:
    """Share the cells of one side out among fewer."""
    cuts = np.linspace(0, len(before), count + 1)
    starts = np.interp(cuts[:-1], np.arange(len(before)), before[:, 0])
    ends = np.interp(cuts[1:], np.arange(len(before)) + 1, before[:, 1])
    return np.stack([starts, ends], -1)
