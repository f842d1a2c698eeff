"""The same pair asked about another place, or mirrored: what nulls are made of."""

import re
from collections.abc import Callable, Mapping
from dataclasses import replace

import numpy as np
from PIL import Image, ImageOps

from headpatch.pairs.pair import Pair
from headpatch.pairs.region import REGIONS, Region

_ACROSS = {"left": "right", "right": "left", "左": "右", "右": "左"}
_DOWN = {
    "top": "bottom",
    "bottom": "top",
    "upper": "lower",
    "lower": "upper",
    "上": "下",
    "下": "上",
}
_SAME = 1e-6  # of the image
_Box = tuple[float, float, float, float]


def mirrored(pair: Pair) -> Pair | None:
    """Mirror both pictures, the region and the question's left and right.

    None where question and region do not move together: one has a side and the other has not, or
    neither has.
    """
    moved = _moved(pair, _across, _ACROSS)
    if moved is None:
        return None
    return replace(
        moved,
        with_image=ImageOps.mirror(pair.with_image),
        without_image=ImageOps.mirror(pair.without_image),
    )


def wrong_place(pair: Pair) -> Pair | None:
    """Ask the same pictures about another place, where they do not differ.

    Of the places that the question can be turned to (the opposite corner first), the first that
    is of one colour in both pictures, so that it holds nothing; if none is, the first. None
    where the question names no side, or its region does not move with it.
    """
    found = []
    for across, down in ((True, True), (True, False), (False, True)):
        other: Pair | None = pair
        for wanted, turn, words in ((across, _across, _ACROSS), (down, _down, _DOWN)):
            if wanted and other is not None:
                other = _moved(other, turn, words)
        if other is not None and not _overlap(pair.region.box, other.region.box):
            found.append(other)
    empty = [one for one in found if _is_empty(one)]
    return next(iter(empty or found), None)


def _moved(pair: Pair, turn: Callable[[_Box], _Box], words: Mapping[str, str]) -> Pair | None:
    """Turn question and region; None if one of them does not change."""
    question = _swapped(pair.question, words)
    box = turn(pair.region.box)
    if question == pair.question or np.allclose(box, pair.region.box, atol=_SAME):
        return None
    return replace(pair, question=question, region=_named(box))


def _across(box: _Box) -> _Box:
    left, top, right, bottom = box
    return 1 - right, top, 1 - left, bottom


def _down(box: _Box) -> _Box:
    left, top, right, bottom = box
    return left, 1 - bottom, right, 1 - top


def _named(box: _Box) -> Region:
    """The region of that box, under its name if it has one."""
    for region in REGIONS.values():
        if np.allclose(region.box, box, atol=_SAME):
            return region
    return Region(",".join(f"{edge:g}" for edge in box), *box)


def _swapped(text: str, words: Mapping[str, str]) -> str:
    """Exchange words, keeping a capital where there is one."""

    def swap(match: re.Match[str]) -> str:
        word = match[0]
        other = words[word.lower()]
        return other.capitalize() if word[0].isupper() else other

    latin = "|".join(word for word in words if word.isascii())
    others = "".join(word for word in words if not word.isascii())
    return re.sub(rf"\b(?:{latin})\b|[{others}]", swap, text, flags=re.IGNORECASE)


def _overlap(first: _Box, second: _Box) -> bool:
    across = min(first[2], second[2]) - max(first[0], second[0])
    down = min(first[3], second[3]) - max(first[1], second[1])
    return across > _SAME and down > _SAME


def _is_empty(pair: Pair) -> bool:
    """Whether the region's outer part is of one colour in both pictures."""
    box = _outer(pair.region.box)
    return all(_is_flat(image, box) for image in (pair.with_image, pair.without_image))


def _outer(box: _Box) -> _Box:
    """Cut a box that touches the image's edge to the outer third: quadrants reach the middle."""
    left, top, right, bottom = box
    third = 1 / 3
    if (left < _SAME) != (right > 1 - _SAME):
        left, right = (left, min(right, third)) if left < _SAME else (max(left, 1 - third), right)
    if (top < _SAME) != (bottom > 1 - _SAME):
        top, bottom = (top, min(bottom, third)) if top < _SAME else (max(top, 1 - third), bottom)
    return left, top, right, bottom


def _is_flat(image: Image.Image, box: _Box) -> bool:
    left, top, right, bottom = box
    width, height = image.size
    part = image.crop(
        (round(left * width), round(top * height), round(right * width), round(bottom * height))
    )
    pixels = np.asarray(part)
    return pixels.size > 0 and bool((pixels == pixels[0, 0]).all())
