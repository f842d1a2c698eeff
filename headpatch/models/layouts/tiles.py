"""Tiles of the picture row by row, then the whole picture; or the whole picture alone."""

import numpy as np

from headpatch.models.layouts.seen import Patches, Seen, axis, cells


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
    views = [
        (column / columns, row / rows, (column + 1) / columns, (row + 1) / rows)
        for row in range(rows)
        for column in range(columns)
    ]
    views.append((0.0, 0.0, 1.0, 1.0))
    seen.shown(len(views), f"{rows} rows of {columns} tiles, and the whole")
    height, width = seen.pixels
    merge = seen.merged(len(views) * (height // seen.patch) * (width // seen.patch))
    side = seen.patch * merge
    down, across = (
        axis(np.arange(pixels // side) * side, side, 0, pixels) for pixels in (height, width)
    )
    boxes = [
        cells(top + down * (bottom - top), left + across * (right - left))
        for left, top, right, bottom in views
    ]
    grid = (max(rows, 1) * len(down), max(columns, 1) * len(across))
    return seen.fitted(Patches(np.concatenate(boxes), grid))
