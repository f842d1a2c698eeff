"""One picture as a model is shown it, and the places of its image tokens."""

from collections.abc import Mapping
from dataclasses import dataclass
from math import isqrt, prod
from typing import Any

import numpy as np
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from headpatch.errors import InputError
from headpatch.models.measured import Arrange, Measured, Placeless, View
from headpatch.models.reach import Features

_PIXELS = ("pixel_values", "pixel_values_images", "flattened_patches")  # by the class
_SLIVER = 1e-4  # of the picture: less is what measuring errs by


def pixel_name(inputs: Mapping[str, Tensor]) -> str:
    """Return what a model calls the pixels that it takes."""
    return next((name for name in _PIXELS if name in inputs), _PIXELS[0])


@dataclass(frozen=True, eq=False)
class Patches:
    """The picture's part behind each token, row by row from the top left."""

    boxes: Float[np.ndarray, "tokens 4"]
    """Shape ``[tokens, 4]``: left, top, right, bottom as fractions of the *original* picture. What
    the processor crops away belongs to no patch. Where the model is shown tiles and the whole
    picture, the tokens of both have boxes."""
    grid: tuple[int, int]
    """(rows, columns) of the finest view of the picture; (0, 0) if there is none."""
    unknown: InputError | None = None  # why no token has a place; None if places are known


@dataclass(frozen=True, eq=False)
class Seen:
    """One picture, and what its image processor made of it for a model of this config."""

    image: Image.Image
    processor: Any  # transformers gives image processors no common type
    config: Any
    inputs: Mapping[str, Tensor]
    """The model's inputs for this run alone, with so many image `tokens`."""
    tokens: int
    measured: Measured  # what the processor makes of pictures of coordinates
    features: Features | None = None  # the image tokens that the model makes of pixels

    @property
    def patch(self) -> int:
        """Side of a patch in the processed picture, in pixels."""
        return self._side(("patch_size",))

    @property
    def merge(self) -> int:
        """How many patches, across and down, are merged to a token, where patches come loose."""
        if (given := self.inputs.get("image_merge_sizes")) is not None:  # VideoLLaMA 3's, of each
            return int(given[0])
        return self._side(("spatial_merge_size", "merge_size", "merge_kernel_size"))

    def _side(self, names: tuple[str, ...]) -> int:
        tower = getattr(self.config, "vision_config", None)
        found = (getattr(tower, name, None) for name in names)
        side = next((one for one in found if one is not None), None)
        if side is None:
            raise Placeless(
                "--model",
                f"its config does not say a `{names[0]}` of its vision tower",
                "patches of a known size",
                "Named heads can be changed (ablate --heads 24.17).",
            )
        return int(side if isinstance(side, int) else side[0])

    @property
    def values(self) -> Tensor:
        """The pixels that the model takes."""
        return self.inputs[pixel_name(self.inputs)]

    @property
    def pixels(self) -> tuple[int, int]:
        """(height, width) of the pictures that the vision tower takes."""
        height, width = self.values.shape[-2:]
        return height, width

    def view(self, arrange: Arrange) -> View:
        """Measure where one view of the picture looks; see `Measured.view`."""
        return self.measured.view(arrange, tuple(self.values.shape))

    def shown(self, views: int, what: str) -> None:
        """Refuse to place a picture that the tower is not shown in so many parts (`Placeless`)."""
        found = prod(self.values.shape[:-3])
        if found != views:
            picture = f"a picture of {self.image.width}x{self.image.height}"
            raise Placeless("--model", f"{picture} shown in {found} parts", f"{views} ({what})")

    def merged(self, patches: int) -> int:
        """How many of `patches` patches a side one token stands for."""
        return max(isqrt(patches // self.tokens), 1)

    def fitted(self, patches: Patches) -> Patches:
        """Return `patches`, one a token, within the picture; one of padding alone has no place."""
        self.need(len(patches.boxes))
        return Patches(within(patches.boxes), patches.grid)

    def need(self, patches: int) -> None:
        """Refuse a model that is not given as many image tokens as patches: it would fail."""
        if patches != self.tokens:
            found = f"{self.tokens} image tokens for {patches} patches"
            hint = "Its processor_config.json may lack num_additional_image_tokens."
            raise InputError("--model", found, "one token a patch", hint)


def within(boxes: Float[np.ndarray, "tokens 4"]) -> Float[np.ndarray, "tokens 4"]:
    """Return the boxes' parts within the picture; NaN where nothing is."""
    clipped = boxes.clip(0, 1)
    empty = (clipped[:, 2:] - clipped[:, :2]).min(1) < _SLIVER
    return np.where(empty[:, None], np.nan, clipped)


def placeless(*shape: int) -> Float[np.ndarray, "..."]:
    """Return boxes of tokens that stand for no place."""
    return np.full((*shape, 4), np.nan)


def view_of(pixels: Tensor, index: int) -> Tensor:
    """Return one of the pictures that pixel values hold, ``[channels, height, width]``."""
    return pixels.flatten(0, -4)[index]
