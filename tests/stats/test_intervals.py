"""Intervals of means: coverage on distributions whose mean is known, and scipy as the oracle."""

from collections.abc import Callable

import numpy as np
import pytest
from scipy.stats import bootstrap, kurtosis, skew, t, ttest_1samp

from headpatch.stats.intervals import bca_interval, hall_interval, mean_interval, t_interval

STUDIES = 3000
ERROR = 0.004
KNOWN: dict[str, tuple[Callable[[np.random.Generator, tuple[int, int]], np.ndarray], float]] = {
    "normal": (lambda rng, shape: rng.normal(3, 2, shape), 3.0),
    "uniform": (lambda rng, shape: rng.random(shape), 0.5),
    "skewed": (lambda rng, shape: rng.exponential(1, shape), 1.0),
    "heavy tails": (lambda rng, shape: rng.standard_t(3, shape), 0.0),
    "discrete": (lambda rng, shape: rng.integers(1, 6, shape).astype(float), 3.0),
    # What a head looks like that acts in half of the pairs, or for one quadrant of four.
    "a half": (lambda rng, shape: acting(0.5, rng, shape), 0.35),
    "a quarter": (lambda rng, shape: acting(0.25, rng, shape), 0.175),
    "very skewed": (lambda rng, shape: rng.lognormal(size=shape), float(np.exp(0.5))),
    "most near 0": (lambda rng, shape: rng.gamma(0.5, size=shape), 0.5),
    "yes or no": (lambda rng, shape: (rng.random(shape) < 0.25).astype(float), 0.25),
}


def acting(share: float, rng: np.random.Generator, shape: tuple[int, int]) -> np.ndarray:
    return np.where(rng.random(shape) < share, rng.normal(0.7, 0.2, shape), 0.0)


def coverage(name: str, pairs: int) -> float:
    """Share of studies whose interval covers the mean; each draws its own pairs."""
    draw, mean = KNOWN[name]
    rng = np.random.default_rng([pairs, len(name)])
    hits = 0
    for _ in range(30):  # a hundred studies share their resamples
        found = mean_interval(draw(rng, (pairs, STUDIES // 30)), 0.95, 500, rng)
        hits += int(((found.low <= mean) & (mean <= found.high)).sum())
    return hits / STUDIES


@pytest.mark.parametrize("pairs", [20, 50, 100])
@pytest.mark.parametrize("name", KNOWN)
def test_ninety_three_to_ninety_seven_percent_cover_the_mean(name: str, pairs: int) -> None:
    """Within the standard error of so many studies, 0.4%; what falls out is as stated."""
    low, high = {("a quarter", 20): (0.93, 0.98), ("yes or no", 20): (0.97, 0.985)}.get(
        (name, pairs), (0.93, 0.97)
    )
    assert low - ERROR <= coverage(name, pairs) <= high + ERROR


def test_the_bootstrap_is_scipys() -> None:
    values = np.random.default_rng(0).gamma(1.5, size=(40, 3))
    ours = bca_interval(values, 0.9, 20_000, np.random.default_rng(1))
    theirs = bootstrap(
        (values,), np.mean, n_resamples=20_000, confidence_level=0.9, method="BCa", axis=0,
        vectorized=True, batch=500,
    ).confidence_interval  # fmt: skip
    width = theirs.high - theirs.low
    np.testing.assert_allclose(ours.low, theirs.low, atol=0.03 * width.max())
    np.testing.assert_allclose(ours.high, theirs.high, atol=0.03 * width.max())
    np.testing.assert_allclose(ours.mean, values.mean(0), rtol=1e-12)


def test_the_other_is_scipys_t_interval() -> None:
    values = np.random.default_rng(0).gamma(1.5, size=(15, 3, 2))
    ours, theirs = t_interval(values, 0.9), ttest_1samp(values, 0).confidence_interval(0.9)
    np.testing.assert_allclose(ours.low, theirs.low, rtol=1e-12)
    np.testing.assert_allclose(ours.high, theirs.high, rtol=1e-12)


@pytest.mark.parametrize(("pairs", "share"), [(25, 1.0), (60, 0.8)])
def test_the_third_solves_halls_equation(pairs: int, share: float) -> None:
    """Moments are scipy's; the cubic is evaluated at the ends, where the module inverts it."""
    values = np.random.default_rng(0).gamma(1.5, size=(pairs, 8, 6))
    found, n = hall_interval(values, 0.9), len(values)
    two_values = np.clip(kurtosis(values, fisher=False) - skew(values) ** 2 - 1, 0, 1)
    assert (two_values < 1).any()
    a = share * two_values * skew(values, bias=False) / np.sqrt(n)
    for mu, quantile in ((found.low, t.ppf(0.95, n - 1)), (found.high, t.ppf(0.05, n - 1))):
        ratio = (values.mean(0) - mu) * np.sqrt(n) / values.std(0, ddof=1)
        turned = ratio + a * ratio**2 / 3 + a**2 * ratio**3 / 27 + a / 6
        np.testing.assert_allclose(turned, quantile, rtol=1e-9)


def test_hall_is_student_for_two_values_or_a_hundred_pairs() -> None:
    rng = np.random.default_rng(3)
    two = 0.1 + 0.7 * (rng.random((20, 30)) < 0.3)
    for values in (two, rng.exponential(size=(100, 30)), rng.exponential(size=(2, 30))):
        turned, straight = hall_interval(values, 0.95), t_interval(values, 0.95)
        np.testing.assert_allclose(turned.low, straight.low, rtol=1e-9, atol=1e-12)
        np.testing.assert_allclose(turned.high, straight.high, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("pairs", [3, 5, 20])
def test_outliers_widen_the_interval_less_than_threefold(pairs: int) -> None:
    """Over Student's: no end runs away, as those of a bootstrap-t do."""
    values = np.random.default_rng(pairs).standard_cauchy((pairs, 3000))
    found = mean_interval(values, 0.95, 200, np.random.default_rng(0))
    straight = t_interval(values, 0.95)
    assert ((found.high - found.low) < 3 * (straight.high - straight.low)).all()


@pytest.mark.parametrize("pairs", [20, 100])
def test_each_end_is_the_outermost(pairs: int) -> None:
    values = np.random.default_rng(1).exponential(size=(pairs, 50))
    found = mean_interval(values, 0.95, 400, np.random.default_rng(0))
    drawn = bca_interval(values, 0.95, 400, np.random.default_rng(0))
    straight, turned = t_interval(values, 0.95), hall_interval(values, 0.95)
    low, high = np.minimum(drawn.low, straight.low), np.maximum(drawn.high, straight.high)
    np.testing.assert_array_equal(found.low, np.minimum(low, turned.low))
    np.testing.assert_array_equal(found.high, np.maximum(high, turned.high))
    assert (drawn.high > straight.high).mean() > 0.5  # skewed to the right
    assert (straight.low < drawn.low).mean() > 0.5
    if pairs == 20:
        assert (turned.high > drawn.high).mean() > 0.5
    else:  # the bootstrap is enough
        np.testing.assert_array_equal(found.low, low)
        np.testing.assert_array_equal(found.high, high)


def test_shifting_and_scaling_move_the_interval_along() -> None:
    values = np.random.default_rng(2).exponential(size=(30, 3, 4))

    def interval(x: np.ndarray) -> np.ndarray:
        found = mean_interval(x, 0.95, 500, np.random.default_rng(3))
        assert found.mean.shape == (3, 4)
        assert (found.low < found.mean).all() and (found.mean < found.high).all()
        return np.stack([found.low, found.high])

    np.testing.assert_allclose(interval(5 * values - 2), 5 * interval(values) - 2, atol=1e-9)
    np.testing.assert_allclose(interval(-values), -interval(values)[::-1], atol=0.03)


def test_blocks_of_columns_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    values = np.random.default_rng(4).normal(size=(20, 7))
    whole = mean_interval(values, 0.95, 300, np.random.default_rng(0))
    monkeypatch.setattr("headpatch.stats.intervals._BLOCK", 600)
    parts = mean_interval(values, 0.95, 300, np.random.default_rng(0))
    np.testing.assert_allclose(whole.low, parts.low, rtol=1e-12)
    np.testing.assert_allclose(whole.high, parts.high, rtol=1e-12)


def test_pairs_that_are_all_the_same_have_no_width() -> None:
    found = mean_interval(np.full((12, 2), 0.25), 0.95, 200, np.random.default_rng(0))
    for end in (found.low, found.high, found.mean):
        np.testing.assert_allclose(end, 0.25, rtol=1e-12)


@pytest.mark.parametrize(
    ("values", "level", "said"),
    [
        (np.zeros((1, 3)), 0.95, "two or more"),
        (np.array([[0.0], [np.nan]]), 0.95, "finite"),
        (np.zeros((4, 3)), 1.0, "level"),
    ],
)
def test_bad_input_is_named(values: np.ndarray, level: float, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        mean_interval(values, level, 100, np.random.default_rng(0))
