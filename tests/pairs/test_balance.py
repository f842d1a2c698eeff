"""Designs: counts are exact, alone and in pairs, and chance does the rest."""

import itertools

import numpy as np
import pytest

from headpatch.pairs.generate import balanced

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
