"""Where in the picture each image token comes from.

Two things are told apart. Which pixels of what the model is shown stand behind which token is one
function a layout, named in the family's row. Where in the picture those pixels come from is the
processor's doing, and is measured (`headpatch.models.layouts.measured`).
"""

from collections.abc import Callable, Mapping
from typing import Any
from weakref import WeakKeyDictionary

from headpatch.models.layouts.anyres import anyres
from headpatch.models.layouts.axis import placeless
from headpatch.models.layouts.crop import crop
from headpatch.models.layouts.measured import Placeless
from headpatch.models.layouts.seen import Patches, Seen
from headpatch.models.layouts.tiles import idefics, internvl
from headpatch.models.layouts.whole import nowhere, pixtral, qwen

__all__ = ["LAYOUTS", "Patches", "Seen", "locate"]

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

_KEPT = 64  # picture sizes a processor
_known: WeakKeyDictionary[Any, dict[object, tuple[Any, Patches]]] = WeakKeyDictionary()


def locate(layout: str, seen: Seen, processor: object) -> Patches:
    """Find the place of every image token; NaN where a token stands for no place.

    What was found is kept for the next picture of the same size.

    Parameters
    ----------
    processor
        The whole one, that `seen.processor` belongs to.

    Returns
    -------
    Patches, of which none has a place and `unknown` says why if the processor does not show the
    picture in a way that the layout knows.

    Raises
    ------
    InputError
        If there are not as many image tokens as patches.
    """
    known = _known.setdefault(processor, {})
    shape = tuple(seen.inputs["pixel_values"].shape)
    settings = layout, id(seen.config), repr(vars(seen.processor))
    key = settings, seen.image.size, shape, seen.tokens
    if key not in known:
        if len(known) >= _KEPT:
            known.clear()
        known[key] = seen.config, _found(layout, seen)  # the config lives, so its id stays its own
    return known[key][1]


def _found(layout: str, seen: Seen) -> Patches:
    try:
        return LAYOUTS[layout](seen)
    except Placeless as error:
        return Patches(placeless(seen.tokens), (0, 0), error.again())
