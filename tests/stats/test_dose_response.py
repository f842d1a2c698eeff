"""Dose and response: closed forms, scipy and every ranking there is as oracles, error rates."""

from itertools import permutations, product

import numpy as np
import pytest
from scipy.stats import page_trend_test, rankdata

from headpatch.stats.dose_response import (
    rank_trend,
    slope,
    straightness,
    trend_test,
    turn_test,
)

DOSES = np.array([-1.0, -0.5, 0.0, 0.5, 1.0])


def test_a_line_and_a_parabola() -> None:
    line, parabola = -0.25 * DOSES, DOSES**2
    assert slope(line, DOSES) == pytest.approx(-0.25)
    assert straightness(line, DOSES) == pytest.approx(1)
    assert rank_trend(line) == pytest.approx(-1)
    assert slope(parabola, DOSES) == pytest.approx(0)
    assert straightness(parabola, DOSES) == pytest.approx(0)
    assert rank_trend(parabola) == pytest.approx(0)
    assert np.isnan(straightness(np.zeros(5), DOSES)) and rank_trend(np.zeros(5)) == 0
    both = np.stack([line, parabola])
    assert slope(both, DOSES) == pytest.approx([-0.25, 0])


@pytest.mark.parametrize(("scenes", "doses"), [(4, 3), (3, 5), (12, 5)])
def test_the_trend_test_is_pages(scenes: int, doses: int) -> None:
    rng = np.random.default_rng(scenes)
    values = rng.normal(0.3 * np.arange(doses), 1, (scenes, doses))
    up = page_trend_test(values, method="exact").pvalue
    down = page_trend_test(-values, method="exact").pvalue
    assert trend_test(values) == pytest.approx(min(1, 2 * min(up, down)))
    assert trend_test(-values) == pytest.approx(trend_test(values))


def test_ties_count_all_orders_of_the_ranks_that_there_are() -> None:
    values = np.array([[0.0, 0.0, 1.0], [0.0, 2.0, 2.0], [0.0, 1.0, 3.0]])
    ranks = [rankdata(row) for row in values]
    seen = sum(float(one @ [-1, 0, 1]) for one in ranks)
    orders = [[np.array(one) @ [-1, 0, 1] for one in permutations(row)] for row in ranks]
    sums = [abs(sum(one)) for one in product(*orders)]
    assert trend_test(values) == pytest.approx(np.mean([one >= seen - 1e-9 for one in sums]))
    assert trend_test(np.zeros((6, 4))) == 1


def test_many_scenes_take_the_normal_distribution() -> None:
    values = np.random.default_rng(3).normal(0.02 * np.arange(5), 1, (80, 5))
    asymptotic = page_trend_test(values, method="asymptotic").pvalue
    assert trend_test(values) == pytest.approx(2 * min(asymptotic, 1 - asymptotic), rel=1e-6)


def test_error_rates() -> None:
    """Of 400 studies without a trend, and of 400 whose curve saturates but never turns."""
    rng, flat = np.random.default_rng(0), np.array([0.0, 0.5, 1.0, 1.0, 1.0])
    noise = rng.normal(0, 0.3, (400, 10, 5))
    assert np.mean([trend_test(one) < 0.05 for one in noise]) <= 0.075
    assert np.mean([turn_test(flat + one) < 0.05 for one in noise]) <= 0.05
    turning = np.array([0.0, 0.5, 1.0, 0.5, 0.0])
    assert np.mean([turn_test(turning + one) < 0.05 for one in noise]) > 0.7
