"""What a layout is told of a picture, what it gives, and the few steps that layouts share."""

from collections.abc import Mapping
from dataclasses import dataclass
from math import isqrt, prod
from typing import Any

import numpy as np
from jaxtyping import Float, Int
from PIL import Image
from torch import Tensor

from headpatch.errors import InputError

Axis = Float[np.ndarray, "_ 2"]
"""Where each row or column of cells starts and ends, in fractions of the picture."""


@dataclass(frozen=True, eq=False)
class Patches:
    """The picture's part behind each token, row by row from the top left.

    Attributes
    ----------
    boxes
        Shape ``[tokens, 4]``: left, top, right, bottom as fractions of the *original* picture.
        What the processor crops away belongs to no patch. Where the model is shown tiles and the
        whole picture, the tokens of both have boxes.
    grid
        (rows, columns) of the finest view of the picture; (0, 0) if there is none.
    """

    boxes: Float[np.ndarray, "tokens 4"]
    grid: tuple[int, int]


@dataclass(frozen=True, eq=False)
class Seen:
    """One picture, and what its processor made of it.

    Attributes
    ----------
    image
        As it was given.
    processor
        The image processor.
    config
        The model's.
    inputs
        The model's inputs for this run alone.
    tokens
        Number of image tokens.
    """

    image: Image.Image
    processor: Any  # transformers gives image processors no common type
    config: Any
    inputs: Mapping[str, Tensor]
    tokens: int

    @property
    def patch(self) -> int:
        """Side of a patch in the processed picture, in pixels."""
        side = self.config.vision_config.patch_size
        return int(side if isinstance(side, int) else side[0])

    @property
    def pixels(self) -> tuple[int, int]:
        """(height, width) of the pictures that the vision tower takes."""
        height, width = self.inputs["pixel_values"].shape[-2:]
        return height, width

    def shown(self, views: int, what: str) -> None:
        """Refuse a picture that the vision tower is not shown in this many parts.

        Raises
        ------
        InputError
            If it is shown in more or fewer.
        """
        found = prod(self.inputs["pixel_values"].shape[:-3])
        if found != views:
            raise InputError(
                "--model",
                f"a picture of {self.image.width}x{self.image.height} shown in {found} parts",
                f"{views} ({what})",
            )

    def merged(self, patches: int) -> int:
        """How many of `patches` patches a side one token stands for."""
        return max(isqrt(patches // self.tokens), 1)

    def fitted(self, patches: Patches) -> Patches:
        """Return `patches` if there is one for each token.

        Raises
        ------
        InputError
            If there is not.
        """
        if len(patches.boxes) == self.tokens:
            return patches
        raise InputError(
            "--model",
            f"{self.tokens} image tokens for {len(patches.boxes)} patches",
            "one token a patch",
            "Its processor_config.json may lack num_additional_image_tokens.",
        )


def cells(down: Axis, across: Axis) -> Float[np.ndarray, "tokens 4"]:
    """Boxes of a grid, row by row."""
    top, left = np.meshgrid(down[:, 0], across[:, 0], indexing="ij")
    bottom, right = np.meshgrid(down[:, 1], across[:, 1], indexing="ij")
    return np.stack([left, top, right, bottom], -1).reshape(-1, 4)


def axis(starts: Int[np.ndarray, " cells"], side: int, offset: int, whole: int) -> Axis:
    """Cells of one side, that start at these pixels of a picture pasted at `offset`."""
    return (np.stack([starts, starts + side], -1) - offset) / whole


def placeless(*shape: int) -> Float[np.ndarray, "..."]:
    """Boxes of tokens that stand for no place."""
    return np.full((*shape, 4), np.nan)
