"""Expected true ranks of heads, from where their true values may lie."""

import numpy as np
from jaxtyping import Float

from headpatch.stats.deconvolution import Prior, Shares, posterior

Heads = Float[np.ndarray, " heads"]
Places = Float[np.ndarray, "heads places"]
"""By head: the probability of each place in one order that all heads share; rows sum to 1."""


def signed_places(prior: Prior, means: Heads, errors: Heads) -> Places:
    """Where the heads' true values may lie in the order of values; the prior is signed."""
    shares = posterior(prior, means, errors)
    sizes = shares.shape[1] // 2
    shift = _shift(prior, errors)
    first, count = shift.min(), int(np.ptp(shift)) + sizes + 2
    below = _shifted(shares[:, :sizes][:, ::-1], shift - first, count)[:, ::-1]
    return np.concatenate([below, _shifted(shares[:, sizes:], shift - first, count)], 1)


def size_places(
    priors: tuple[Prior, Prior], means: tuple[Heads, Heads], errors: tuple[Heads, Heads]
) -> Places:
    """Where the larger of two sizes may lie in the order of sizes, the two taken one by one.

    Both priors are unsigned, with cells of one width.
    """
    shares = [posterior(*one) for one in zip(priors, means, errors, strict=True)]
    shifts = [_shift(*one) for one in zip(priors, errors, strict=True)]
    first = min(shift.min() for shift in shifts)
    ends = [shift.max() + one.shape[1] for shift, one in zip(shifts, shares, strict=True)]
    count = int(max(ends) - first) + 2
    up_to = [
        _shifted(one, shift - first, count).cumsum(1)
        for one, shift in zip(shares, shifts, strict=True)
    ]
    return np.diff(up_to[0] * up_to[1], axis=1, prepend=0)


def expected_ranks(places: Places, among: Places | None = None) -> Heads:
    """Expected rank of each head among all of them, from -1/2 (the first place) to 1/2.

    Two heads in one place share its middle.

    Parameters
    ----------
    among
        Where the others may lie, if not as `places` says.
    """
    share = (places if among is None else among).mean(0)
    return np.asarray(places @ (share.cumsum() - share / 2) - 0.5)


def _shift(prior: Prior, errors: Heads) -> Heads:
    """By how many cells a head's own begin above size 1."""
    step = prior.edges[1] - prior.edges[0]
    return np.asarray((prior.power * np.log(errors) + prior.edges[0]) / step)


def _shifted(shares: Shares, shift: Heads, count: int) -> Places:
    """Move each head's cells up, between two places in proportion."""
    whole = shift.astype(np.int64)
    part = (shift - whole)[:, None]
    columns = whole[:, None] + np.arange(shares.shape[1])
    rows = np.arange(len(shares))[:, None]
    places = np.zeros((len(shares), count))
    places[rows, columns] = shares * (1 - part)
    places[rows, columns + 1] += shares * part
    return places
