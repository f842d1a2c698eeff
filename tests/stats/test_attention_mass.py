from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from headpatch.stats.attention_mass import (
    QUADRANTS,
    distribution,
    mass,
    normalized_mass,
    quadrant_masks,
    region_mask,
    visible_share,
)

sides = st.integers(1, 30)
attention = st.one_of(st.just(0.0), st.floats(1e-300, 1.0))


def grid_boxes(rows: int, cols: int, dtype: type = np.float32) -> np.ndarray:
    """Boxes of a patch grid, row by row."""
    places = [(r, c) for r in range(rows) for c in range(cols)]
    boxes = [(c / cols, r / rows, (c + 1) / cols, (r + 1) / rows) for r, c in places]
    return np.array(boxes, dtype=dtype)


@st.composite
def rows_on_a_grid(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray]:
    rows, cols, heads = draw(sides), draw(sides), draw(st.integers(1, 4))
    shape = (heads, rows * cols)
    return grid_boxes(rows, cols), draw(hnp.arrays(np.float64, shape, elements=attention))


@given(rows_on_a_grid())
def test_quadrants_partition_and_their_masses_sum_to_one(case):
    boxes, rows = case
    masks = quadrant_masks(boxes)
    assert (masks.sum(axis=0) == 1).all()
    total = sum(normalized_mass(rows, mask) for mask in masks)
    raw = sum(mass(rows, mask) for mask in masks)
    np.testing.assert_allclose(total, np.where(rows.sum(-1) > 0, 1.0, 0.0), atol=1e-12)
    np.testing.assert_allclose(raw, rows.sum(axis=-1), rtol=1e-12)


@given(rows_on_a_grid(), st.randoms(use_true_random=False))
def test_masses_equal_a_naive_loop(case, random):
    boxes, rows = case
    mask = np.array([random.random() < 0.5 for _ in boxes])
    for head, row in enumerate(rows):
        region = sum(float(a) for a, inside in zip(row, mask, strict=True) if inside)
        image = sum(float(a) for a in row)
        assert mass(rows, mask)[head] == pytest.approx(region, rel=1e-12)
        share = region / image if image else 0.0
        assert normalized_mass(rows, mask)[head] == pytest.approx(share, rel=1e-9, abs=1e-12)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_the_seeds_grid_gives_four_quadrants_of_12_by_12(dtype):
    masks = quadrant_masks(grid_boxes(24, 24, dtype)).reshape(4, 24, 24)
    assert list(QUADRANTS) == ["top-left", "top-right", "bottom-left", "bottom-right"]
    halves = [np.s_[:12, :12], np.s_[:12, 12:], np.s_[12:, :12], np.s_[12:, 12:]]
    for mask, half in zip(masks, halves, strict=True):
        assert mask.sum() == 144
        assert mask[half].all()


@pytest.mark.parametrize("side", range(1, 65))
def test_float32_boxes_decide_as_exact_fractions_do(side):
    """Odd grids have a centre exactly on the cut: it belongs to the right and the bottom."""
    exact = [Fraction(2 * i + 1, 2 * side) < Fraction(1, 2) for i in range(side)]
    got = region_mask(grid_boxes(side, side), QUADRANTS["top-left"]).reshape(side, side)
    assert (got == np.outer(exact, exact)).all()


def test_a_token_belongs_by_its_centre_and_boxes_are_half_open():
    boxes = np.array([[0.0, 0.0, 0.6, 0.6], [0.2, 0.2, 0.4, 0.4], [0.0, 0.0, 1.0, 1.0]])
    assert region_mask(boxes, (0.3, 0.3, 0.5, 0.5)).tolist() == [True, True, False]
    assert region_mask(boxes, (0.0, 0.0, 0.3, 0.3)).tolist() == [False, False, False]


def test_tiles_and_crops_are_read_alike():
    """Two resolutions of one image: each level's quadrant holds a quarter of its tokens."""
    boxes = np.concatenate([grid_boxes(4, 4), grid_boxes(8, 8)])
    assert quadrant_masks(boxes).sum(axis=1).tolist() == [20, 20, 20, 20]
    crop = 0.25 + 0.5 * grid_boxes(4, 4)  # the middle half of the image
    assert quadrant_masks(crop).sum(axis=1).tolist() == [4, 4, 4, 4]


def test_tokens_off_the_image_or_without_a_place_belong_to_no_quadrant():
    boxes = np.array([[0.0, 1.0, 0.1, 1.1], [-0.2, 0.0, -0.1, 0.1], [np.nan] * 4])
    assert not quadrant_masks(boxes).any()


def test_a_region_without_a_centre_is_empty():
    assert not region_mask(grid_boxes(2, 2), (0.0, 0.0, 0.1, 0.1)).any()


@pytest.mark.parametrize(
    "box", [(0.5, 0.0, 0.5, 1.0), (0.0, 1.0, 1.0, 0.0), (0.0, 0.0, 1.0, float("nan"))]
)
def test_impossible_regions_are_refused(box):
    with pytest.raises(ValueError, match="region"):
        region_mask(grid_boxes(2, 2), box)


def test_a_head_without_image_attention_has_no_share_and_no_nan():
    rows = np.array([[0.0, 0.0], [0.1, 0.3], [5e-324, 0.0]])
    mask = np.array([True, False])
    assert normalized_mass(rows, mask).tolist() == [0.0, 0.25, 1.0]
    assert distribution(rows)[0].tolist() == [0.0, 0.0]


@pytest.mark.parametrize("bad", [-0.1, float("nan"), float("inf")])
@pytest.mark.parametrize("function", [mass, normalized_mass])
def test_rows_that_are_no_attention_are_refused(function, bad):
    with pytest.raises(ValueError, match="attention rows"):
        function(np.array([0.5, bad]), np.array([True, True]))


def test_any_leading_axes_and_any_precision():
    rows = np.full((3, 5, 16), 1 / 16, dtype=np.float16)
    mask = region_mask(grid_boxes(4, 4), QUADRANTS["bottom-right"])
    assert mass(rows, mask).shape == (3, 5)
    assert mass(rows[0, 0], mask).shape == ()
    assert mass(rows, mask).dtype == np.float64
    np.testing.assert_allclose(normalized_mass(rows, mask), 0.25)
    assert rows.dtype == np.float16


def test_visible_share_is_the_area_that_any_box_covers() -> None:
    overlapping = [0, 0, 0.5, 0.5], [0.25, 0, 0.5, 1.0], [0.3, 0.1, 0.4, 0.2]
    boxes = np.array([*overlapping, [np.nan] * 4])
    assert visible_share(boxes, (0.0, 0.0, 1.0, 1.0)) == pytest.approx(0.25 + 0.25 * 0.5)
    assert visible_share(boxes, (0.0, 0.0, 0.5, 0.5)) == pytest.approx(1)
    assert visible_share(boxes, (0.0, 0.5, 0.5, 1.0)) == pytest.approx(0.5)
    assert visible_share(boxes, (0.5, 0.0, 1.0, 1.0)) == 0
    assert visible_share(boxes[3:], (0.0, 0.0, 1.0, 1.0)) == 0
    assert visible_share(grid_boxes(12, 12), (0.1, 0.3, 0.77, 0.9)) == pytest.approx(1)
