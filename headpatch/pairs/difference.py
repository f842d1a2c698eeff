"""Where two pictures differ, beyond what resizing and compression do: by cells of their mean RGB.

Two cells differ if, in any channel, their means are apart by more than `slack_of` them; see
`headpatch.pairs.same_scene` for what that finds.
"""

import numpy as np
from jaxtyping import Float, UInt8
from PIL import Image
from scipy.ndimage import maximum_filter, minimum_filter

from headpatch.pairs.region import DIFFERING, UNNAMED, Region

CELLS = 24
"""Cells a side."""
LEVELS = 8.0
"""By which cells may be apart anywhere."""
_SHARE, _AROUND = 0.25, 2  # of the range of levels so many cells around, what they may beside
_MOST = 0.5  # of the picture: a larger box names no place

Pixels = UInt8[np.ndarray, "pictures cells cells rgb"]


def cells_of(image: Image.Image) -> UInt8[np.ndarray, "cells cells rgb"]:
    """Return a picture's cells."""
    return np.asarray(image.resize((CELLS, CELLS), Image.Resampling.BOX))


def slack_of(cells: Pixels) -> Float[np.ndarray, "pictures cells cells 1"]:
    """Return by how many levels each cell may differ from another picture's."""
    around = (1, 2 * _AROUND + 1, 2 * _AROUND + 1, 1)
    spread = maximum_filter(cells, around) - minimum_filter(cells, around)
    return np.asarray(LEVELS + _SHARE * spread.max(-1, keepdims=True).astype(np.float32))


def differing(first: Image.Image, second: Image.Image) -> Region:
    """Return the box around the cells in which two pictures differ.

    `UNNAMED` if they differ in size, in no cell, or in a box of more than half of the picture.
    """
    if first.size != second.size:
        return UNNAMED
    both = np.stack([cells_of(first), cells_of(second)])
    apart = np.abs(np.diff(both.astype(np.float32), axis=0)[0])
    rows, columns = (apart > slack_of(both).min(0)).any(-1).nonzero()
    if not len(rows):
        return UNNAMED
    left, right = float(columns.min()) / CELLS, float(columns.max() + 1) / CELLS
    top, bottom = float(rows.min()) / CELLS, float(rows.max() + 1) / CELLS
    if (right - left) * (bottom - top) > _MOST:
        return UNNAMED
    return Region(DIFFERING, left, top, right, bottom)
