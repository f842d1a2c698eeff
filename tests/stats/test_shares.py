"""Intervals of rates and shares: tables and closed forms as oracles, coverage."""

import numpy as np
import pytest
from scipy import stats

from headpatch.stats.shares import rate_interval, share_interval


def test_clopper_and_pearsons_interval_of_a_rate() -> None:
    found = rate_interval(13, 16, 0.95)
    ends = stats.beta.ppf(0.025, 13, 4), stats.beta.ppf(0.975, 14, 3)
    assert (found.value, found.low, found.high) == pytest.approx((13 / 16, *ends))
    assert rate_interval(0, 16, 0.95).high == pytest.approx(1 - 0.025 ** (1 / 16))
    with pytest.raises(ValueError, match="n"):
        rate_interval(0, 0, 0.95)


def test_a_share_is_what_a_t_test_does_not_refute() -> None:
    rng = np.random.default_rng(0)
    whole = rng.normal(1, 0.5, 20)
    part = 0.4 * whole + rng.normal(0, 0.3, 20)
    found = share_interval(part, whole, 0.95)
    for end in (found.low, found.high):
        assert stats.ttest_1samp(part - end * whole, 0).pvalue == pytest.approx(0.05)
    assert found.low < found.value < found.high


def test_a_share_of_what_is_always_the_same_is_students() -> None:
    part = np.random.default_rng(1).normal(1, 1, 12)
    found = share_interval(part, np.full(12, 2.0), 0.9)
    low, high = stats.t.interval(0.9, 11, part.mean() / 2, stats.sem(part) / 2)
    assert (found.low, found.high) == pytest.approx((low, high))


def test_a_share_of_nothing_is_anything() -> None:
    found = share_interval(np.ones(6), np.array([1.0, -1, 1, -1, 1, -1]), 0.95)
    assert (found.low, found.high) == (-np.inf, np.inf)
    assert np.isnan(share_interval(np.ones(3), np.zeros(3), 0.95).value)


def test_the_interval_of_a_share_covers() -> None:
    rng, covered = np.random.default_rng(2), 0
    for _ in range(1000):
        whole = rng.exponential(1, 16)
        found = share_interval(0.5 * whole + rng.normal(0, 0.5, 16), whole, 0.95)
        covered += found.low <= 0.5 <= found.high
    assert 0.93 < covered / 1000 < 0.98
