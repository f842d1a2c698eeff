r"""Tests of means over pairs: different from nothing, beyond ±δ, within ±δ; ranks in a layer.

`minimum_effect_test` and `equivalence_test` meet at the same boundary, the smallest effect of
interest δ: a study shows an effect to be larger, shows it to be smaller, or shows neither. Fewer
than two pairs, a value that is not finite or a negative δ is a ValueError.

All but the rank are t-tests that also withstand skewness. A head that acts in some pairs only (for
one quadrant of four, say) has skewed effects, and far out, where corrections over a thousand heads
look, the plain t-test of 50 exponential values errs 29 times as often as it says. Hall's
transformation of t (P. Hall, On the removal of skewness by transformation, JRSS B 54, 1992) takes
the sample's skewness g into account,

.. math:: t' = t + g t^2 / 3\sqrt n + g^2 t^3 / 27 n + g / 6\sqrt n,

but errs too often where tails are heavy. The larger p of the two is taken: with symmetric samples
it is the t-test.

What a sample does not hold, its p cannot know. An effect that comes in one pair of ten is missing
from 12% of samples of 20 pairs, and those look like an even effect of the other sign. One head
cannot tell; the heads of the study together can, as most of them do hold such pairs:
`resampled_q` estimates from them how many heads would be called if no mean differed from 0.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy.stats import false_discovery_control, t

from headpatch.stats.intervals import finite_pairs, t_interval
from headpatch.stats.resampling import ALIGNED, Resamples, blocks, by_columns, cubes

Pairs = Float[np.ndarray, "pairs *rest"]
Means = Float[np.ndarray, "*rest"]


def minimum_effect_test(values: "Pairs | Moments", delta: float = 0.0) -> Means:
    r"""Two-sided p of the hypothesis that a mean over pairs lies within ±δ.

    A t-test against an interval (D. J. McCarthy and G. K. Smyth, Testing significance relative to a
    fold-change threshold is a TREAT, Bioinformatics 25, 2009): with mean m and standard error s,

    .. math:: p = P(T_{n-1} \ge (|m| - δ)/s) + P(T_{n-1} \ge (|m| + δ)/s),

    at most 1. Under any mean inside the interval P(p ≤ α) is at most about α, and about α at
    its ends. Where all pairs are equal, p is 0 or 1.
    """
    return _beyond(_checked(values, delta), delta)


def _beyond(seen: "Moments", delta: float) -> Means:
    sign = np.where(seen.mean < 0, -1.0, 1.0)
    size, skew = np.abs(seen.mean), sign * seen.skew
    p = _upper(size - delta, seen, skew) + _upper(size + delta, seen, skew)
    return np.asarray(np.where((seen.error == 0) & (size <= delta), 1.0, np.minimum(p, 1.0)))


def one_sided_test(values: "Pairs | Moments", delta: float = 0.0) -> Means:
    """One-sided p that a mean over pairs is at most δ."""
    seen = _checked(values, delta)
    return _upper(seen.mean - delta, seen, seen.skew)


def equivalence_test(values: "Pairs | Moments", delta: float) -> Means:
    """P of the hypothesis that a mean over pairs lies outside ±δ.

    Two one-sided t-tests (D. J. Schuirmann, A comparison of the two one-sided tests procedure and
    the power approach, Journal of Pharmacokinetics and Biopharmaceutics 15, 1987); the larger p
    counts. A small p *shows* that the mean lies within ±δ, which no large p of another test does.
    """
    seen = _checked(values, delta)
    low = _upper(seen.mean + delta, seen, seen.skew)
    return np.asarray(np.maximum(low, _upper(delta - seen.mean, seen, -seen.skew)))


def adjusted(p: Float[np.ndarray, "*shape"]) -> Float[np.ndarray, "*shape"]:
    """Benjamini-Hochberg q of every p, over all of them together.

    Calling those with q < α keeps the expected share of false calls below α.
    """
    return np.reshape(false_discovery_control(p, axis=None), p.shape) if p.size else p


def resampled_q(
    values: Pairs, delta: float, level: float, resamples: int, rng: np.random.Generator
) -> Means:
    r"""Estimated share of false calls among the means called at each mean's p, over all of them.

    A mean is called at p if `minimum_effect_test` against 0 is at most p and its `t_interval` lies
    beyond ±δ. In place of the distribution that theory gives, the study's own is used: every
    mean is moved to 0, pairs are drawn with replacement (all heads of a pair together, so that what
    heads share stays), and the calls are counted (J. D. Storey and R. Tibshirani, Statistical
    significance for genomewide studies, PNAS 100, 2003; V. G. Tusher, R. Tibshirani and G. Chu,
    Significance analysis of microarrays, PNAS 98, 2001; P. Hall and S. R. Wilson, Two guidelines
    for bootstrap hypothesis testing, Biometrics 47, 1991):

    .. math:: q_i = \min_{p \ge p_i} \frac{\text{calls at } p \text{ in a resample, on average}}
        {\text{calls at } p \text{ in the study}}.

    A call should need it *and* `adjusted` below α. With values that are normal the two agree; with
    skewed or rare effects, this one is the larger (``benchmarks/verdict_simulations.py``). It is
    at most 1, and 0 for a mean whose interval is not beyond ±δ, of which it says nothing. Extremely
    heavy tails (t with 2 degrees of freedom) make it strict: below 50 pairs it then holds back
    true effects too. A head whose sample misses its rare pairs, in a study whose other heads are
    even, is seen by no test.

    `level` is that of the intervals, `resamples` at least 1. Errors as of the module.
    """
    pairs = finite_pairs(values)
    flat = pairs.reshape(len(pairs), -1)
    found, q = t_interval(flat, level), np.zeros(flat.shape[1])
    beyond = np.flatnonzero((found.low > delta) | (found.high < -delta))
    if beyond.size:
        p = minimum_effect_test(flat[:, beyond])
        order = np.argsort(p)
        p = p[order]
        by_chance = np.sort(_chance_p(flat, found.mean, delta, level, resamples, rng))
        expected = np.searchsorted(by_chance, p, side="right") / resamples
        share = expected / np.searchsorted(p, p, side="right")  # calls at each p, equal p together
        lowest = np.minimum.accumulate(share[::-1])[::-1]
        q[beyond[order]] = np.minimum(lowest, 1.0)
    return q.reshape(pairs.shape[1:])


def _chance_p(
    flat: Float[np.ndarray, "pairs columns"],
    middle: Float[np.ndarray, " columns"],
    delta: float,
    level: float,
    resamples: int,
    rng: np.random.Generator,
) -> Float[np.ndarray, " calls"]:
    """P of every call in resamples of columns moved to mean 0; see `resampled_q`."""
    n, found = len(flat), [np.zeros(0)]
    reach, drawn = float(t.ppf((1 + level) / 2, n - 1)), Resamples.draw(n, resamples, rng)
    # no resampled mean of others is beyond δ
    spans = np.maximum(flat.max(0) - middle, middle - flat.min(0)) > delta
    kept = np.flatnonzero(spans)
    for block in blocks(len(kept), max(n, resamples), ALIGNED):
        apart = flat[:, kept[block]] - middle[kept[block]]
        means = drawn.means(apart)
        beyond = np.abs(means) > delta
        some = _with_neighbours(beyond.any(0))  # the others' squares and cubes are not needed
        apart, means, beyond = apart[:, some], means[:, some], beyond[:, some]
        mean, square, cube = (
            of[beyond] for of in (means, drawn.means(apart**2), drawn.means(cubes(apart)))
        )
        variance = np.maximum(square - mean**2, 0)
        variance[variance <= 1e-12 * square] = 0  # one value drawn n times, but for rounding
        error = np.sqrt(variance / (n - 1))
        called = np.abs(mean) - reach * error > delta
        mean, square, cube, error = (of[called] for of in (mean, square, cube, error))
        third = cube - 3 * mean * square + 2 * mean**3
        spread = (error**2 * (n - 1)) ** 1.5
        skew = np.divide(third, spread, out=np.zeros_like(mean), where=spread > 0)
        found.append(_beyond(Moments(mean, error, skew, n), 0.0))
    return np.concatenate(found)


def _with_neighbours(asked: Bool[np.ndarray, " columns"]) -> Int[np.ndarray, " some"]:
    """Return the places of all columns beside those that are asked for, `ALIGNED` by `ALIGNED`."""
    groups = np.arange(len(asked)) // ALIGNED
    return np.flatnonzero(np.isin(groups, groups[asked]))


def effective_pairs(values: Pairs) -> Means:
    r"""How many pairs each mean rests on: :math:`(\sum |x|)^2 / \sum x^2`; 0 of nothing but 0.

    It is n if all pairs have the same size, k if k pairs have the same size and the others 0, and
    0.64 n for normal values about 0 (the participation ratio, or inverse Simpson index of the
    pairs' shares of the sum).
    """
    return by_columns(_effective, finite_pairs(values))


def _effective(pairs: Pairs) -> Means:
    sizes = np.abs(pairs)
    largest = sizes.max(0)
    shares = np.divide(sizes, largest, out=np.zeros_like(sizes), where=largest > 0)
    squares = np.asarray((shares**2).sum(0))
    total = np.asarray(shares.sum(0)) ** 2
    return np.asarray(np.divide(total, squares, out=np.zeros_like(squares), where=squares > 0))


def layer_rank(
    values: Float[np.ndarray, "pairs layers heads"],
) -> Float[np.ndarray, "layers heads"]:
    """Share of the heads of a head's own layer, itself included, with a mean as large in size.

    The exact p of the hypothesis that the layer's heads are exchangeable: which of them has which
    mean is then chance. It knows no pairs, so that however many there are, p is never below 1 over
    the number of heads of the layer; and it says of a head only that it stands out among those that
    happen to be its layer's. Heads whose means are equal but for rounding count as equal.
    """
    pairs = finite_pairs(values)
    size = np.abs(pairs.mean(0))
    largest = by_columns(lambda some: np.abs(some).max(0, initial=0.0), pairs)
    slack = 1e-12 * largest.max(1)  # by layer
    as_large = size[:, None, :] >= size[:, :, None] - slack[:, None, None]
    return np.asarray(as_large.mean(2))


@dataclass(frozen=True, eq=False)
class Moments:
    """Means over pairs, their standard errors, skewness of the values, and how many pairs.

    All that the t-tests take: whoever tests the same values more than once makes them once.
    """

    mean: Means
    error: Means
    skew: Means
    n: int

    @classmethod
    def of(cls, values: Pairs) -> "Moments":
        """Work them out; a ValueError as of the module."""
        pairs = finite_pairs(values)
        mean, error, skew = by_columns(_moments, pairs)
        return cls(mean, error, skew, len(pairs))


def _moments(pairs: Pairs) -> Float[np.ndarray, "three *rest"]:
    mean = np.asarray(pairs.mean(0))
    error = np.asarray(pairs.std(0, ddof=1)) / np.sqrt(len(pairs))
    rounding = 1e-14 * np.abs(pairs).max(0, initial=0.0)
    error = np.where(error <= rounding, 0.0, error)
    apart = pairs - mean
    square, cube = (np.asarray(powers.mean(0)) for powers in (apart**2, cubes(apart)))
    skew = np.divide(cube, square**1.5, out=np.zeros_like(cube), where=error > 0)
    return np.stack([mean, error, skew])


def _checked(values: "Pairs | Moments", delta: float) -> Moments:
    if delta < 0:
        raise ValueError(f"delta must not be negative, got {delta}")
    return values if isinstance(values, Moments) else Moments.of(values)


def _upper(distance: Means, seen: Moments, skew: Means) -> Means:
    """P(T ≥ distance/error), allowing for skew; without any spread, 0 or 1 by the sign."""
    ratio = np.divide(distance, seen.error, out=np.zeros_like(distance), where=seen.error > 0)
    a = skew / np.sqrt(seen.n)
    straight = ratio + a * ratio**2 / 3 + a**2 * ratio**3 / 27 + a / 6
    p = t.sf(np.minimum(ratio, straight), seen.n - 1)
    return np.where(seen.error > 0, p, np.where(distance > 0, 0.0, 1.0))
