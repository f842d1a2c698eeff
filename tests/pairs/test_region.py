"""Regions: names, boxes, and what is refused."""

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headpatch.errors import InputError
from headpatch.pairs.region import BY_DIFFERENCE, BY_IMAGE, DIFFERING, REGIONS, UNNAMED, Region
from tests.refusals import refusal

QUADRANTS = ("top-left", "top-right", "bottom-left", "bottom-right")
HALVES = (("left-half", "right-half"), ("top-half", "bottom-half"))
unit = st.floats(0, 1, exclude_max=True)
edges = st.tuples(unit, st.floats(0, 1)).map(sorted).filter(lambda pair: pair[0] < pair[1])


def holds(region: Region, x: float, y: float) -> bool:
    return region.left <= x < region.right and region.top <= y < region.bottom


@given(unit, unit)
def test_quadrants_and_halves_partition_the_image(x: float, y: float) -> None:
    assert sum(holds(REGIONS[name], x, y) for name in QUADRANTS) == 1
    for parts in HALVES:
        assert sum(holds(REGIONS[name], x, y) for name in parts) == 1
    assert holds(REGIONS["image"], x, y)


def test_names_say_where_they_are() -> None:
    assert REGIONS["top-left"].box == (0, 0, 0.5, 0.5)
    assert REGIONS["bottom-right"].box == (0.5, 0.5, 1, 1)
    assert REGIONS["top-right"].box == (0.5, 0, 1, 0.5)
    assert REGIONS["left-half"].box == (0, 0, 0.5, 1)
    assert REGIONS["bottom-half"].box == (0, 0.5, 1, 1)


@given(unit, unit)
def test_corners_and_centre_are_disjoint_ninths(x: float, y: float) -> None:
    ninths = [f"{quadrant}-corner" for quadrant in QUADRANTS] + ["center"]
    assert sum(holds(REGIONS[name], x, y) for name in ninths) <= 1
    for name in ninths:
        region = REGIONS[name]
        area = (region.right - region.left) * (region.bottom - region.top)
        assert area == pytest.approx(1 / 9)
    for quadrant in QUADRANTS:
        if holds(REGIONS[f"{quadrant}-corner"], x, y):
            assert holds(REGIONS[quadrant], x, y)


@given(edges, edges)
def test_a_box_reads_back(across: list[float], down: list[float]) -> None:
    (left, right), (top, bottom) = across, down
    region = Region.parse(f"{left!r}, {top!r},{right!r} ,{bottom!r}")
    assert region.box == (left, top, right, bottom)
    assert Region.parse(region.name) == region


@pytest.mark.parametrize("name", REGIONS)
def test_a_name_reads_back_in_any_spelling(name: str) -> None:
    spaced, scored = name.replace("-", " "), name.replace("-", "_")
    for spelling in (name, name.upper(), f" {name} ", spaced, scored):
        assert Region.parse(spelling) is REGIONS[name]
    assert Region.parse("Centre") is REGIONS["center"]


@pytest.mark.parametrize(
    ("text", "part"),
    {
        "upstairs": "top-left",
        "": "top-left",
        "0,0,1": "left,top,right,bottom",
        "0,0,1,1,1": "left,top,right,bottom",
        "a,b,c,d": "left,top,right,bottom",
        "0,0,1.5,1": "leaves the image",
        "-0.1,0,1,1": "leaves the image",
        "0,0,nan,1": "leaves the image",
        "0,0,inf,1": "leaves the image",
        "px:0,0,300": "left,top,right,bottom",
        "-1,0,300,200": "leaves the image",
        "0,0,inf,200": "leaves the image",
        "300,0,300,200": "is empty",
        "[10, 20, 300, 200]": "x,y,x+w,y+h",
        "0.5,0,0.5,1": "is empty",
        "0.6,0,0.5,1": "is empty",
        "0,0.5,1,0.2": "is empty",
    }.items(),
    ids=repr,
)
def test_refused_in_one_line(text: str, part: str) -> None:
    assert part in refusal(Region.parse, text, of="--region")


@given(st.text(max_size=12) | st.text("0123456789.,-en ", max_size=16))
def test_any_text_is_read_or_refused(text: str) -> None:
    with suppress(InputError):
        region = Region.parse(text)
        assert 0 <= region.left < region.right
        assert 0 <= region.top < region.bottom
        assert region.pixels or max(region.box) <= 1


@pytest.mark.parametrize("text", ["10,20,110,220", "px:10, 20,110, 220"])
def test_pixels_become_fractions_of_a_picture(text: str) -> None:
    region = Region.parse(text)
    assert region.pixels and region.box == (10, 20, 110, 220)
    found = region.within(200, 400)
    assert found.box == (0.05, 0.05, 0.55, 0.55) and not found.pixels
    assert Region.parse(found.name) == region  # so that a study's record reads back
    assert region.within(109, 400).right == 1  # a pixel of rounding
    for size in ((100, 400), (200, 210)):
        assert f"within {size[0]}x{size[1]}" in refusal(region.within, *size, of="--region")


def test_a_pixel_takes_its_mark_and_a_list_of_fractions_is_a_box() -> None:
    assert Region.parse("px:0,0,1,1").within(4, 2).box == (0, 0, 0.25, 0.5)
    assert Region.parse("0,0,1,1").box == (0, 0, 1, 1)
    assert Region.parse("[0, 0, 0.5, 1]") == Region.parse("0,0,0.5,1")


def test_no_place_has_a_name_that_reads_back() -> None:
    assert Region.parse("none") == UNNAMED == Region.parse(DIFFERING)
    assert UNNAMED.whole and REGIONS["image"].whole and not REGIONS["left-half"].whole
    assert not Region.parse("px:0,0,1,1").whole
    assert UNNAMED.yardstick == REGIONS["image"].yardstick == BY_IMAGE
    assert Region(DIFFERING, 0.0, 0.0, 0.5, 1.0).yardstick == BY_DIFFERENCE
    assert REGIONS["left-half"].yardstick == ""
