r"""What an effect does on single pairs, which its mean hides.

A mean within ±δ says nothing of single pairs: an effect of 5δ, up in half of the pairs and down in
the others, has mean 0. So an effect is *shown to be small on pairs* if both hold:

- `tolerance_test`: the normal tolerance interval of 95% of pairs lies within ±δ. With mean m,
  standard deviation s and n pairs, :math:`P(m + zσ ≥ δ)` is tested by the noncentral t
  distribution of :math:`(δ - m) \sqrt n / s` with noncentrality :math:`z \sqrt n` (D. B. Owen, A
  survey of properties and applications of the noncentral t-distribution, Technometrics 10, 1968),
  z the 97.5% quantile, at the end that is nearer: its p is the larger one.
- `most_outside`: whatever the distribution, no more pairs lie outside than a share below 5% allows
  (C. J. Clopper and E. S. Pearson, Biometrika 26, 1934). Below 59 pairs not even none outside
  shows that at 95%; there none may lie outside, and the normal interval alone shows it.

A head *acts on pairs in a way that the mean hides* (`hidden_test`) if more than 2.5% of pairs are
shown to lie beyond δ and more than 2.5% beyond -δ, or if more than 5% are shown to lie outside ±δ
while the mean is shown to lie inside (exact binomial tests). What no sample shows: an effect in
pairs of a kind that it does not hold.
"""

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy.stats import binom, nct, norm

from headpatch.stats.intervals import finite_pairs, standard_deviation

Pairs = Float[np.ndarray, "pairs *rest"]
Each = Float[np.ndarray, "*rest"]
OUTSIDE = 0.05
"""Share of pairs that may lie outside ±δ where an effect is called small."""


def tolerance_test(values: Pairs, delta: float) -> Each:
    """P of the hypothesis that fewer than 95% of pairs lie within ±δ, for normal values."""
    pairs = finite_pairs(values)
    n, mean = len(pairs), pairs.mean(0)
    spread = np.maximum(standard_deviation(pairs), 1e-12 * delta)  # constant values have no spread
    away = norm.ppf(1 - OUTSIDE / 2) * np.sqrt(n)
    ratio = np.asarray(np.minimum(delta - mean, delta + mean) * np.sqrt(n) / spread)
    near = ratio < 4 * away + 40  # further out p is 0 to twelve digits, where scipy's series fails
    p = np.zeros(ratio.shape)
    p[near] = nct.sf(ratio[near], n - 1, away)
    return np.asarray(np.where(np.abs(mean) >= delta, 1.0, p))


def most_outside(n: int, alpha: float) -> int:
    """Return how many of n pairs may lie outside ±δ: 0 where so few show nothing."""
    allowed = int(binom.ppf(alpha, n, OUTSIDE))
    while allowed > 0 and binom.cdf(allowed, n, OUTSIDE) > alpha:
        allowed -= 1
    return allowed


def few_outside(values: Pairs, delta: float, alpha: float) -> Bool[np.ndarray, "*rest"]:
    """Whether so few pairs lie outside ±δ as `most_outside` allows."""
    return np.asarray(outside(values, delta) <= most_outside(len(values), alpha))


def hidden_test(values: Pairs, within: Each, delta: float) -> Each:
    """P of the hypothesis that no effect on pairs is hidden by the mean.

    `within` is p of the mean lying outside ±δ (`headpatch.stats.significance.equivalence_test`). Of
    each of the two ways the largest p counts, since all of it must hold; and twice the smaller, as
    either would do (Bonferroni).
    """

    def more_than(share: float, count: Int[np.ndarray, "*rest"]) -> Each:
        return np.asarray(binom.sf(count - 1, len(values), share))

    above, below = (values > delta).sum(0), (values < -delta).sum(0)
    directions = np.maximum(*(more_than(OUTSIDE / 2, count) for count in (above, below)))
    sizes = np.maximum(more_than(OUTSIDE, above + below), within)
    return np.asarray(np.minimum(1.0, 2 * np.minimum(directions, sizes)))


def outside(values: Pairs, delta: float) -> Int[np.ndarray, "*rest"]:
    """Count the pairs whose value lies beyond ±δ."""
    return np.asarray((values > delta).sum(0) + (values < -delta).sum(0))


def extremes(values: Pairs, scenes: Int[np.ndarray, " pairs"]) -> Float[np.ndarray, "scenes *rest"]:
    """Return of each scene the value of largest size among its pairs, which share pictures."""
    order = np.argsort(scenes, kind="stable")
    _, starts = np.unique(scenes[order], return_index=True)
    if len(starts) == len(scenes):
        return values if (np.diff(order) > 0).all() else values[order]
    found = []
    for places in np.split(order, starts[1:]):
        own = values[places]
        largest = np.abs(own).argmax(0)[None]
        found.append(np.take_along_axis(own, largest, 0)[0])
    return np.stack(found)
