"""Where in the picture each image token comes from.

How image tokens map to places is one function a layout, named in the family's row. Each reads what
the processor made of the picture rather than working it out again, where the processor says.
"""

from collections.abc import Callable, Mapping

from headpatch.models.layouts.anyres import anyres
from headpatch.models.layouts.crop import crop, patch_boxes
from headpatch.models.layouts.seen import Patches, Seen
from headpatch.models.layouts.tiles import idefics, internvl
from headpatch.models.layouts.whole import nowhere, pixtral, qwen

__all__ = ["LAYOUTS", "Patches", "Seen", "locate", "patch_boxes"]

LAYOUTS: Mapping[str, Callable[[Seen], Patches]] = {
    "crop": crop,
    "anyres": anyres,
    "idefics": idefics,
    "internvl": internvl,
    "qwen": qwen,
    "pixtral": pixtral,
    "none": nowhere,
}
"""By name: what finds the place of every image token."""


def locate(layout: str, seen: Seen) -> Patches:
    """Find the place of every image token; NaN where a token stands for no place.

    Raises
    ------
    InputError
        If the tokens do not fit the layout.
    """
    return LAYOUTS[layout](seen)
