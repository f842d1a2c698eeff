"""One view of the picture, resized and perhaps cropped."""

from typing import Any

import numpy as np

from headpatch.errors import InputError
from headpatch.models.layouts.seen import Patches, Seen, axis, cells, placeless


def crop(seen: Seen) -> Patches:
    """Find the tokens of a single view; a class token may stand before them."""
    seen.shown(1, "crops beside the whole, as Gemma3's pan and scan, have no places here")
    patches = patch_boxes(seen.processor, seen.image.size, seen.patch)
    extra = seen.tokens - len(patches.boxes)
    if extra < 0:  # several patches may be pooled to a token
        side = seen.merged(len(patches.boxes))
        return seen.fitted(patch_boxes(seen.processor, seen.image.size, seen.patch * side))
    kept = placeless(extra if extra == 1 else 0)
    return seen.fitted(Patches(np.concatenate([kept, patches.boxes]), patches.grid))


def patch_boxes(image_processor: Any, size: tuple[int, int], patch: int) -> Patches:
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
    kept = resized
    if getattr(image_processor, "do_center_crop", False):
        kept = (image_processor.crop_size["width"], image_processor.crop_size["height"])
    columns, rows = (side // patch for side in kept)
    across, down = (
        axis(np.arange(count) * patch, patch, -((whole - cropped) // 2), whole)
        for count, whole, cropped in zip((columns, rows), resized, kept, strict=True)
    )
    return Patches(cells(down, across), (rows, columns))


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
