"""Expected true ranks: of certain values, and by drawing values and ranking them."""

import numpy as np
import pytest
from scipy.stats import rankdata

from headpatch.stats.deconvolution import Prior, fit, posterior
from headpatch.stats.disattenuated_rank_correlation import (
    expected_ranks,
    signed_places,
    size_places,
)

HEADS = 60


def measured(seed: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    means, errors = 2 * np.exp(rng.normal(size=HEADS)), np.exp(0.5 * rng.normal(size=HEADS))
    return means * rng.choice([-1, 1], HEADS), errors


def drawn(
    prior: Prior, means: np.ndarray, errors: np.ndarray, rng: np.random.Generator
) -> np.ndarray:
    """Values from each head's posterior, the middle of a cell in log size for all of it."""
    shares = posterior(prior, means, errors)
    step = prior.edges[1] - prior.edges[0]
    sizes = np.exp(prior.edges - step / 2) * (errors**prior.power)[:, None]
    values = np.concatenate([-sizes[:, ::-1], sizes], 1) if prior.signed else sizes
    cells = (rng.random((3000, HEADS, 1)) > shares.cumsum(1)).sum(-1)
    return values[np.arange(HEADS), np.minimum(cells, values.shape[1] - 1)]


def ranks(values: np.ndarray) -> np.ndarray:
    """Mean over draws of each head's rank among draws of all, itself included."""
    return ((rankdata(values, axis=1) - 0.5) / HEADS - 0.5).mean(0)


def test_signed_ranks_are_those_of_drawn_values() -> None:
    means, errors = measured(0)
    prior = fit(means, errors, 0.05, signed=True)
    found = expected_ranks(signed_places(prior, means, errors))
    np.testing.assert_allclose(
        found, ranks(drawn(prior, means, errors, np.random.default_rng(0))), atol=0.025
    )


def test_ranks_of_the_larger_size_are_those_of_drawn_values() -> None:
    (one, first), (two, second) = measured(0), measured(1)
    priors = (fit(one, first, 0.05, signed=False), fit(two, second, 0.05, signed=False))
    rng = np.random.default_rng(0)
    found = expected_ranks(size_places(priors, (one, two), (first, second)))
    values = [drawn(*each, rng) for each in zip(priors, (one, two), (first, second), strict=True)]
    np.testing.assert_allclose(found, ranks(np.maximum(*values)), atol=0.025)


def test_certain_values_have_their_ranks() -> None:
    means, _ = measured(2)
    errors = np.full(HEADS, 1e-4)
    prior = fit(means, errors, 0.02, signed=True)
    found = expected_ranks(signed_places(prior, means, errors))
    np.testing.assert_allclose(found, (rankdata(means) - 0.5) / HEADS - 0.5, atol=0.01)


def test_heads_of_which_nothing_is_known_share_the_middle() -> None:
    means, errors = np.zeros(HEADS), np.full(HEADS, 2.0)
    prior = Prior(True, 0.0, np.log([0.5, 1.0, 2.0]), np.full(6, 1 / 6))
    np.testing.assert_allclose(expected_ranks(signed_places(prior, means, errors)), 0, atol=1e-12)


def test_others_may_be_given() -> None:
    places = np.eye(4)
    np.testing.assert_allclose(expected_ranks(places), [-0.375, -0.125, 0.125, 0.375])
    last = np.tile(places[3], (4, 1))
    np.testing.assert_allclose(expected_ranks(places, last), [-0.5, -0.5, -0.5, 0.0])
    assert expected_ranks(places).sum() == pytest.approx(0)
