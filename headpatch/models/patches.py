"""Where in the picture each image token comes from."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float

from headpatch.errors import InputError


@dataclass(frozen=True, eq=False)
class Patches:
    """The picture's part behind each patch, row by row from the top left.

    Attributes
    ----------
    boxes
        Shape ``[tokens, 4]``: left, top, right, bottom as fractions of the *original* picture.
        What the processor crops away belongs to no patch.
    grid
        (rows, columns).
    """

    boxes: Float[np.ndarray, "tokens 4"]
    grid: tuple[int, int]


def patch_boxes(
    image_processor: Any,  # transformers gives these no common type
    size: tuple[int, int],
    patch: int,
) -> Patches:
    """Find the boxes of a processor that resizes, then perhaps crops the centre.

    Parameters
    ----------
    image_processor
        With transformers' ``do_resize``/``size`` and ``do_center_crop``/``crop_size``.
    size
        (width, height) of the original picture, in pixels.
    patch
        Side of a patch in the resized picture, in pixels.
    """
    resized = _resized(image_processor, size)
    crop = resized
    if getattr(image_processor, "do_center_crop", False):
        crop = (image_processor.crop_size["width"], image_processor.crop_size["height"])
    columns, rows = (side // patch for side in crop)
    across, down = (
        (np.arange(count + 1) * patch + (whole - cropped) // 2) / whole
        for count, whole, cropped in zip((columns, rows), resized, crop, strict=True)
    )
    left, top = np.meshgrid(across[:-1], down[:-1])
    right, bottom = np.meshgrid(across[1:], down[1:])
    boxes = np.stack([left, top, right, bottom], -1).reshape(-1, 4)
    return Patches(boxes, (rows, columns))


def _resized(image_processor: Any, size: tuple[int, int]) -> tuple[int, int]:
    if not getattr(image_processor, "do_resize", False):
        return size
    target = image_processor.size
    shortest = target.get("shortest_edge")
    if shortest and not target.get("longest_edge"):
        width, height = (int(shortest * side / min(size)) for side in size)  # as transformers does
        return width, height
    if "width" in target and "height" in target:
        return target["width"], target["height"]
    raise InputError(
        "--model", f"a processor with size {dict(target)}", "one that resizes to a size"
    )
