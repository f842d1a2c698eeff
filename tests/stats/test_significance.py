"""Tests over pairs: scipy as the oracle, error rates at the hypotheses' edges."""

import numpy as np
import pytest
from scipy import stats

from headpatch.stats.significance import (
    adjusted,
    equivalence_test,
    layer_rank,
    minimum_effect_test,
    one_sided_test,
)


def draws(pairs: int, columns: int, mean: float = 0.0, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(mean, 1.0, (pairs, columns))


def symmetric(pairs: int, columns: int, mean: float) -> np.ndarray:
    """Samples without skewness, for which the tests are scipy's t-tests."""
    half = draws(pairs // 2, columns)
    return np.random.default_rng(1).normal(mean, 0.2, columns) + np.concatenate([half, -half])


def test_beyond_nothing_is_scipys_t_test() -> None:
    values = symmetric(24, 40, 0.3)
    plain = stats.ttest_1samp(values, 0).pvalue
    np.testing.assert_allclose(minimum_effect_test(values), plain, rtol=1e-10)


def test_above_and_within_are_scipys_one_sided_tests() -> None:
    values, delta = symmetric(24, 40, 0.1), 0.4
    over = stats.ttest_1samp(values, delta, alternative="greater").pvalue
    np.testing.assert_allclose(one_sided_test(values, delta), over, rtol=1e-10)
    left = stats.ttest_1samp(values, -delta, alternative="greater").pvalue
    right = stats.ttest_1samp(values, delta, alternative="less").pvalue
    np.testing.assert_allclose(equivalence_test(values, delta), np.maximum(left, right), rtol=1e-10)


def test_within_is_the_interval_of_twice_alpha() -> None:
    """TOST at 5% says yes exactly where the 90% interval lies within ±δ."""
    values = symmetric(30, 500, 0.1)
    ends = stats.ttest_1samp(values, 0).confidence_interval(0.90)
    inside = (ends.low > -0.4) & (ends.high < 0.4)
    np.testing.assert_array_equal(equivalence_test(values, 0.4) < 0.05, inside)
    assert 0.1 < inside.mean() < 0.9


def test_skewed_or_not_the_t_test_is_never_undercut() -> None:
    values = np.random.default_rng(3).exponential(size=(25, 400)) - 1
    assert (minimum_effect_test(values) >= stats.ttest_1samp(values, 0).pvalue - 1e-12).all()


@pytest.mark.parametrize("name", ["normal", "skewed", "discrete", "a quarter", "heavy"])
def test_far_out_the_error_rate_holds(name: str) -> None:
    """At p < 0.001 with 50 pairs; the t-test alone reaches 9 times that in skewed values."""
    rng, shape = np.random.default_rng(4), (50, 40_000)
    values = {
        "normal": lambda: rng.normal(size=shape),
        "skewed": lambda: rng.exponential(size=shape) - 1,
        "discrete": lambda: rng.integers(1, 6, shape) - 3.0,
        "a quarter": lambda: (
            np.where(rng.random(shape) < 0.25, rng.normal(0.7, 0.2, shape), 0) - 0.175
        ),
        "heavy": lambda: rng.standard_t(5, shape),
    }[name]()
    assert (minimum_effect_test(values) < 0.001).mean() <= 0.0016


@pytest.mark.parametrize("mean", [0.5, -0.5])
def test_both_err_in_at_most_one_of_twenty_at_the_edge(mean: float) -> None:
    """A mean of exactly ±δ is the worst case of both hypotheses."""
    values = draws(20, 20_000, mean, seed=1)
    for test in (minimum_effect_test, equivalence_test):
        assert 0.038 <= (test(values, 0.5) < 0.05).mean() <= 0.054


def test_what_is_shown_beyond_is_never_shown_within() -> None:
    values = draws(20, 5000, 0.4, seed=2)
    beyond, within = (test(values, 0.5) < 0.05 for test in (minimum_effect_test, equivalence_test))
    assert not (beyond & within).any()


def test_pairs_that_are_all_the_same_are_certain() -> None:
    values = np.tile([0.0, 0.125, 0.5, -0.5], (10, 1))
    np.testing.assert_array_equal(minimum_effect_test(values), [1, 0, 0, 0])
    np.testing.assert_array_equal(minimum_effect_test(values, 0.2), [1, 1, 0, 0])
    np.testing.assert_array_equal(equivalence_test(values, 0.2), [0, 0, 1, 1])
    np.testing.assert_array_equal(one_sided_test(values, 0.2), [1, 1, 0, 1])


def test_rounding_is_no_spread() -> None:
    values = np.full((50, 1), 0.1) * (1 + 1e-16)
    assert equivalence_test(values, 0.2)[0] == 0
    assert minimum_effect_test(values, 0.05)[0] == 0


def test_adjusted_is_benjamini_and_hochbergs_over_the_whole_table() -> None:
    p = np.array([[0.01, 0.04], [0.03, 0.5]])
    np.testing.assert_allclose(adjusted(p), [[0.04, 0.16 / 3], [0.16 / 3, 0.5]])
    assert adjusted(np.zeros(0)).size == 0


def test_a_head_stands_out_of_its_own_layer_only() -> None:
    rng = np.random.default_rng(0)
    values = rng.normal(0, 0.1, (30, 2, 8))
    values[:, 0] += 1.0  # a whole layer acts: none of its heads stands out
    values[:, 1, 3] -= 1.0
    p = layer_rank(values)
    assert p[1, 3] == 1 / 8
    assert sorted(p[0]) == sorted(np.arange(1, 9) / 8)


@pytest.mark.parametrize("between", [0.0, 1.0])
def test_layer_p_is_uniform_among_exchangeable_heads(between: float) -> None:
    """Also where heads differ by far more than their errors: which one is largest is chance."""
    rng = np.random.default_rng(1)
    p = np.stack(
        [
            layer_rank(rng.exponential(size=(20, 4, 8)) + between * rng.normal(size=(4, 8)))[0, 0]
            for _ in range(4000)
        ]
    )
    least = np.arange(1, 9) / 8
    np.testing.assert_allclose((p[:, None] <= least).mean(0), least, atol=0.03)


def test_layer_p_does_not_tell_equal_heads_apart() -> None:
    values = np.tile(np.random.default_rng(2).normal(size=(10, 3, 1)), 5)
    np.testing.assert_array_equal(layer_rank(values), 1.0)


def test_bad_input_is_named() -> None:
    with pytest.raises(ValueError, match="two or more"):
        minimum_effect_test(np.zeros((1, 2)))
    with pytest.raises(ValueError, match="negative"):
        equivalence_test(np.zeros((3, 2)), -0.1)
    with pytest.raises(ValueError, match="finite"):
        one_sided_test(np.full((3, 2), np.nan))
