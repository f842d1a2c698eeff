"""Tiles of the picture row by row, then the whole picture; or the whole picture alone."""

from functools import partial

import numpy as np
from torch import Tensor

from headpatch.models.layouts.seen import Patches, Seen, joined


def idefics(seen: Seen) -> Patches:
    """Find the tokens of Idefics3's and SmolVLM's tiles, whose processor tells their grid."""
    again = seen.processor(seen.image, return_row_col_info=True)
    return _tiles(seen, int(again["rows"][0][0]), int(again["cols"][0][0]))


def internvl(seen: Seen) -> Patches:
    """Find the tokens of InternVL's tiles, in the grid nearest to the picture's shape."""
    if len(seen.inputs["pixel_values"]) == 1:
        return _tiles(seen, 0, 0)
    return _tiles(seen, *_nearest_grid(seen))


def _nearest_grid(seen: Seen) -> tuple[int, int]:
    """(rows, columns), as InternVL's processor chooses them."""
    width, height = seen.image.size
    tile = seen.processor.size["height"] * seen.processor.size["width"]
    least, most = int(seen.processor.min_patches), int(seen.processor.max_patches)
    grids = [
        (rows, columns)
        for columns in range(1, most + 1)
        for rows in range(1, most + 1)
        if least <= columns * rows <= most
    ]
    best, off = (1, 1), float("inf")
    for rows, columns in sorted(grids, key=lambda grid: grid[0] * grid[1]):
        by = abs(width / height - columns / rows)
        if by < off or (by == off and width * height > 0.5 * tile * rows * columns):
            best, off = (rows, columns), by
    return best


def _tiles(seen: Seen, rows: int, columns: int) -> Patches:
    seen.shown(rows * columns + 1, f"{rows} rows of {columns} tiles, and the whole")
    height, width = seen.pixels
    merge = seen.merged((rows * columns + 1) * (height // seen.patch) * (width // seen.patch))
    side = seen.patch * merge
    down, across = (np.arange(pixels // side) * side for pixels in (height, width))
    seen.need((rows * columns + 1) * len(down) * len(across))
    boxes = []
    if rows:
        canvas = seen.view(partial(joined, rows=rows, columns=columns))
        boxes = [
            canvas.cells(row * height + down, column * width + across, side)
            for row in range(rows)
            for column in range(columns)
        ]
    boxes.append(seen.view(_last).cells(down, across, side))
    grid = (max(rows, 1) * len(down), max(columns, 1) * len(across))
    return seen.fitted(Patches(np.concatenate(boxes), grid))


def _last(pixels: Tensor) -> Tensor:
    return pixels.flatten(0, -4)[-1]
