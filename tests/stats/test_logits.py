import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from headpatch.stats.logits import effect, logit_difference, normalized_effect

logits = st.floats(-50, 50)
gaps = st.floats(0.1, 50)
directions = st.sampled_from(["noising", "denoising"])


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
    expected = sign * effect(ld, base) / (with_ - without)
    assert normalized_effect(ld, with_, without, direction) == pytest.approx(expected, abs=1e-12)


def test_hand_computed():
    assert logit_difference(3.0, 5.5) == -2.5
    assert effect(-1.0, 4.0) == -5.0
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
    yes, no = np.array([20.016], np.float16), np.array([1e-4], np.float16)
    exact = np.float64(yes[0]) - np.float64(no[0])
    assert logit_difference(yes, no)[0] == exact
    assert effect(yes, no)[0] == exact


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
