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
from headpatch.pairs.region import REGIONS
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
    with pytest.raises(InputError, match=r"--regions: .*left-half"):
        Study.make(flags={"draw.regions": ("left-half",)})


def test_names_may_be_one_text_in_python() -> None:
    asked = Study.make(flags={"ablate.kinds": "zero, resample", "ablate.directions": "noising"})
    assert asked.ablate.kinds == ("zero", "resample")
    assert asked.ablate.directions == ("noising",)
