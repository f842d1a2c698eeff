"""Agreement of estimates with exact effects, worked out by hand, and how its interval behaves."""

import numpy as np
import pytest

from headpatch.stats.agreement import agreement, pearson_interval


def test_agreement_by_hand() -> None:
    exact_effects = np.array([[3.0, -2.0], [1.0, 0.0]])
    same = agreement(2 * exact_effects, exact_effects, k=2)
    assert (same.pearson, same.spearman) == (pytest.approx(1), pytest.approx(1))
    assert (same.top_recall, same.k) == (1.0, 2)
    turned = agreement(-exact_effects, exact_effects, k=2)
    assert (turned.pearson, turned.top_recall) == (pytest.approx(-1), 1.0)  # by size
    # Ranks 4 1 3 2 against 4 2 1 3: 1 - 6 (0 + 1 + 4 + 1) / (4 · 15) = 0.4
    other = agreement(np.array([4.0, 1.0, 3.0, 2.0]), np.array([4.0, 2.0, 1.0, 3.0]), k=2)
    assert other.spearman == pytest.approx(0.4)
    assert other.pearson == pytest.approx(0.4)
    assert other.top_recall == 0.5  # {0, 2} and {0, 3}
    assert str(other) == "Pearson 0.40, Spearman 0.40, top-2 recall 0.50"


def test_agreement_of_few_or_equal_or_broken_effects() -> None:
    assert agreement(np.arange(3.0), np.arange(3.0)).k == 3
    flat = agreement(np.zeros(5), np.arange(5.0), k=1)
    assert np.isnan(flat.pearson) and np.isnan(flat.spearman)
    for bad in (np.array([1.0]), np.array([1.0, np.nan])):
        with pytest.raises(ValueError, match="agreement needs"):
            agreement(bad, bad)


def test_chance_is_the_share_of_heads_that_are_counted() -> None:
    """Over all orders of five heads, the mean recall of two is 2/5."""
    exact = np.arange(5.0)
    found = [agreement(exact[np.roll(np.arange(5), turn)], exact, k=2) for turn in range(5)]
    assert found[0].chance == 2 / 5
    assert np.mean([one.top_recall for one in found]) == pytest.approx(2 / 5)


def test_the_interval_holds_the_correlation_of_a_normal_pair() -> None:
    """For a bivariate normal the bootstrap agrees with Fisher's z, artanh r ± 1.96 / √(n - 3)."""
    rng = np.random.default_rng(0)
    a = rng.normal(size=400)
    b = 0.6 * a + 0.8 * rng.normal(size=400)
    r = agreement(a, b).pearson
    low, high = pearson_interval(a, b, 0.95, 4000, rng)
    for end, sign in ((low, -1), (high, 1)):
        assert end == pytest.approx(np.tanh(np.arctanh(r) + sign * 1.96 / np.sqrt(397)), abs=0.02)
    moved = pearson_interval(3 * a + 7, b - 1e3, 0.95, 4000, np.random.default_rng(1))
    assert moved == pytest.approx((low, high), abs=0.02)


def test_one_head_that_carries_the_correlation_widens_the_interval() -> None:
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=200), rng.normal(size=200)
    a[0] = b[0] = 40.0
    low, high = pearson_interval(a, b, 0.95, 2000, rng)
    assert agreement(a, b).pearson > 0.8
    assert low < 0.2 < 0.9 < high


def test_intervals_at_the_edge() -> None:
    rng = np.random.default_rng(0)
    assert np.isnan(pearson_interval(np.zeros(5), np.arange(5.0), 0.9, 100, rng)).all()
    exact = pearson_interval(np.arange(9.0), 2 * np.arange(9.0), 0.9, 100, rng)
    assert exact == pytest.approx((1, 1))
    low, high = pearson_interval(np.arange(2.0), np.arange(2.0), 0.9, 100, rng)
    assert (low, high) == pytest.approx((1, 1))  # draws of one head alone say nothing
    with pytest.raises(ValueError, match="level"):
        pearson_interval(np.arange(3.0), np.arange(3.0), 1.0, 100, rng)
    with pytest.raises(ValueError, match="agreement needs"):
        pearson_interval(np.array([1.0]), np.array([1.0]), 0.9, 100, rng)
