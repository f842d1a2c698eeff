"""Tests over pairs: scipy as the oracle, error rates at the hypotheses' edges."""

import numpy as np
import pytest
from scipy import stats

from headpatch.stats.intervals import t_interval
from headpatch.stats.significance import (
    adjusted,
    effective_pairs,
    equivalence_test,
    layer_rank,
    minimum_effect_test,
    one_sided_test,
    resampled_q,
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


DELTA = 0.02


def without_effect(name: str, study: int, pairs: int) -> np.ndarray:
    """256 means that are 0, with spreads of their own; a head acts evenly, or in rare pairs."""
    rng = np.random.default_rng([study, pairs])
    shape = (pairs, 256)
    values = {
        "normal": lambda: rng.normal(size=shape),
        "exponential": lambda: rng.exponential(size=shape) - 1,
        "lognormal": lambda: rng.lognormal(size=shape) - np.exp(0.5),
        "rare": lambda: np.where(rng.random(shape) < 0.1, 9.0, -1.0) / 3,
        "heavy": lambda: rng.standard_t(2, shape),
        "together": lambda: 0.7 * rng.normal(size=(pairs, 1)) + 0.7 * rng.normal(size=shape),
    }[name]()
    return values * rng.lognormal(np.log(0.05), 1, (1, 256))


def called(values: np.ndarray, by_chance: bool) -> np.ndarray:
    """Columns that the t-test's q and interval call, and, if asked, `resampled_q` agrees to."""
    found = t_interval(values, 0.95)
    beyond = (found.low > DELTA) | (found.high < -DELTA)
    beyond &= adjusted(minimum_effect_test(values)) < 0.05
    if by_chance and beyond.any():
        q = resampled_q(values, DELTA, 0.95, 300, np.random.default_rng(0))
        beyond &= q < 0.05
    return beyond


@pytest.mark.parametrize("pairs", [20, 50])
@pytest.mark.parametrize(
    "name", ["normal", "exponential", "lognormal", "rare", "heavy", "together"]
)
def test_without_effect_hardly_a_study_calls_a_head_however_skewed(name: str, pairs: int) -> None:
    studies = [without_effect(name, study, pairs) for study in range(60)]
    assert np.mean([called(values, True).any() for values in studies]) <= 0.07
    if name == "rare":  # a t-test alone is wrong in nearly every study
        assert np.mean([called(values, False).any() for values in studies]) >= 0.3


@pytest.mark.parametrize(
    ("share", "spread", "least"), [(1.0, 0.08, 0.6), (0.25, 0.005, 0.95)], ids=["even", "a quarter"]
)
def test_true_effects_lose_nothing_to_resampling(share: float, spread: float, least: float) -> None:
    """Effects of 2δ and spread 4δ in every pair; effects of 15δ in a quarter of them."""
    shares = []
    for study in range(20):
        rng = np.random.default_rng([study, 5])
        values = rng.normal(0, spread, (100, 256))
        size = 2 * DELTA if share == 1 else 15 * DELTA
        values[:, :12] += np.where(rng.random((100, 12)) < share, size, 0)
        both = [called(values, by_chance)[:12] for by_chance in (False, True)]
        np.testing.assert_array_equal(*both)
        shares.append(both[1].mean())
    assert np.mean(shares) >= least


def test_even_heads_are_called_from_few_pairs_on() -> None:
    rng = np.random.default_rng(0)
    values = rng.normal(0, 0.003, (10, 64))
    values[:, :2] += 0.3 * rng.normal(1, 0.2, (10, 2))
    values[:, 2] = 0.125  # the same in every pair
    assert list(np.flatnonzero(called(values, True))) == [0, 1, 2]


def test_resampled_q_counts_calls_over_the_whole_table() -> None:
    rng = np.random.default_rng(1)
    values = rng.normal(0, 0.1, (40, 6, 10))
    values[:, 2, 3] += 1
    q = resampled_q(values, DELTA, 0.95, 200, np.random.default_rng(0))
    assert q.shape == (6, 10)
    assert q[2, 3] == 0
    assert ((q >= 0) & (q <= 1)).all()
    again = resampled_q(values.reshape(40, 60), DELTA, 0.95, 200, np.random.default_rng(0))
    np.testing.assert_array_equal(again.reshape(6, 10), q)
    assert resampled_q(np.zeros((5, 0)), DELTA, 0.95, 10, rng).shape == (0,)


def test_the_share_of_chance_is_that_of_students_t_for_normal_values() -> None:
    """Of 2,000 normal means, q is how many are expected at such a p, over how many there are."""
    values = draws(60, 2000, seed=5)
    p, q = (
        minimum_effect_test(values),
        resampled_q(values, 0.01, 0.95, 100, np.random.default_rng(2)),
    )
    near = np.argsort(p)[60]  # about 3% of p lie below
    assert q[near] == pytest.approx(2000 * p[near] / 61, rel=0.2)


def test_effective_pairs_counts_those_that_the_mean_rests_on() -> None:
    values = np.zeros((20, 4))
    values[:, 0] = -0.3
    values[:3, 1] = 2.0
    values[0, 2] = 1e-200  # whose square is 0
    np.testing.assert_allclose(effective_pairs(values), [20, 3, 1, 0])
    normal = effective_pairs(draws(4000, 5))
    np.testing.assert_allclose(normal / 4000, 2 / np.pi, rtol=0.05)


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
