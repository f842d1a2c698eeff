"""What a layout is told of a picture, what it gives, and the few steps that layouts share."""

from collections.abc import Mapping
from dataclasses import dataclass
from math import isqrt, prod
from typing import Any

import numpy as np
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from headpatch.errors import InputError
from headpatch.models.layouts.measured import Arrange, Measured, Placeless, View

_SLIVER = 1e-4  # of the picture: less is what measuring errs by


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
    unknown
        Why no token has a place; None if places are known.
    """

    boxes: Float[np.ndarray, "tokens 4"]
    grid: tuple[int, int]
    unknown: InputError | None = None


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
    measured
        What the processor makes of pictures of coordinates.
    """

    image: Image.Image
    processor: Any  # transformers gives image processors no common type
    config: Any
    inputs: Mapping[str, Tensor]
    tokens: int
    measured: Measured

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

    def view(self, arrange: Arrange) -> View:
        """Measure where one view of the picture looks.

        Parameters
        ----------
        arrange
            Takes the view, ``[channels, height, width]``, out of the pixel values.

        Raises
        ------
        Placeless
            If it shows no upright rectangle of the picture.
        """
        return self.measured.view(arrange, tuple(self.inputs["pixel_values"].shape))

    def shown(self, views: int, what: str) -> None:
        """Refuse to place a picture that the vision tower is not shown in this many parts.

        Raises
        ------
        Placeless
            If it is shown in more or fewer.
        """
        found = prod(self.inputs["pixel_values"].shape[:-3])
        if found != views:
            raise Placeless(
                "--model",
                f"a picture of {self.image.width}x{self.image.height} shown in {found} parts",
                f"{views} ({what})",
            )

    def merged(self, patches: int) -> int:
        """How many of `patches` patches a side one token stands for."""
        return max(isqrt(patches // self.tokens), 1)

    def fitted(self, patches: Patches) -> Patches:
        """Return `patches` within the picture, if there is one for each token.

        A patch that shows padding alone has no place.

        Raises
        ------
        InputError
            If there is not.
        """
        self.need(len(patches.boxes))
        boxes = patches.boxes.clip(0, 1)
        empty = (boxes[:, 2:] - boxes[:, :2]).min(1) < _SLIVER
        return Patches(np.where(empty[:, None], np.nan, boxes), patches.grid)

    def need(self, patches: int) -> None:
        """Refuse a model that is not given as many image tokens as there are patches.

        Raises
        ------
        InputError
            If it is not: the model itself would fail.
        """
        if patches != self.tokens:
            raise InputError(
                "--model",
                f"{self.tokens} image tokens for {patches} patches",
                "one token a patch",
                "Its processor_config.json may lack num_additional_image_tokens.",
            )


def joined(pixels: Tensor, rows: int, columns: int, first: int = 0) -> Tensor:
    """Put tiles together to the one picture that they were cut from.

    Parameters
    ----------
    pixels
        Tiles row by row, ``[..., tiles, channels, height, width]``.
    first
        Of them, of `rows` × `columns`.
    """
    tiles = pixels.flatten(0, -4)[first : first + rows * columns].unflatten(0, (rows, columns))
    canvas: Tensor = tiles.permute(2, 0, 3, 1, 4).flatten(1, 2).flatten(2)
    return canvas
