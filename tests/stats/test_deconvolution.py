"""Where true values may lie: against the spread that was simulated, and Bayes' rule itself."""

from itertools import pairwise

import numpy as np
import pytest
from scipy.integrate import quad
from scipy.stats import norm

from headpatch.stats.deconvolution import Prior, fit, posterior

HEADS = 800


def test_each_cell_is_bayes_rule() -> None:
    """By numerical integration of the density over each cell, head by head."""
    edges = np.log([0.2, 0.5, 1.5, 4.0])
    shares = np.array([0.1, 0.2, 0.3, 0.4])
    means, errors = np.array([0.3, -1.0, 3.0]), np.array([0.5, 0.2, 1.0])
    found = posterior(Prior(False, 0.5, edges, shares), means, errors)
    for head, (x, s) in enumerate(zip(means, errors, strict=True)):
        ends = np.concatenate([[0], np.exp(edges)]) * s**0.5
        slow = []
        for cell, (low, high) in enumerate(pairwise(ends)):
            area, _ = quad(lambda v, x=x, s=s: norm.pdf(x, v, s) + norm.pdf(x, -v, s), low, high)
            slow.append(shares[cell] * area / (high - low))
        np.testing.assert_allclose(found[head], slow / np.sum(slow), rtol=1e-6)


def test_signs_are_told_apart() -> None:
    prior = Prior(True, 0.0, np.log([0.5, 2.0]), np.full(4, 0.25))
    found = posterior(prior, np.array([1.0, -1.0, 0.0]), np.full(3, 0.3))
    assert found[0, 3] > 0.8 > 0.2 > found[0, 2]
    np.testing.assert_allclose(found[1], found[0, ::-1])
    np.testing.assert_allclose(found[2], found[2, ::-1])
    np.testing.assert_allclose(found.sum(1), 1)


def test_the_spread_of_true_sizes_comes_back() -> None:
    """A third are large, the others small; measured ones alone show far fewer small sizes."""
    rng = np.random.default_rng(0)
    size = np.where(rng.random(HEADS) < 1 / 3, 5.0, 0.05) * np.exp(0.2 * rng.normal(size=HEADS))
    means = size * rng.choice([-1, 1], HEADS) + rng.normal(size=HEADS)
    prior = fit(means, np.ones(HEADS), 0.25, signed=False)
    large = prior.shares[prior.edges > np.log(2.5)].sum()
    assert large == pytest.approx(1 / 3, abs=0.05)
    assert prior.shares[prior.edges < np.log(1.0)].sum() > 0.5
    assert (np.abs(means) < 1.0).mean() < 0.5


@pytest.mark.parametrize(("goes", "low", "high"), [(0.0, 0.0, 0.5), (1.0, 0.75, 1.0)])
def test_the_power_says_how_sizes_go_with_errors(goes: float, low: float, high: float) -> None:
    rng = np.random.default_rng(1)
    errors = np.exp(2 * rng.normal(size=HEADS))
    means = 5 * errors**goes * np.exp(rng.normal(size=HEADS)) + errors * rng.normal(size=HEADS)
    prior = fit(means, errors, 0.25, signed=False)
    assert low <= prior.power <= high
    assert prior.shares.sum() == pytest.approx(1)
