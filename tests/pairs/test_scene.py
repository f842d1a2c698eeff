"""Scenes: what sampling promises, and that drawing keeps to it."""

import numpy as np
import pytest
from PIL import Image

from headpatch.pairs.scene import (
    COLOURS,
    DEFAULT_PAIR,
    DEFAULT_STYLE,
    MAIN_PLACES,
    PLACES,
    RANGES,
    SHAPES,
    Scene,
    Style,
    Thing,
    box_of,
    contrast,
    draw,
    mask,
    sample_background,
    sample_pair,
    sample_scene,
    sample_thing,
)


def rngs(count: int):
    return (np.random.default_rng([7, i]) for i in range(count))


def test_the_same_generator_gives_the_same_scene_and_pixels():
    for i in range(20):
        one, two = (sample_scene(np.random.default_rng(i)) for _ in range(2))
        assert one == two
        assert draw(one).tobytes() == draw(two).tobytes()
    assert sample_scene(np.random.default_rng(0)) != sample_scene(np.random.default_rng(1))


def test_every_thing_lies_inside_its_place():
    for rng in rngs(200):
        scene = sample_scene(rng)
        assert len(scene.things) <= RANGES.things[1]
        for thing in scene.things:
            row, column = PLACES[thing.place]
            assert RANGES.size[0] <= thing.size <= RANGES.size[1]
            half = thing.size / 2
            for centre, cell in ((thing.x, column), (thing.y, row)):
                assert cell / 3 < centre - half and centre + half < (cell + 1) / 3


def test_things_stand_out_from_every_kind_of_background():
    for kind in RANGES.backgrounds:
        for rng in rngs(50):
            scene = sample_scene(rng, count=5, background=kind)
            for thing in scene.things:
                assert contrast(COLOURS[thing.colour], scene.background) >= RANGES.contrast


def test_backgrounds_are_what_their_names_say():
    for rng in rngs(50):
        assert sample_background(rng, "black") == (0, 0, 0)
        assert max(sample_background(rng, "dark")) <= 70
        assert min(sample_background(rng, "light")) >= 190
        coloured = sample_background(rng, "coloured")
        assert max(coloured) - min(coloured) >= RANGES.saturation


@pytest.mark.parametrize("place", PLACES)
def test_a_pair_differs_in_the_asked_place_only(place: str):
    for rng in rngs(10):
        with_, without = sample_pair(rng, place)
        thing = with_.at(place)
        assert thing is not None and without.at(place) is None
        assert with_.without(place) == without and without.plus(thing) == with_
        for style in (Style(), Style(200, 150), Style(336, 336, antialias=True)):
            differs = (np.asarray(draw(with_, style)) != np.asarray(draw(without, style))).any(-1)
            left, top, right, bottom = box_of(thing, style)
            assert differs.any()
            differs[
                max(int(top) - 1, 0) : int(bottom) + 2, max(int(left) - 1, 0) : int(right) + 2
            ] = 0
            assert not differs.any()


def test_a_pair_is_as_asked():
    rng = np.random.default_rng(3)
    with_, without = sample_pair(
        rng, "center", shape="ring", colour="white", size=0.2, distractors=2, background="coloured"
    )
    thing = with_.at("center")
    assert thing is not None and (thing.shape, thing.colour, thing.size) == ("ring", "white", 0.2)
    assert len(without.things) == 2


def test_corners_and_centre_come_up_more_often_than_edges():
    rng = np.random.default_rng(0)
    places = [t.place for _ in range(300) for t in sample_scene(rng, count=2).things]
    counts = {place: places.count(place) for place in PLACES}
    assert min(counts[p] for p in MAIN_PLACES) > max(
        c for p, c in counts.items() if p not in MAIN_PLACES
    )


@pytest.mark.parametrize("shape", SHAPES)
def test_the_mask_is_where_the_colour_is(shape: str):
    scene = Scene((Thing(shape, "white", 0.5, 0.5, 0.28),))
    drawn = np.asarray(draw(scene))
    owner = mask(scene)
    assert owner.dtype == np.uint8 and owner.shape == drawn.shape[:2] and owner.max() == 1
    assert (owner == 1).tolist() == (drawn == 255).all(-1).tolist()


def test_shapes_are_told_apart_at_the_smallest_size():
    masks = [mask(Scene((Thing(shape, "red", 0.5, 0.5, RANGES.size[0]),))) for shape in SHAPES]
    for i, one in enumerate(masks):
        for two in masks[:i]:
            assert (one != two).sum() >= 80  # of some 550 pixels in the box


def test_what_cannot_be_is_refused():
    thing = sample_thing(np.random.default_rng(0), "top left", (0, 0, 0))
    with pytest.raises(ValueError, match="two things at one place"):
        Scene((thing,)).plus(thing)
    with pytest.raises(ValueError, match="does not stand out"):
        sample_thing(np.random.default_rng(0), "top left", (255, 255, 255), colour="white")
    with pytest.raises(ValueError, match="unknown shape"):
        draw(Scene((Thing("blob", "red", 0.5, 0.5, 0.2),)))


def test_styles_give_the_size_asked_for():
    scene = DEFAULT_PAIR[0]
    assert draw(scene, Style(500, 337, antialias=True, jpeg_quality=80)).size == (500, 337)
    hard, soft = (
        len(draw(scene, Style(antialias=smooth)).getcolors(1 << 16)) for smooth in (False, True)
    )
    assert hard == 3 and soft > 3


def test_the_default_pair_is_the_bundled_one():
    from importlib.resources import files

    with_, without = DEFAULT_PAIR
    triangle, square = with_.at("top left"), with_.at("bottom center")
    assert triangle is not None and (triangle.shape, triangle.colour) == ("triangle", "white")
    assert square is not None and (square.shape, square.colour) == ("square", "red")
    assert with_.without("top left") == without
    for name, scene in zip(("1.jpg", "2.jpg"), DEFAULT_PAIR, strict=True):
        with Image.open(str(files("headpatch.pairs") / "images" / name)) as image:
            assert image.size == (336, 336) and image.format == "JPEG"
            stored, drawn = (np.asarray(one, int) for one in (image, draw(scene, DEFAULT_STYLE)))
            assert np.abs(stored - drawn).mean() < 1
