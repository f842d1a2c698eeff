"""CPR and CMD by hand, against a plain loop, and how often their intervals cover."""

import numpy as np
import pytest

from headpatch.stats.circuit_areas import SHARES, circuit_areas, circuit_sizes


def test_the_grid_is_the_benchmarks() -> None:
    assert circuit_sizes(1024) == [1, 2, 5, 10, 20, 51, 102, 204, 512, 1024]
    assert circuit_sizes(16) == [0, 0, 0, 0, 0, 0, 1, 3, 8, 16]


def by_hand(kept: np.ndarray, empty: np.ndarray, gaps: np.ndarray) -> tuple[float, float]:
    """Of logit differences, as the benchmark's own program goes: point by point."""
    low, whole = (gaps * empty).mean(), gaps.mean()
    f = [((gaps * kept[:, i]).mean() - low) / (whole - low) for i in range(len(SHARES))]
    cpr = cmd = 0.0
    for i in range(len(SHARES) - 1):
        width = SHARES[i + 1] - SHARES[i]
        cpr += width * (f[i] + f[i + 1]) / 2
        cmd += width * (abs(1 - f[i]) + abs(1 - f[i + 1])) / 2
    return cpr, cmd


def test_a_circuit_that_is_the_model_and_one_that_is_nothing() -> None:
    gaps = np.array([2.0, 5.0, 8.0])
    cpr, cmd = circuit_areas([np.ones((3, 10))], np.zeros(3), gaps, 0.95)
    assert (cpr.value, cpr.low, cpr.high) == pytest.approx((0.999,) * 3)
    assert (cmd.value, cmd.low, cmd.high) == pytest.approx((0,) * 3, abs=1e-12)
    linear = np.tile(SHARES, (3, 1))
    cpr, cmd = circuit_areas([linear], np.zeros(3), gaps, 0.95)
    assert (cpr.value, cmd.value) == pytest.approx(((1 - 1e-6) / 2, 0.999**2 / 2))


def test_pairs_weigh_as_much_as_their_gaps_and_draws_are_averaged() -> None:
    rng = np.random.default_rng(0)
    gaps, empty = rng.uniform(1, 9, 12), rng.normal(0.1, 0.05, 12)
    draws = [np.sort(rng.normal(0.7, 0.5, (12, 10)), 1) for _ in range(3)]
    cpr, cmd = circuit_areas(draws, empty, gaps, 0.9)
    wanted = np.mean([by_hand(one, empty, gaps) for one in draws], axis=0)
    assert (cpr.value, cmd.value) == pytest.approx(tuple(wanted))
    assert cpr.low < cpr.value < cpr.high and cmd.low < cmd.value < cmd.high


def test_an_empty_circuit_that_does_everything_leaves_nothing_to_tell() -> None:
    cpr, cmd = circuit_areas([np.ones((3, 10))], np.ones(3), np.ones(3), 0.95)
    assert np.isnan([cpr.value, cpr.low, cmd.value, cmd.high]).all()


def test_intervals_cover_the_figures_of_endless_pairs() -> None:
    rng = np.random.default_rng(1)
    f = np.array([0.05, 0.1, 0.2, 0.3, 0.5, 0.7, 0.9, 1.1, 1.02, 1.0])
    far = by_hand(f[None], np.zeros(1), np.ones(1))
    covered = np.zeros(2)
    for _ in range(400):
        gaps = rng.exponential(4, 30) + 1
        kept = f + rng.normal(0, 0.3, (30, 1)) + rng.normal(0, 0.2, (30, 10))
        found = circuit_areas([kept], np.zeros(30), gaps, 0.95)
        covered += [one.low <= true <= one.high for one, true in zip(found, far, strict=True)]
    assert (covered / 400 > 0.91).all()
