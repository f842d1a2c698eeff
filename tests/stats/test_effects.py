import math
from dataclasses import FrozenInstanceError
from statistics import fmean, stdev

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from headpatch.stats.effects import noise_floor, normalized_effect, rank_of, spread

logits = st.floats(-50, 50)
gaps = st.floats(0.1, 50)
directions = st.sampled_from(["noising", "denoising"])
values = st.lists(st.floats(-1e6, 1e6), min_size=2, max_size=60)


@given(logits, gaps, directions)
def test_zero_at_the_base_and_one_at_the_other_run(without, gap, direction):
    with_ = without + gap
    base, other = (with_, without) if direction == "noising" else (without, with_)
    assert normalized_effect(base, with_, without, direction) == 0
    assert normalized_effect(other, with_, without, direction) == 1


@given(logits, logits, gaps)
def test_the_directions_measure_the_same_ld_from_opposite_ends(ld, without, gap):
    ends = (without + gap, without)
    noising = normalized_effect(ld, *ends, "noising")
    denoising = normalized_effect(ld, *ends, "denoising")
    assert noising + denoising == pytest.approx(1, abs=1e-9)


@given(logits, logits, gaps, directions)
def test_it_is_the_effect_over_the_gap_and_its_sign_is_the_directions(ld, without, gap, direction):
    with_ = without + gap
    base, sign = (with_, -1) if direction == "noising" else (without, 1)
    expected = sign * (ld - base) / (with_ - without)
    assert normalized_effect(ld, with_, without, direction) == pytest.approx(expected, abs=1e-12)


def test_hand_computed():
    assert normalized_effect(1.0, 4.0, -2.0, "noising") == 0.5
    assert normalized_effect(-3.5, 4.0, -2.0, "denoising") == -0.25


def test_floats_give_floats_and_arrays_give_arrays():
    one = normalized_effect(1.0, 4.0, -2.0, "noising")
    assert isinstance(one, float)
    many = normalized_effect(np.array([1.0, 4.0]), 4.0, -2.0, "noising")
    np.testing.assert_array_equal(many, [0.5, 0.0])
    pairs = np.array([[4.0], [6.0]])
    assert normalized_effect(np.zeros((2, 5)), pairs, -pairs, "denoising").shape == (2, 5)


def test_half_precision_is_subtracted_in_double():
    after, present, absent = (np.array([ld], np.float16) for ld in (1e-4, 20.016, 3e-4))
    exact = np.float64(present[0]) - np.float64(after[0])
    exact /= np.float64(present[0]) - np.float64(absent[0])
    assert normalized_effect(after, present, absent, "noising")[0] == exact


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("direction", ["noising", "denoising"])
def test_equal_runs_have_no_normalized_effect(direction):
    assert math.isnan(normalized_effect(1.0, 2.0, 2.0, direction))
    mixed = normalized_effect(
        np.array([1.0, 1.0]), np.array([2.0, 2.0]), np.array([2.0, 0.0]), direction
    )
    assert np.isnan(mixed).tolist() == [True, False]


def test_an_unknown_direction_is_refused():
    with pytest.raises(Exception, match="sideways"):
        normalized_effect(1.0, 2.0, 1.0, "sideways")


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
