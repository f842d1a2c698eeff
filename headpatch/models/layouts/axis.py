"""Boxes of cells, from where their rows and columns start and end."""

import numpy as np
from jaxtyping import Float

Axis = Float[np.ndarray, "_ 2"]
"""Where each row or column of cells starts and ends, in fractions of the picture."""


def cells(down: Axis, across: Axis) -> Float[np.ndarray, "tokens 4"]:
    """Boxes of a grid, row by row."""
    top, left = np.meshgrid(down[:, 0], across[:, 0], indexing="ij")
    bottom, right = np.meshgrid(down[:, 1], across[:, 1], indexing="ij")
    return np.stack([left, top, right, bottom], -1).reshape(-1, 4)


def placeless(*shape: int) -> Float[np.ndarray, "..."]:
    """Boxes of tokens that stand for no place."""
    return np.full((*shape, 4), np.nan)
