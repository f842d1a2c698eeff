"""Rankings of heads compared, and the area under a curve."""

import numpy as np
import pytest
from scipy import stats

from headpatch.stats.rankings import (
    area_under,
    correlation,
    descending,
    effect_size,
    precision_at,
    sizes,
    spearman,
)


def test_spearman_is_scipys() -> None:
    rng = np.random.default_rng(0)
    a, b = rng.integers(0, 9, 60) * 1.0, rng.normal(size=60)
    assert spearman(a, b) == pytest.approx(stats.spearmanr(a, b).statistic, abs=1e-12)
    assert np.isnan(spearman(a, np.ones(60)))


def test_the_interval_covers_the_rho_of_the_true_means() -> None:
    """100 studies of 40 pairs and 120 heads, whose mean effects stand out from their errors."""
    rng = np.random.default_rng(1)
    hits = 0
    for _ in range(100):
        mean_look = rng.normal(size=120)
        mean_effect = np.exp(0.5 * mean_look + rng.normal(size=120))
        looks = mean_look + rng.normal(0, 0.5, (40, 120))
        necessity = mean_effect + rng.normal(0, 0.5, (40, 120))
        sufficiency = 0.5 * mean_effect + rng.normal(0, 0.5, (40, 120))
        found = correlation(looks, necessity, sufficiency, 0.95)
        assert found.low <= found.rho <= found.high
        hits += found.low <= spearman(mean_look, mean_effect) <= found.high
    assert hits >= 90


def test_noise_pulls_rho_to_zero_and_the_interval_with_it() -> None:
    """Effects a tenth of their errors: the limit that the docstring states, not a feature."""
    rng = np.random.default_rng(2)
    means = np.abs(rng.normal(size=300))
    for _ in range(10):
        noise = 10 * np.sqrt(40) * rng.normal(size=(2, 40, 300))
        looks = means + rng.normal(0, 0.5, (40, 300))
        found = correlation(looks, means + noise[0], 0.5 * means + noise[1], 0.95)
        assert abs(found.rho) < 0.25  # of a true rho of 1
        assert found.high < 0.5


def test_a_flat_side_has_no_rho() -> None:
    flat, other = np.zeros((5, 8)), np.random.default_rng(0).normal(size=(5, 8))
    assert np.isnan(correlation(flat, other, other, 0.95).rho)


def test_rankings_that_agree_fully_have_rho_one() -> None:
    values = np.tile(np.arange(1.0, 9.0), (5, 1))
    found = correlation(values, values, values, 0.95)
    assert found.rho == pytest.approx(1) and found.low <= 1 <= found.high + 1e-9


def test_precision_by_hand() -> None:
    found = precision_at(np.array([3, 1, 0, 2, 4]), np.array([1, 0, 2, 3, 4]), 2)
    assert (found.hits, found.share, found.chance) == (1, 0.5, 0.4)
    # 1 − P(no hit) = 1 − (3/5)(2/4)
    assert found.p == pytest.approx(1 - 3 / 10)
    same = precision_at(np.arange(5), np.arange(5), 3)
    assert (same.share, same.p) == (1.0, pytest.approx(1 / 10))
    with pytest.raises(ValueError, match="k must lie"):
        precision_at(np.arange(5), np.arange(5), 6)


def test_ties_keep_their_order_and_nan_comes_last() -> None:
    np.testing.assert_array_equal(descending(np.array([[1.0, np.nan], [2.0, 1.0]])), [2, 0, 3, 1])


def test_effect_size_is_the_larger_in_size() -> None:
    np.testing.assert_array_equal(
        effect_size(np.array([0.1, -0.5]), np.array([-0.3, 0.2])), [0.3, 0.5]
    )


def test_sizes_run_from_none_to_all() -> None:
    assert sizes(1024) == [0, 1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024]
    assert sizes(16) == [0, 1, 2, 4, 8, 16]
    assert sizes(6) == [0, 1, 2, 4, 6]
    assert sizes(1) == [0, 1]


def test_area_by_hand() -> None:
    """k = 0, 1, 3 lie evenly on log2(k + 1)."""
    assert area_under([0, 1, 3], np.array([0.0, 1.0, 1.0])) == pytest.approx(0.75)
    np.testing.assert_allclose(area_under([0, 1, 3], np.array([[0, 0.5, 1], [1, 1, 1]])), [0.5, 1])
