"""Ratios of means: against formulas by hand, and where a mean of ratios misleads."""

import numpy as np
import pytest
from scipy.stats import t

from headpatch.stats.intervals import mean_interval
from headpatch.stats.ratio import dominates, dominating_pair, ratio_of_means

LEVEL, DRAWS = 0.95, 1000


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def uneven(n: int, seed: int = 0) -> np.ndarray:
    """Gaps of nine pairs in ten about 20 logits, of the tenth about 1.2."""
    draw = rng(seed)
    return np.where(draw.random(n) < 0.1, draw.uniform(1, 1.4, n), draw.uniform(18, 22, n))


def test_with_equal_gaps_it_is_the_mean_of_ratios_with_its_interval() -> None:
    effects, gaps = rng().normal(1, 1, (30, 2, 3)), np.full(30, 8.0)
    found = ratio_of_means(effects, gaps, LEVEL, DRAWS, rng())
    mean = mean_interval(effects / 8, LEVEL, DRAWS, rng())
    for name in ("mean", "low", "high"):
        np.testing.assert_allclose(getattr(found, name), getattr(mean, name), atol=1e-12)


def test_it_never_excludes_what_fiellers_test_keeps() -> None:
    gaps = uneven(25)
    effects = rng(1).normal(0.1, 0.1, 25) * gaps
    found = ratio_of_means(effects, gaps, LEVEL, DRAWS, rng())
    assert found.mean == pytest.approx(effects.sum() / gaps.sum())
    quantile = t.ppf(0.975, 24)
    for ratio in np.linspace(float(found.low) - 0.1, float(found.high) + 0.1, 1001):
        apart = effects - ratio * gaps
        if abs(apart.mean()) <= quantile * apart.std(ddof=1) / 5:
            assert found.low - 1e-12 <= ratio <= found.high + 1e-12


def test_a_mean_gap_that_may_be_0_has_no_interval() -> None:
    gaps = np.array([5.0, -4.0, 3.0, -3.5])
    found = ratio_of_means(np.ones((4, 2)), gaps, LEVEL, DRAWS, rng())
    assert np.isfinite(found.mean).all()
    assert np.isnan(found.low).all() and np.isnan(found.high).all()


def test_copies_of_a_scene_tell_nothing_new() -> None:
    gaps, effects = uneven(20), rng(2).normal(0.3, 0.3, 20)
    once = ratio_of_means(effects, gaps, LEVEL, DRAWS, rng())
    scenes = np.tile(np.arange(20), 10)
    copied = np.tile(effects, 10), np.tile(gaps, 10)
    ten = ratio_of_means(*copied, LEVEL, DRAWS, rng(), scenes)
    for name in ("mean", "low", "high"):
        assert float(getattr(ten, name)) == pytest.approx(float(getattr(once, name)))
    apart = ratio_of_means(*copied, LEVEL, DRAWS, rng())
    assert apart.high - apart.low < 0.4 * (once.high - once.low)


def test_small_gaps_double_the_mean_of_ratios_and_not_the_ratio_of_means() -> None:
    """A head that moves every pair by 0.3 ± 0.3 logits; the true ratio is 0.3 / 18.1."""
    shares, ratios, covered = [], [], 0
    for seed in range(200):
        gaps = uneven(100, seed)
        effects = rng([seed, 1]).normal(0.3, 0.3, 100)
        found = ratio_of_means(effects, gaps, LEVEL, 200, rng(seed))
        shares.append((effects / gaps).mean())
        ratios.append(float(found.mean))
        covered += bool(found.low <= 0.3 / 18.12 <= found.high)
    assert np.mean(shares) == pytest.approx(0.039, abs=0.002)
    assert np.mean(ratios) == pytest.approx(0.0166, abs=0.0005)
    assert covered >= 184  # 92%: three errors below 95%


def test_the_pair_that_carries_most_of_a_mean() -> None:
    values = np.array([[0.1, 0.0, 0.1], [-0.8, 0.0, 0.1], [0.1, 0.0, 0.1]])
    place, share = dominating_pair(values)
    assert place[0] == 1 and share[0] == pytest.approx(0.8)
    assert np.isnan(share[1]) and share[2] == pytest.approx(1 / 3)
    assert not dominates(float(share[0]), 3)  # of three pairs nobody is named
    assert dominates(0.3, 20) and not dominates(0.2, 20)
    assert dominates(0.31, 10) and not dominates(0.29, 10)
    assert not dominates(float("nan"), 20)
