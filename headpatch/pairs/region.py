"""Regions of an image, in fractions of its width and height, whatever its size."""

import re
from dataclasses import dataclass

from headpatch.errors import InputError
from headpatch.text import checked_text, decimal_number

_HALVES = {"left": (0.0, 0.5), "right": (0.5, 1.0), "top": (0.0, 0.5), "bottom": (0.5, 1.0)}
_THIRD = 1 / 3
_OUTER = {
    "left": (0.0, _THIRD),
    "right": (1 - _THIRD, 1.0),
    "top": (0.0, _THIRD),
    "bottom": (1 - _THIRD, 1.0),
}


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
        """Refuse the whole picture, whose share of a head's image attention is always 1.

        Raises
        ------
        InputError
            If it is the whole picture.
        """
        if self.box == (0.0, 0.0, 1.0, 1.0):
            raise whole_picture(argument, f"{self.name} is the whole picture")

    @classmethod
    def parse(cls, text: str, argument: str = "--region") -> "Region":
        """Read a region's name, or a box such as ``0,0,0.5,0.5``.

        Raises
        ------
        InputError
            If it is neither, or the box is empty or leaves the image.
        """
        name = re.sub(r"[\s_]+", "-", text.strip().lower()).replace("centre", "center")
        if name in REGIONS:
            return REGIONS[name]
        parts = [part.strip() for part in checked_text(text, argument).split(",")]
        numbers = [found for part in parts if (found := decimal_number(part)) is not None]
        if len(parts) != 4 or len(numbers) != 4:
            raise InputError(
                argument, repr(text), f"one of {', '.join(REGIONS)}, or left,top,right,bottom"
            )
        left, top, right, bottom = numbers
        if not all(0 <= number <= 1 for number in numbers):
            raise InputError(
                argument,
                f"{text} leaves the image",
                "four fractions of the image between 0 and 1: left,top,right,bottom",
            )
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
    regions = {"image": (0.0, 0.0, 1.0, 1.0)}
    for row in ("top", "bottom"):
        for column in ("left", "right"):
            (left, right), (top, bottom) = _HALVES[column], _HALVES[row]
            regions[f"{row}-{column}"] = (left, top, right, bottom)
    for row in ("top", "bottom"):
        for column in ("left", "right"):
            (left, right), (top, bottom) = _OUTER[column], _OUTER[row]
            regions[f"{row}-{column}-corner"] = (left, top, right, bottom)
    for side, (low, high) in _HALVES.items():
        across = side in ("left", "right")
        regions[f"{side}-half"] = (low, 0.0, high, 1.0) if across else (0.0, low, 1.0, high)
    regions["center"] = (_THIRD, _THIRD, 1 - _THIRD, 1 - _THIRD)
    return {name: Region(name, *box) for name, box in regions.items()}


REGIONS = _named()
"""Quadrants (``top-left``), corners (``top-left-corner``: a ninth of the image), halves
(``left-half``), the ``center`` ninth, and the whole ``image``."""
