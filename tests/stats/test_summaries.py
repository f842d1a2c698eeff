import math
from dataclasses import FrozenInstanceError
from statistics import fmean, stdev

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from headpatch.stats.summaries import noise_floor, rank_of, spread

values = st.lists(st.floats(-1e6, 1e6), min_size=2, max_size=60)


@given(values)
def test_spread_equals_the_standard_library(numbers):
    summary = spread(numbers)
    assert summary.mean == pytest.approx(fmean(numbers), rel=1e-9, abs=1e-6)
    assert summary.sd == pytest.approx(stdev(numbers), rel=1e-6, abs=1e-6)
    assert (summary.n, summary.low, summary.high) == (len(numbers), min(numbers), max(numbers))


def test_one_value_has_no_deviation_and_a_summary_is_frozen():
    summary = spread(np.array([2.0]))
    assert math.isnan(summary.sd)
    with pytest.raises(FrozenInstanceError):
        summary.mean = 0.0


@given(st.integers(1, 60), st.floats(0.001, 1))
def test_p_is_valid_under_exchangeability(draws, alpha):
    """Each of n + 1 exchangeable values is equally likely to be the tested one."""
    everything = np.arange(draws + 1, dtype=float)
    p = [rank_of(x, np.delete(everything, i)) for i, x in enumerate(everything)]
    assert min(p) == pytest.approx(min(1, 2 / (draws + 1)))
    assert np.mean(np.array(p) <= alpha) <= alpha + 1e-12


@given(values, st.floats(-1e6, 1e6))
def test_p_is_in_range_and_mirror_symmetric(null, value):
    p = rank_of(value, null)
    assert 2 / (len(null) + 1) <= p <= 1
    assert rank_of(-value, [-x for x in null]) == p


def test_p_by_hand():
    null = [0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0]
    assert rank_of(9.0, null) == pytest.approx(2 / 10)
    assert rank_of(8.0, null) == pytest.approx(4 / 10)  # a tie counts against the value
    assert rank_of(4.0, null) == 1
    assert rank_of(5.0, [5.0] * 9) == 1


def test_noise_floor_is_the_largest_absolute_effect():
    assert noise_floor([0.1, -0.3, 0.2]) == 0.3
    assert noise_floor(np.zeros(3)) == 0
    assert noise_floor([1e-6], fast_path=2e-6, low_precision=1e-7) == 2e-6
    assert noise_floor([1e-6], fast_path=2e-6, low_precision=3e-3) == 3e-3


@pytest.mark.parametrize("bad", [[], [1.0, math.nan], [math.inf]])
@pytest.mark.parametrize("function", [spread, noise_floor, lambda null: rank_of(0.0, null)])
def test_nothing_and_nan_are_refused(function, bad):
    with pytest.raises(ValueError, match="must be"):
        function(bad)
