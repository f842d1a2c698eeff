"""Spatial entropy: by hand, and against labelled maps of scipy.ndimage."""

from math import log

import numpy as np
import pytest
from scipy import ndimage

from headpatch.stats.spatial_entropy import neighbours, spatial_entropy


def grid(rows: int, columns: int) -> np.ndarray:
    """Boxes of a plain grid, row by row."""
    return np.array(
        [
            (x / columns, y / rows, (x + 1) / columns, (y + 1) / rows)
            for y in range(rows)
            for x in range(columns)
        ]
    )


def of_map(values: np.ndarray) -> float:
    """Spatial entropy of one map, ``[rows, columns]``, by the package."""
    return float(spatial_entropy(values.ravel(), neighbours(grid(*values.shape))))


def by_labels(values: np.ndarray) -> float:
    """The same, slowly, from scipy's labels of the map."""
    excess = np.maximum(values - 2 * values.mean(), 0)
    if not excess.any():
        return log(values.size)
    labels, count = ndimage.label(excess > 0, structure=np.ones((3, 3)))
    shares = [excess[labels == i].sum() / excess.sum() for i in range(1, count + 1)]
    return -sum(share * log(share) for share in shares)


def test_by_hand() -> None:
    one = np.zeros((4, 4))
    one[1, 1], one[2, 2] = 0.3, 0.1  # joined by a corner: one place
    assert of_map(one) == 0
    two = np.zeros((4, 4))
    two[0, 0], two[3, 3] = 0.4, 0.4  # mean 0.05, so each stands 0.3 above twice of it
    assert of_map(two) == pytest.approx(log(2))
    two[3, 3] = 0.2  # mean 0.0375: 0.325 and 0.125 above
    shares = 0.325 / 0.45, 0.125 / 0.45
    assert of_map(two) == pytest.approx(-sum(share * log(share) for share in shares))


def test_an_even_map_and_one_of_zeros_have_the_most() -> None:
    for even in (np.full((4, 4), 1 / 16), np.zeros((4, 4))):
        assert of_map(even) == pytest.approx(log(16))


@pytest.mark.parametrize("shape", [(4, 4), (3, 7), (1, 5), (24, 24)])
def test_as_scipys_labels_have_it(shape: tuple[int, int]) -> None:
    maps = np.random.default_rng(0).exponential(size=(2, 3, *shape)) ** 3
    found = spatial_entropy(maps.reshape(2, 3, -1), neighbours(grid(*shape)))
    expected = [[by_labels(one) for one in each] for each in maps]
    np.testing.assert_allclose(found, expected, atol=1e-12)
    scaled = spatial_entropy(maps.reshape(2, 3, -1) / 1e4, neighbours(grid(*shape)))
    np.testing.assert_allclose(scaled, expected, atol=1e-12)  # whatever the map's sum


def test_neighbours_of_tiles_and_of_tokens_without_a_place() -> None:
    boxes = np.concatenate([grid(2, 2), [(0.0, 0.0, 1.0, 1.0)], np.full((1, 4), np.nan)])
    pairs = {tuple(pair) for pair in neighbours(boxes).T.tolist()}
    assert pairs == {(i, j) for i in range(5) for j in range(i + 1, 5)}  # the whole overlaps all
    left, right = grid(2, 4)[[0, 1, 4, 5]], grid(2, 4)[[2, 3, 6, 7]]
    across = neighbours(np.concatenate([left, right]))
    assert len(across.T) == 2 * 3 + 4 + 2 * 3  # sides across and down, and corners
