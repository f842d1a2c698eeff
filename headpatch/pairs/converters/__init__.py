"""Published data sets as tables of pairs: a function a layout, and the registry of them.

A converter reads the files of a data set as its authors publish them and yields rows: a name, and
what makes the row's cells or says why there is none. Nothing is downloaded.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import Final

from headpatch.pairs.converters.asked import pope, vsr
from headpatch.pairs.converters.edited import merlim, popev2
from headpatch.pairs.converters.making import Makes
from headpatch.pairs.converters.paired import coco_counterfactuals, mmvp, naturalbench, whatsup
from headpatch.pairs.converters.source import Source

CONVERTERS: Final[Mapping[str, Callable[[Source], Iterator[Makes]]]] = {
    "popev2": popev2,
    "merlim": merlim,
    "naturalbench": naturalbench,
    "mmvp": mmvp,
    "whatsup": whatsup,
    "pope": pope,
    "vsr": vsr,
    "coco-counterfactuals": coco_counterfactuals,
}
"""By the name that ``headpatch pairs --from`` takes."""
