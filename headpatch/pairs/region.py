"""Regions of an image, in fractions of its width and height, whatever its size."""

import re
from dataclasses import dataclass

from headpatch.errors import InputError
from headpatch.text import checked_text, decimal_number


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

    @property
    def box(self) -> tuple[float, float, float, float]:
        """(left, top, right, bottom)."""
        return self.left, self.top, self.right, self.bottom

    def compare(self, argument: str = "--region") -> None:
        """Refuse the whole picture, whose share of a head's image attention is always 1."""
        if self.box == (0.0, 0.0, 1.0, 1.0):
            raise whole_picture(argument, f"{self.name} is the whole picture")

    @classmethod
    def parse(cls, text: str, argument: str = "--region") -> "Region":
        """Read a region's name, or a box such as ``0,0,0.5,0.5``.

        An `InputError` if it is neither, or the box is empty or leaves the image.
        """
        name = re.sub(r"[\s_]+", "-", text.strip().lower()).replace("centre", "center")
        if name in REGIONS:
            return REGIONS[name]
        parts = [part.strip() for part in checked_text(text, argument).split(",")]
        numbers = [found for part in parts if (found := decimal_number(part)) is not None]
        if len(parts) != 4 or len(numbers) != 4:
            expected = f"one of {', '.join(REGIONS)}, or left,top,right,bottom"
            raise InputError(argument, repr(text), expected)
        left, top, right, bottom = numbers
        if not all(0 <= number <= 1 for number in numbers):
            expected = "four fractions of the image between 0 and 1: left,top,right,bottom"
            raise InputError(argument, f"{text} leaves the image", expected)
        if left >= right or top >= bottom:
            raise InputError(argument, f"{text} is empty", "left < right and top < bottom")
        return cls(",".join(parts), left, top, right, bottom)


def whole_picture(argument: str, found: str) -> InputError:
    """Say why heads cannot be ranked by a region that leaves nothing of the picture out."""
    return InputError(
        argument,
        f"{found}: every head's share of its image attention there is 1, in both runs",
        "a smaller region, by which heads can be ranked",
        "Name where the object is, such as top-left or left,top,right,bottom; or name the heads "
        "(ablate --heads 24.17).",
    )


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
