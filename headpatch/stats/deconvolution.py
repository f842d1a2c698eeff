r"""Where true values may lie, given measured means and their standard errors: empirical Bayes.

A thousand heads measured at once show how true values are spread over heads, errors taken out
(deconvolution; B. Efron, Biometrika 103, 2016); and that spread, with a head's own mean x and error
s, says where its own true value may lie (the posterior). The spread is a histogram in log size: a
true value is

.. math:: \theta = \pm s^p e^u

with u drawn from cells of one width, the first of which reaches down to 0. The power p is there
because sizes and errors go together (heads that act vary more from pair to pair): 0, sizes know
nothing of errors; 1, they go in proportion. It is the likeliest of a few values (M. Stephens, False
discovery rates: a new deal, Biostatistics 18, 2017; in a more general form, J. Chen, Empirical
Bayes when estimation precision predicts parameters, arXiv:2212.14444, 2024). Errors are taken as
normal, as those of means over twenty pairs or more nearly are.
"""

from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float
from scipy.special import ndtr

_POWERS = (0.0, 0.25, 0.5, 0.75, 1.0, 1.25, 1.5, 2.0)
_ROUNDS = 60  # of expectation maximization: few, so that the histogram stays smooth
_MOST_CELLS = 240
_TINY = 1e-280

Heads = Float[np.ndarray, " heads"]
Shares = Float[np.ndarray, "heads cells"]
"""By head: the probability that its true value lies in each cell; rows sum to 1."""


@dataclass(frozen=True, eq=False)
class Prior:
    """How true values are spread over heads.

    If `signed`, cells tell signs: those of negative values come first, the largest size first.
    `edges` are those of the cells of u but for the first one's lower edge, evenly spaced.
    """

    signed: bool
    power: float  # p of the module's formula
    edges: Float[np.ndarray, " sizes"]
    shares: Float[np.ndarray, " cells"]  # of heads


def fit(means: Heads, errors: Heads, step: float, signed: bool) -> Prior:
    """Work out how true values are spread, by expectation maximization from an even spread.

    Errors are above 0; `step` is the width of a cell of log size.
    """
    best, likeliest = None, -np.inf
    for power in _POWERS:
        edges = _edges(means, errors, power, step)
        cells = len(edges) * (2 if signed else 1)
        prior = Prior(signed, power, edges, np.full(cells, 1 / cells))
        likely = _likelihood(prior, means, errors)
        shares = prior.shares
        for _ in range(_ROUNDS):
            shares = shares * ((1 / (likely @ shares)) @ likely) / len(means)
        total = float(np.log(likely @ shares).sum())
        if best is None or total > likeliest:
            best, likeliest = replace(prior, shares=shares), total
    assert best is not None
    return best


def posterior(prior: Prior, means: Heads, errors: Heads) -> Shares:
    """Where each head's true value may lie, in the cells of its own error."""
    shares = _likelihood(prior, means, errors) * prior.shares
    return np.asarray(shares / shares.sum(1, keepdims=True))


def _edges(means: Heads, errors: Heads, power: float, step: float) -> Float[np.ndarray, " sizes"]:
    """From a tenth of the smallest error, which nobody tells from 0, to beyond the largest mean."""
    high = np.log(((np.abs(means) + errors) / errors**power).max()) + step
    low = np.log(0.1 * (errors ** (1 - power)).min())
    count = min(int(np.ceil((high - low) / step)), _MOST_CELLS)
    return np.asarray(high - step * np.arange(count, -1, -1))


def _likelihood(prior: Prior, means: Heads, errors: Heads) -> Shares:
    """Density of each mean, averaged over each cell."""
    ends = np.concatenate([[0.0], np.exp(prior.edges)]) * (errors**prior.power)[:, None]
    x, s = means[:, None], errors[:, None]
    width = np.diff(ends, axis=1)
    above = np.diff(ndtr((ends - x) / s), axis=1) / width
    below = np.diff(ndtr((ends + x) / s), axis=1) / width
    both = np.concatenate([below[:, ::-1], above], 1) if prior.signed else above + below
    return np.asarray(both + _TINY)
