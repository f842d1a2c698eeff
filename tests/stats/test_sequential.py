"""Spending α over looks: the shares add up, and no rule for stopping errs more often than α."""

import numpy as np
import pytest

from headpatch.stats.sequential import spent_alpha
from headpatch.stats.significance import adjusted, equivalence_test, minimum_effect_test


@pytest.mark.parametrize("looks", [(400,), (50, 100, 200, 400), (10, 20, 400)])
def test_all_of_alpha_is_spent_and_no_more(looks: tuple[int, ...]) -> None:
    spent = spent_alpha(0.05, looks)
    assert len(spent) == len(looks)
    assert sum(spent) == pytest.approx(0.05)


def test_each_pair_brings_the_same() -> None:
    expected = (0.05 / 8, 0.05 / 8, 0.05 / 4, 0.05 / 2)
    assert spent_alpha(0.05, (50, 100, 200, 400)) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("pairs", "alpha", "said"),
    [
        ((), 0.05, "rise"),
        ((0, 10), 0.05, "rise"),
        ((20, 20), 0.05, "rise"),
        ((20, 40), 1.0, "alpha"),
    ],
)
def test_bad_plans_are_named(pairs: tuple[int, ...], alpha: float, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        spent_alpha(alpha, pairs)


LOOKS = tuple(range(20, 201, 20))


def least_q(study: int, test: str) -> np.ndarray:
    """At each of ten looks, the least q of 64 heads at the edge of the hypothesis."""
    delta = 0.5
    values = np.random.default_rng(study).normal(delta, 1.0, (LOOKS[-1], 64))
    tested = {"beyond": minimum_effect_test, "within": equivalence_test}[test]
    return np.array([adjusted(tested(values[:seen], delta)).min() for seen in LOOKS])


@pytest.mark.parametrize("test", ["beyond", "within"])
def test_looking_ten_times_errs_no_more_often_than_once(test: str) -> None:
    """Of 150 studies; at the full 5% of every look, two or three times as many do."""
    q = np.array([least_q(study, test) for study in range(150)])
    assert (q < 0.05).any(1).mean() >= 0.1
    assert (q < spent_alpha(0.05, LOOKS)).any(1).mean() <= 0.05
