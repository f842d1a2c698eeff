"""Rank agreement of two runs, against populations and numbers worked out by hand."""

import numpy as np
import pytest
from scipy.stats import hypergeom

from headpatch.stats.rankings import spearman
from headpatch.stats.run_agreement import at_depths, rank_agreement, reliability

HEADS = 60


def drawn(rng: np.random.Generator, truth: np.ndarray, scenes: int, noise: float) -> np.ndarray:
    return truth + noise * rng.standard_normal((scenes, len(truth)))


def test_means_alone_have_rho_and_counts_and_no_interval() -> None:
    first, second = np.array([[5.0, 4, 3, 2, 1]]), np.array([[5.0, 3, 4, 1, -9]])
    found = rank_agreement(first, second, False, 2, 0.95, 50, np.random.default_rng(0))
    assert (
        found.rho
        == pytest.approx(spearman(first[0], second[0]))
        == pytest.approx(0.8 + 0.0, abs=0.11)
    )
    assert np.isnan(found.low) and np.isnan(found.high) and np.isnan(found.ceiling)
    assert (found.k, found.shared) == (2, 1)  # 0 and 1; 0 and 2
    assert np.isnan(found.shared_low) and np.isnan(found.shared_high)
    assert found.p == pytest.approx(hypergeom.sf(0, 5, 2, 2))
    by_size = rank_agreement(first, second, False, 1, 0.95, 50, np.random.default_rng(0), True)
    assert by_size.shared == 0  # -9 is the largest in size


def test_the_interval_covers_the_rho_of_many_scenes_and_the_ceiling_what_noise_leaves() -> None:
    """100 studies of 30 scenes; the population's rho is that of the true means."""
    rng = np.random.default_rng(1)
    one = rng.standard_normal(HEADS)
    other = 0.8 * one + 0.6 * rng.standard_normal(HEADS)
    true, hits, ceilings, measured = spearman(one, other), 0, [], []
    first_ones = [set(np.argsort(-truth)[:10].tolist()) for truth in (one, other)]
    both, counts = len(first_ones[0] & first_ones[1]), 0
    for _ in range(100):
        first, second = (drawn(rng, truth, 30, 2.0) for truth in (one, other))
        found = rank_agreement(first, second, False, 10, 0.95, 200, rng)
        hits += found.low <= true <= found.high
        counts += found.shared_low <= both <= found.shared_high
        ceilings.append(found.ceiling)
        measured.append(found.rho)
    assert counts >= 80
    assert hits >= 80  # 85% to 90% in longer simulations, as its docstring says
    # what is measured lies below by the noise, which the ceiling tells
    assert np.mean(measured) < true
    assert np.mean(measured) / np.mean(ceilings) == pytest.approx(true, abs=0.05)


def test_runs_over_the_same_scenes_are_resampled_together() -> None:
    """What moves both alike leaves rho as it is: drawn apart the interval is wider."""
    rng = np.random.default_rng(2)
    truth, moves = rng.standard_normal(HEADS), rng.standard_normal((30, HEADS))
    first, second = truth + moves, truth + rng.standard_normal(HEADS) + moves
    together, apart = (
        rank_agreement(first, second, one, 10, 0.95, 400, np.random.default_rng(3))
        for one in (True, False)
    )
    assert together.rho == apart.rho
    assert together.high - together.low < apart.high - apart.low


def test_reliability_is_that_of_the_means() -> None:
    """True variance 1, error variance 4 / 40: 1 / 1.1."""
    rng = np.random.default_rng(4)
    truth = rng.standard_normal(400)
    assert reliability(drawn(rng, truth, 40, 2.0), rng) == pytest.approx(1 / 1.1, abs=0.03)
    assert reliability(drawn(rng, 0 * truth, 40, 2.0), rng) < 0.2
    assert np.isnan(reliability(truth[None, :].repeat(3, 0), rng))


def test_a_profile_is_read_at_relative_depths() -> None:
    four = np.array([[0.0, 1.0, 2.0, 3.0]])
    assert at_depths(four, 4).tolist() == four.tolist()
    assert at_depths(four, 2).tolist() == [[0.5, 2.5]]  # at 1/4 and 3/4 of the depth
