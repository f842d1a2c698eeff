"""The whole picture in its own shape, in as many patches as its size asks for; or no place."""

import numpy as np

from headpatch.models.layouts.seen import Patches, Seen, axis, cells, placeless


def qwen(seen: Seen) -> Patches:
    """Find the tokens of a Qwen-VL, each of which merges several patches."""
    _, rows, columns = (int(count) for count in seen.inputs["image_grid_thw"][0])
    return _whole(seen, rows, columns)


def pixtral(seen: Seen) -> Patches:
    """Find the tokens of a Pixtral tower; those that end its lines are not image tokens."""
    height, width = (int(side) for side in seen.inputs["image_sizes"][0])
    return _whole(seen, height // seen.patch, width // seen.patch)


def nowhere(seen: Seen) -> Patches:
    """Give no token a place."""
    return Patches(placeless(seen.tokens), (0, 0))


def _whole(seen: Seen, rows: int, columns: int) -> Patches:
    merge = seen.merged(rows * columns)
    rows, columns = rows // merge, columns // merge
    down, across = (axis(np.arange(count), 1, 0, count) for count in (rows, columns))
    boxes = cells(down, across)
    return seen.fitted(Patches(boxes, (rows, columns)))
