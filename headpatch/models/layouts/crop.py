"""One view of the picture: resized, cropped, padded, or whatever the processor does to it."""

import numpy as np
from torch import Tensor

from headpatch.models.layouts.axis import placeless
from headpatch.models.layouts.seen import Patches, Seen


def crop(seen: Seen) -> Patches:
    """Find the tokens of a single view; a class token may stand before them."""
    seen.shown(1, "crops beside the whole, as Gemma3's pan and scan, have no places here")
    height, width = seen.pixels
    side = seen.patch
    extra = seen.tokens - (height // side) * (width // side)
    if extra < 0:  # several patches may be pooled to a token
        side *= seen.merged((height // side) * (width // side))
    rows, columns = height // side, width // side
    seen.need(rows * columns + (extra == 1))
    cells = seen.view(_single).cells(np.arange(rows) * side, np.arange(columns) * side, side)
    class_token = placeless(1 if extra == 1 else 0)
    return seen.fitted(Patches(np.concatenate([class_token, cells]), (rows, columns)))


def _single(pixels: Tensor) -> Tensor:
    return pixels.flatten(0, -4)[0]
