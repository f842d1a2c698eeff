"""Drawn datasets: counterbalanced to the last pair, and what the pictures show is what is said."""

import itertools
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from headpatch.core.study.study import Study
from headpatch.errors import InputError
from headpatch.pairs.generate import (
    DISTRACTORS,
    PLACES,
    SIZES,
    Drawn,
    balanced,
    plan,
    write_pictures,
)
from headpatch.pairs.region import REGIONS, Region
from headpatch.pairs.scene import BACKGROUNDS, COLOURS, SHAPES
from headpatch.pairs.scene import PLACES as SCENE_PLACES

LEVELS = (4, 5, 5, 3, 5, 4, 1)


def cross(first: np.ndarray, second: np.ndarray, rows: int, columns: int) -> np.ndarray:
    table = np.zeros((rows, columns), dtype=int)
    for a, b in zip(first, second, strict=True):
        table[a, b] += 1
    return table


def unevenness(table: np.ndarray) -> float:
    """How far the worst cell lies from an even share; 0 if each holds it, rounded up or down."""
    share = table.sum() / table.size
    return float(max(table.max() - np.ceil(share), np.floor(share) - table.min(), 0))


@pytest.mark.parametrize("rows", [1, 3, 20, 100, 200, 1000])
def test_levels_of_a_factor_come_up_equally_often(rows: int) -> None:
    design = balanced(LEVELS, rows, np.random.default_rng(0))
    assert design.shape == (len(LEVELS), rows)
    for column, levels in zip(design, LEVELS, strict=True):
        counts = np.bincount(column, minlength=levels)
        assert len(counts) == levels
        assert counts.max() - counts.min() <= (rows % levels > 0)


@pytest.mark.parametrize(("rows", "seed"), [(200, 0), (200, 1), (200, 2), (400, 0), (1000, 0)])
def test_any_two_levels_meet_equally_often(rows: int, seed: int) -> None:
    design = balanced(LEVELS, rows, np.random.default_rng(seed))
    for i, j in itertools.combinations(range(len(LEVELS)), 2):
        table = cross(design[i], design[j], LEVELS[i], LEVELS[j])
        even = rows % table.size == 0
        assert table.max() - table.min() == 0 if even else table.max() - table.min() <= 1, (i, j)


def test_small_designs_are_as_even_as_they_come() -> None:
    design = balanced(LEVELS, 20, np.random.default_rng(0))
    worst = max(
        unevenness(cross(design[i], design[j], LEVELS[i], LEVELS[j]))
        for i, j in itertools.combinations(range(len(LEVELS)), 2)
    )
    assert worst <= 1


def test_unevenness_by_hand() -> None:
    assert unevenness(np.array([[2, 2], [2, 2]])) == 0
    assert unevenness(np.array([[3, 2], [2, 2]])) == 0
    assert unevenness(np.array([[4, 0], [2, 2]])) == 2
    assert unevenness(np.array([[1, 0], [0, 1]])) == 0


def test_the_seed_decides() -> None:
    one, same, other = (balanced(LEVELS, 50, np.random.default_rng(seed)) for seed in (0, 0, 1))
    assert np.array_equal(one, same)
    assert not np.array_equal(one, other)


DRAW = Study().draw
ALL = plan(200, 0, DRAW.regions, ("Is there anything {at}?", "Is there a {colour} {shape} {at}?"))


def level(pair: Drawn, factor: str) -> str:
    return pair.region if factor == "region" else pair.factors[factor]


def test_every_factor_and_every_two_are_balanced() -> None:
    """200 pairs: each level equally often, and so each two, exactly where that divides 200."""
    factors = {
        "region": DRAW.regions,
        "shape": SHAPES,
        "colour": COLOURS,
        "size": SIZES,
        "distractors": DISTRACTORS,
        "background": BACKGROUNDS,
        "wording": {pair.factors["wording"] for pair in ALL},
    }
    assert set(factors) == {"region", *ALL[0].factors}
    for one, two in itertools.combinations(factors, 2):
        counts = Counter((level(pair, one), level(pair, two)) for pair in ALL)
        cells = len(list(factors[one])) * len(list(factors[two]))
        assert len(counts) == cells
        assert max(counts.values()) - min(counts.values()) <= (200 % cells > 0), (one, two)


def test_whoever_always_says_yes_is_right_half_the_time() -> None:
    right = [pair.with_scene.at(PLACES[pair.region]) is not None for pair in ALL]
    right += [pair.without_scene.at(PLACES[pair.region]) is not None for pair in ALL]
    assert sum(right) == len(ALL)


def test_no_rule_on_the_count_of_objects_does_better_than_60_percent() -> None:
    present = Counter(len(pair.with_scene.things) for pair in ALL)
    absent = Counter(len(pair.without_scene.things) for pair in ALL)
    best = sum(max(present[count], absent[count]) for count in range(7))
    assert best / (2 * len(ALL)) == 0.6


def test_a_pair_differs_in_the_asked_object_and_is_as_its_row_says() -> None:
    for pair in ALL:
        thing = pair.with_scene.at(PLACES[pair.region])
        assert thing is not None
        assert pair.without_scene.plus(thing) == pair.with_scene
        assert (thing.shape, thing.colour) == (pair.factors["shape"], pair.factors["colour"])
        assert len(pair.without_scene.things) == int(pair.factors["distractors"])
        low, high = BACKGROUNDS[pair.factors["background"]]
        assert all(low <= channel <= high for channel in pair.with_scene.background)
        left, top, right, bottom = REGIONS[pair.region].box
        assert left <= thing.x <= right and top <= thing.y <= bottom
        assert PLACES[pair.region] in pair.question
        if "shape" in pair.factors["wording"]:
            assert f"{thing.colour} {thing.shape}" in pair.question
    sizes: dict[str, list[float]] = {name: [] for name in SIZES}
    for pair in ALL:
        sizes[pair.factors["size"]].append(pair.with_scene.at(PLACES[pair.region]).size)
    assert max(sizes["small"]) < min(sizes["medium"]) < max(sizes["medium"]) < min(sizes["large"])


def test_the_default_question_is_the_seeds() -> None:
    (pair,) = plan(1, 0, ("top-left",), DRAW.wording)
    assert pair.question == Study().question
    (pair,) = plan(1, 0, ("center",), DRAW.wording)
    assert pair.question == "Is there anything in the center?"


def test_the_seed_decides_and_the_same_seed_gives_the_same_bytes(tmp_path: Path) -> None:
    def drawn(name: str, seed: int) -> dict[str, bytes]:
        (tmp_path / name).mkdir()
        pairs = plan(3, seed, DRAW.regions, DRAW.wording)
        write_pictures(tmp_path / name, pairs, 64, "png")
        return {file.name: file.read_bytes() for file in sorted((tmp_path / name).iterdir())}

    one, same, other = drawn("a", -1), drawn("b", -1), drawn("c", 1)
    assert one == same
    assert list(one) == [f"000{i}-{run}.png" for i in (1, 2, 3) for run in ("with", "without")]
    assert one != other


@pytest.mark.parametrize("kind", ["png", "jpg"])
@pytest.mark.parametrize("regions", [DRAW.regions, ("center",)], ids=["corners", "center"])
def test_the_region_is_empty_without_the_object_and_holds_it_with_it(
    tmp_path: Path, regions: tuple[str, ...], kind: str
) -> None:
    """Measured by pixels: no other object of either picture reaches into the region."""
    pairs, seen = plan(40, 3, regions, DRAW.wording), []
    write_pictures(tmp_path, pairs, 168, kind, lambda done, total: seen.append((done, total)))
    assert seen == [(done, 40) for done in range(1, 41)]
    assert {pair.factors["distractors"] for pair in pairs} == set(DISTRACTORS)
    for pair in pairs:
        present, absent = (
            np.asarray(Image.open(tmp_path / file)).astype(int) for file in pair.files(kind)
        )
        assert present.shape == absent.shape == (168, 168, 3)
        ground = np.array(pair.without_scene.background)
        left, top, right, bottom = (round(edge * 168) for edge in REGIONS[pair.region].box)
        inside = (slice(top, bottom), slice(left, right))
        assert not (np.abs(absent[inside] - ground).sum(-1) > 60).any(), pair.name
        object_pixels = np.abs(present - absent).sum(-1) > 60
        assert object_pixels[inside].sum() == object_pixels.sum() > 0, pair.name


def test_a_region_is_its_place_to_the_edge() -> None:
    for region, place in PLACES.items():
        row, column = SCENE_PLACES[place]
        edges = np.array([column, row, column + 1, row + 1]) / 3
        np.testing.assert_allclose(REGIONS[region].box, edges, atol=1e-12)


def test_a_quadrants_name_asks_about_its_corner() -> None:
    """Names of earlier studies: the same pairs, with the region that the question names."""
    short = tuple(name.removesuffix("-corner") for name in DRAW.regions)
    pairs = [plan(8, 0, regions, DRAW.wording) for regions in (short, DRAW.regions)]
    for one, other in zip(*pairs, strict=True):
        assert one.row("png") == other.row("png")
        assert one.region in DRAW.regions
    with pytest.raises(InputError, match=r"^--regions: .*twice"):
        plan(1, 0, ("top-left", "top-left-corner"), DRAW.wording)


@pytest.mark.parametrize(
    ("wording", "part"),
    [
        ("Anything there?", "no {at}"),
        ("Is {it} {at}?", "at, shape, colour"),
        ("Is {at", "Is {at"),
        ("Is {} {at}?", "at, shape, colour"),
        ("Is it {at:>9}?", "at, shape, colour"),
        ("Is it {at!r}?", "at, shape, colour"),
    ],
)
def test_a_bad_wording_is_refused(wording: str, part: str) -> None:
    with pytest.raises(InputError, match=r"^--wording: ") as caught:
        plan(1, 0, DRAW.regions, (wording,))
    assert part in str(caught.value)


def test_nothing_is_asked_twice() -> None:
    with pytest.raises(InputError, match=r"^--regions: "):
        plan(1, 0, ("top-left", "top-left"), DRAW.wording)
    with pytest.raises(InputError, match=r"^--wording: "):
        plan(1, 0, DRAW.regions, DRAW.wording * 2)


def test_regions_are_spelled_as_a_pairs_own_may_be() -> None:
    flags = {"draw.regions": ("Top left", "bottom_right-corner", "Centre")}
    drawn = Study.make(flags=flags).draw.regions
    assert drawn == ("top-left", "bottom-right-corner", "center")
    assert Study.make(flags={"draw.regions": "top left, center"}).draw.regions == (
        "top-left",
        "center",
    )
    boxed = Study.make(flags={"draw.regions": ("Left half", "0.1", " 0.2", "0.5", "0.6")})
    assert boxed.draw.regions == ("left-half", "0.1,0.2,0.5,0.6")
    assert Study.make(flags={"draw.regions": "px:0,0,99,99"}).draw.regions == ("px:0,0,99,99",)
    with pytest.raises(InputError, match=r"--regions: 'left-third'; .*left-half"):
        Study.make(flags={"draw.regions": ("left-third",)})


@pytest.mark.parametrize(
    ("region", "most", "words"),
    [
        ("left-half", 3, "in the left half"),
        ("bottom-half", 3, "in the bottom half"),
        ("image", 0, "in the picture"),
        ("0.05,0.3,0.45,0.7", 3, ""),
        ("px:0,0,60,60", 4, ""),
    ],
)
def test_halves_and_boxes_hold_the_object_and_nothing_else(
    region: str, most: int, words: str
) -> None:
    """Boxes of things by hand: the asked one inside the region, every other one outside."""
    wording = "Is there anything {at}?" if words else "Is a {colour} {shape} beside the door?"
    sides = set()
    for pair in plan(60, 1, (region,), (wording,), 168):
        left, top, right, bottom = Region.parse(region).within(168, 168).box
        assert int(pair.factors["distractors"]) <= most
        (thing,) = set(pair.with_scene.things) - set(pair.without_scene.things)
        assert pair.without_scene.plus(thing) == pair.with_scene
        half = thing.size / 2
        assert left <= thing.x - half and thing.x + half <= right
        assert top <= thing.y - half and thing.y + half <= bottom
        sides.add((thing.x < (left + right) / 2, thing.y < (top + bottom) / 2))
        for other in pair.without_scene.things:
            apart = abs(other.x - (left + right) / 2) - (right - left) / 2 - other.size / 2
            below = abs(other.y - (top + bottom) / 2) - (bottom - top) / 2 - other.size / 2
            assert max(apart, below) >= 0
        assert pair.region == region
        assert words in pair.question
    assert len(sides) == 4  # all over the region


def test_halves_and_corners_are_crossed_alike() -> None:
    pairs = plan(80, 0, ("top-left", "right-half"), DRAW.wording)
    assert Counter(pair.region for pair in pairs) == {"top-left-corner": 40, "right-half": 40}
    counts = Counter((pair.region, pair.factors["distractors"]) for pair in pairs)
    assert set(counts.values()) == {10}


@pytest.mark.parametrize(
    ("regions", "wording", "part"),
    [
        (("0.1,0.1,0.5,0.5",), "Is there anything {at}?", "no name to ask by.*without {at}.*half"),
        (("0.1,0.1,0.5,0.5", "center"), "Is it at the door?", "no {at}.*several regions"),
        (("0,0,0.2,0.5",), "Is it at the door?", "not every object has room.*0.30"),
        (("px:0,0,400,400",), "Is it at the door?", "leaves the picture.*168x168"),
        (("none",), "Is there anything {at}?", "none.*a place"),
        (("left-half", "0,0,0.5,1"), "Is there anything {at}?", "twice"),
    ],
)
def test_what_cannot_be_drawn_is_refused(regions: tuple[str, ...], wording: str, part: str) -> None:
    with pytest.raises(InputError, match=rf"^--(regions|wording): .*{part}"):
        plan(4, 0, regions, (wording,), 168)


def test_names_may_be_one_text_in_python() -> None:
    asked = Study.make(flags={"ablate.kinds": "zero, resample", "ablate.directions": "noising"})
    assert asked.ablate.kinds == ("zero", "resample")
    assert asked.ablate.directions == ("noising",)
