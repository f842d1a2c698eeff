"""The same pair asked about a wrong place, or mirrored."""

import numpy as np
import pytest
from PIL import Image, ImageDraw

from headpatch.pairs.pair import Pair
from headpatch.pairs.region import Region
from headpatch.questions.verdict.counterfactual_questions import mirrored, wrong_place


def pair(question: str, region: str, *things: tuple[int, int]) -> Pair:
    """Black 60 px pictures; the with-picture has a white square at the region's centre."""
    where = Region.parse(region)
    images = []
    for found in (True, False):
        image = Image.new("RGB", (60, 60))
        pen = ImageDraw.Draw(image)
        for x, y in things:
            pen.rectangle((x, y, x + 4, y + 4), fill="red")
        if found:
            x, y = round(30 * (where.left + where.right)), round(30 * (where.top + where.bottom))
            pen.rectangle((x - 3, y - 3, x + 3, y + 3), fill="white")
        images.append(image)
    return Pair("p", images[0], images[1], question, where)


@pytest.mark.parametrize(
    ("question", "region", "said", "moved"),
    [
        ("Anything top left?", "top-left", "Anything top right?", "top-right"),
        ("Left bottom, LEFT?", "bottom-left", "Right bottom, Right?", "bottom-right"),
        ("Is it on the right half?", "right-half", "Is it on the left half?", "left-half"),
        ("左上角有东西吗?", "top-left-corner", "右上角有东西吗?", "top-right-corner"),
        ("At the left?", "0,0.2,0.3,0.6", "At the right?", "0.7,0.2,1,0.6"),
    ],
)
def test_mirrored_moves_pictures_region_and_words(
    question: str, region: str, said: str, moved: str
) -> None:
    one = pair(question, region)
    other = mirrored(one)
    assert other is not None
    assert (other.question, other.region.name) == (said, moved)
    for before, after in (
        (one.with_image, other.with_image),
        (one.without_image, other.without_image),
    ):
        np.testing.assert_array_equal(np.asarray(before)[:, ::-1], np.asarray(after))
    back = mirrored(other)
    assert back is not None
    np.testing.assert_allclose(back.region.box, one.region.box, atol=1e-12)
    np.testing.assert_array_equal(np.asarray(back.with_image), np.asarray(one.with_image))


@pytest.mark.parametrize(
    ("question", "region"),
    [
        ("Is there anything in the center?", "center"),  # nothing moves
        ("Is there anything at the left?", "center"),  # only the words would
        ("Is there anything here?", "top-left"),  # only the region would
        ("Is it a leftover of yesterday?", "top-left"),  # no word of its own
    ],
)
def test_what_cannot_be_turned_is_not(question: str, region: str) -> None:
    assert mirrored(pair(question, region)) is None
    assert wrong_place(pair(question, region)) is None


def test_the_wrong_place_is_the_opposite_corner_unless_something_is_there() -> None:
    question = "Is there anything in the top left corner?"
    empty = wrong_place(pair(question, "top-left"))
    assert empty is not None
    assert (empty.question, empty.region.name) == (
        "Is there anything in the bottom right corner?",
        "bottom-right",
    )
    taken = wrong_place(pair(question, "top-left", (50, 50)))
    assert taken is not None and taken.region.name == "top-right"
    all_taken = wrong_place(pair(question, "top-left", (50, 50), (50, 5), (5, 50)))
    assert all_taken is not None and all_taken.region.name == "bottom-right"
    in_the_middle = wrong_place(pair(question, "top-left", (28, 28)))  # reaches each quadrant
    assert in_the_middle is not None and in_the_middle.region.name == "bottom-right"


def test_the_wrong_place_does_not_overlap_the_right_one() -> None:
    half = wrong_place(pair("Anything in the left half?", "left-half"))
    assert half is not None and half.region.name == "right-half"
    assert wrong_place(pair("Anything at the left?", "0,0,0.8,1")) is None


def test_the_pictures_stay_as_they_are() -> None:
    one = pair("Anything top left?", "top-left")
    other = wrong_place(one)
    assert other is not None
    assert other.with_image is one.with_image and other.without_image is one.without_image
