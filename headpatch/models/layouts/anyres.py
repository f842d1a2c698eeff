"""The whole picture squashed to one tile, then the picture in the best-fitting set of tiles.

LLaVA-NeXT's and LLaVA-OneVision's. The tiles make one grid, row by row: rows and columns that hold
padding alone are dropped, a grid that is too large is shrunk (LLaVA-OneVision), and a token that
ends the line follows each row.
"""

from functools import partial
from math import sqrt

import numpy as np
from jaxtyping import Int
from torch import Tensor
from transformers.image_processing_utils import select_best_resolution

from headpatch.models.layouts.axis import Axis, cells, placeless
from headpatch.models.layouts.seen import Patches, Seen, joined


def anyres(seen: Seen) -> Patches:
    """Find the tokens of the squashed picture, of the tiles' grid, and of its line ends."""
    tile, side = seen.pixels[0], seen.pixels[0] // seen.patch
    starts = np.arange(side) * seen.patch
    squashed = seen.view(_first).cells(starts, starts, seen.patch)
    down, across = _unpadded(seen, *_canvas(seen, tile, starts))
    down, across = _shrunk(seen, down, across, side)
    rows, columns = len(down), len(across)
    grid = cells(down, across).reshape(rows, columns, 4)
    lines = np.concatenate([grid, placeless(rows, 1)], 1).reshape(-1, 4)
    return seen.fitted(Patches(np.concatenate([squashed, lines]), (rows, columns)))


def _first(pixels: Tensor) -> Tensor:
    return pixels.flatten(0, -4)[0]


def _canvas(seen: Seen, tile: int, starts: Int[np.ndarray, " cells"]) -> list[Axis]:
    """Rows and columns of all tiles, which are cut from one canvas with the picture in it.

    A tile whose side is no multiple of the patch has a margin at its end that no patch sees.
    """
    width, height = seen.image.size
    canvas = select_best_resolution((height, width), seen.config.image_grid_pinpoints)
    rows, columns = (int(whole) // tile for whole in canvas)
    seen.shown(rows * columns + 1, f"the whole, and {rows} rows of {columns} tiles")
    view = seen.view(partial(joined, rows=rows, columns=columns, first=1))
    return [
        line.axis((np.arange(tiles)[:, None] * tile + starts).ravel(), seen.patch)
        for line, tiles in ((view.down, rows), (view.across, columns))
    ]


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
