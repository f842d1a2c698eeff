"""Regions of an image, in fractions of its width and height, whatever its size."""

import math
import re
from dataclasses import dataclass
from typing import Any

from headpatch.errors import InputError
from headpatch.text import checked_text, decimal_number

_PIXELS = "px:"


@dataclass(frozen=True)
class Region:
    """A box: `left` ≤ x < `right`, `top` ≤ y < `bottom`, as fractions from the top left corner.

    Examples
    --------
    >>> Region.parse("bottom-right").box
    (0.5, 0.5, 1.0, 1.0)
    """

    name: str
    left: float
    top: float
    right: float
    bottom: float

    pixels: bool = False  # whether its edges are pixels of a picture, yet to be turned into shares

    @property
    def box(self) -> tuple[float, float, float, float]:
        """(left, top, right, bottom)."""
        return self.left, self.top, self.right, self.bottom

    @property
    def whole(self) -> bool:
        """Whether it is the whole picture: no place that heads could turn to."""
        return self.box == (0.0, 0.0, 1.0, 1.0) and not self.pixels

    @property
    def yardstick(self) -> str:
        """What heads are compared by there, in words; empty if by attention to a named place."""
        return BY_IMAGE if self.whole else BY_DIFFERENCE if self.name == DIFFERING else ""

    @classmethod
    def parse(cls, text: str, argument: str = "--region") -> "Region":
        """Read a region's name, or a box such as ``0,0,0.5,0.5``; ``none`` names no place.

        A box with a number of 2 or more, or after ``px:``, is in pixels, and has fractions `within`
        a picture. An `InputError` if it is neither, or the box is empty or leaves the image.
        """
        name = spelled(text)
        if name in _NAMED:
            return _NAMED[name]
        bare = checked_text(text, argument).strip()
        listed = bare.startswith("[") and bare.endswith("]")
        marked = bare.lower().startswith(_PIXELS)
        bare = bare[1:-1] if listed else bare[len(_PIXELS) * marked :]
        parts = [part.strip() for part in bare.split(",")]
        numbers = [found for part in parts if (found := decimal_number(part)) is not None]
        if len(parts) != 4 or len(numbers) != 4:
            expected = f"one of {', '.join(REGIONS)}, or left,top,right,bottom"
            raise InputError(argument, repr(text), expected)
        left, top, right, bottom = numbers
        pixels = marked or any(number >= 2 for number in numbers)
        if pixels and listed:  # x, y, width, height to COCO, two corners to others
            listing = f"{bare}: a list of pixels may be two corners, or a corner and a size"
            hint = "Write the text left,top,right,bottom; of a corner and a size x,y,x+w,y+h."
            raise InputError(argument, listing, "a text, such as 40,30,120,90", hint)
        if not all(0 <= number <= 1 or (pixels and 1 < number < math.inf) for number in numbers):
            expected = "four fractions of the image between 0 and 1, or pixels: "
            expected += "left,top,right,bottom"
            raise InputError(argument, f"{text} leaves the image", expected)
        if left >= right or top >= bottom:
            raise InputError(argument, f"{text} is empty", "left < right and top < bottom")
        return cls(_PIXELS * marked + ",".join(parts), left, top, right, bottom, pixels)

    def within(self, width: int, height: int, argument: str = "--region") -> "Region":
        """Return a region in fractions of a picture of so many pixels."""
        if not self.pixels:
            return self
        if self.right > width + 1 or self.bottom > height + 1:  # a pixel of rounding is no matter
            found, expected = f"{self.name} leaves the picture", f"pixels within {width}x{height}"
            raise InputError(argument, found, expected)
        edges = zip(self.box, (width, height) * 2, strict=True)
        left, top, right, bottom = (min(edge / size, 1.0) for edge, size in edges)
        if left >= right or top >= bottom:
            expected = f"pixels within {width}x{height}"
            raise InputError(argument, f"{self.name} leaves the picture", expected)
        return Region(self.name, left, top, right, bottom)


def spelled(name: Any) -> Any:
    """Return a region's name as `REGIONS` spells it: ``Top left`` is ``top-left``."""
    if not isinstance(name, str):
        return name
    return re.sub(r"[\s_]+", "-", name.strip().lower()).replace("centre", "center")


def _named() -> dict[str, Region]:
    third, all_of = 1 / 3, (0.0, 1.0)
    boxes = {"image": (all_of, all_of)}
    for suffix, low, high in (("", 0.5, 0.5), ("-corner", third, 1 - third)):
        for row, down in (("top", (0.0, low)), ("bottom", (high, 1.0))):
            for column, across in (("left", (0.0, low)), ("right", (high, 1.0))):
                boxes[f"{row}-{column}{suffix}"] = (across, down)
    first, last = (0.0, 0.5), (0.5, 1.0)
    boxes |= {"left-half": (first, all_of), "right-half": (last, all_of)}
    boxes |= {"top-half": (all_of, first), "bottom-half": (all_of, last)}
    boxes["center"] = ((third, 1 - third), (third, 1 - third))
    return {
        name: Region(name, left, top, right, bottom)
        for name, ((left, right), (top, bottom)) in boxes.items()
    }


REGIONS = _named()
"""Quadrants (``top-left``), corners (``top-left-corner``: a ninth of the image), halves
(``left-half``), the ``center`` ninth, and the whole ``image``."""
UNNAMED = Region("none", 0.0, 0.0, 1.0, 1.0)
"""What a pair has that names no region: of two pictures, the place where they differ, or all."""
DIFFERING = "where the two pictures differ"
"""The name of that place."""
BY_IMAGE = "raw image mass (the part of all a head's attention that the image gets)"
BY_DIFFERENCE = "attention to the box where the two pictures differ"
"""What heads are compared by where no place is named."""


def compared_by(yardstick: str) -> str:
    """Say a yardstick, of one pair or of many, in a word: ``image``, ``difference``, ``region``."""
    if yardstick.startswith(BY_IMAGE):
        return "image"
    if not yardstick:
        return "region"
    return "difference" if yardstick == BY_DIFFERENCE else "region and difference"


_NAMED = REGIONS | {UNNAMED.name: UNNAMED, DIFFERING.replace(" ", "-"): UNNAMED}
