"""Intervals of means: coverage on distributions whose mean is known, and scipy as the oracle."""

from collections.abc import Callable

import numpy as np
import pytest
from scipy.stats import bootstrap, ttest_1samp

from headpatch.measures.intervals import bca_interval, mean_interval, t_interval

STUDIES = 3000
ERROR = 0.004
KNOWN: dict[str, tuple[Callable[[np.random.Generator, tuple[int, int]], np.ndarray], float]] = {
    "normal": (lambda rng, shape: rng.normal(3, 2, shape), 3.0),
    "uniform": (lambda rng, shape: rng.random(shape), 0.5),
    "skewed": (lambda rng, shape: rng.exponential(1, shape), 1.0),
    "heavy tails": (lambda rng, shape: rng.standard_t(3, shape), 0.0),
    "discrete": (lambda rng, shape: rng.integers(1, 6, shape).astype(float), 3.0),
    # What a head looks like that acts in half of the pairs, or for one quadrant of four.
    "a half": (
        lambda rng, shape: np.where(rng.random(shape) < 0.5, rng.normal(0.7, 0.2, shape), 0.0),
        0.35,
    ),
    "a quarter": (
        lambda rng, shape: np.where(rng.random(shape) < 0.25, rng.normal(0.7, 0.2, shape), 0.0),
        0.175,
    ),
    "very skewed": (lambda rng, shape: rng.lognormal(size=shape), float(np.exp(0.5))),
    "yes or no": (lambda rng, shape: (rng.random(shape) < 0.25).astype(float), 0.25),
}


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
    low, high = {
        ("very skewed", 20): (0.88, 0.92),
        ("very skewed", 50): (0.92, 0.95),
        ("yes or no", 20): (0.97, 0.985),
    }.get((name, pairs), (0.93, 0.97))
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


def test_each_end_is_the_outer_of_both() -> None:
    values = np.random.default_rng(1).exponential(size=(20, 50))
    both = mean_interval(values, 0.95, 400, np.random.default_rng(0))
    drawn = bca_interval(values, 0.95, 400, np.random.default_rng(0))
    straight = t_interval(values, 0.95)
    np.testing.assert_array_equal(both.low, np.minimum(drawn.low, straight.low))
    np.testing.assert_array_equal(both.high, np.maximum(drawn.high, straight.high))
    assert (drawn.high > straight.high).mean() > 0.5  # skewed to the right
    assert (straight.low < drawn.low).mean() > 0.5


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
    monkeypatch.setattr("headpatch.measures.intervals._BLOCK", 600)
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
