"""The ratio of means over pairs, which small gaps do not dominate as they do a mean of ratios.

A normalized effect is e / g: an effect in logits over the pair's gap, LD_with - LD_without. Its
mean over pairs is a mean of ratios. It gives each pair the same weight, so an effect of 0.3 logits
counts 30% where the gap is 1 logit and 1.5% where it is 20: pairs that the model hardly tells apart
decide. The ratio of means, Σ e / Σ g, is the mean of e / g weighted by g: the share of all the
difference that there is. The two agree where gaps are alike, or effects grow with them.
"""

from typing import Final

import numpy as np
from jaxtyping import Float, Int
from scipy.stats import t

from headpatch.stats.intervals import Interval, finite_pairs, mean_interval
from headpatch.stats.resampling import by_columns
from headpatch.stats.scenes import by_scene

DOMINATES: Final = 0.25
"""Share of a mean's sum of sizes above which the pair that carries it is named."""
_TIMES: Final = 3.0  # an equal share, which it must exceed too: of few pairs each has a large one


def ratio_of_means(
    effects: Float[np.ndarray, "pairs *rest"],
    gaps: Float[np.ndarray, " pairs"],
    level: float,
    resamples: int,
    rng: np.random.Generator,
    scenes: Int[np.ndarray, " pairs"] | None = None,
) -> Interval:
    r"""Return the ratio of means and its two-sided interval, for each column.

    With :math:`r = \bar e / \bar g`, the interval is, at each end, the outermost of two. One is
    that of the mean (`headpatch.stats.intervals.mean_interval`) of the linearised values
    :math:`r + (e_i - r g_i) / \bar g`, which follows skewness. The other is Fieller's (E. C.
    Fieller, Some problems in interval estimation, JRSS B 16, 1954), which knows that the
    denominator is an estimate too: all :math:`\rho` with
    :math:`(\bar e - \rho \bar g)^2 \le q^2 s^2_{e - \rho g} / n`, q being Student's quantile.

    Coverage of 95% intervals in simulated studies, 1,000 or more of each kind, so known to 0.7%
    (``benchmarks/ratio_coverage.py``: four kinds of gaps × six of effects): 93% to 98% at 20 pairs,
    94% to 98% at 50 and at 100. Effects in one pair of ten are the exception at 20 pairs (84% to
    89%): one such study in eight holds none of them, and nothing in it tells.

    Parameters
    ----------
    effects, gaps
        In logits, towards the other run: a normalized effect is their quotient.
    resamples, rng
        Of the bootstrap.
    scenes
        The scene of each pair: effects and gaps are averaged by scene, which is then the unit.
        None: the pair is.

    Returns
    -------
    Interval
        Shares of the gap. The ends are NaN where Fieller's interval has none: the mean gap cannot
        be told from 0. A ValueError as of `mean_interval`.
    """
    effects, gaps = by_scene(effects, scenes), by_scene(gaps, scenes)
    exact, mean = fieller_interval(effects, gaps, level), gaps.mean()
    whole = gaps.reshape(-1, *[1] * (effects.ndim - 1))
    linear = exact.mean + (effects - exact.mean * whole) / mean
    drawn = mean_interval(linear, level, resamples, rng)
    low, high = np.minimum(drawn.low, exact.low), np.maximum(drawn.high, exact.high)
    return Interval(exact.mean, np.asarray(low), np.asarray(high))


def fieller_interval(
    part: Float[np.ndarray, "pairs *rest"], whole: Float[np.ndarray, " pairs"], level: float
) -> Interval:
    """Return the mean of `part` as a share of that of `whole`, with Fieller's interval alone.

    See `ratio_of_means`. The ends are NaN where the mean of `whole` cannot be told from 0.
    """
    pairs, total = finite_pairs(part), finite_pairs(whole)
    mean, n = total.mean(), len(pairs)
    away = total - mean
    scale = float(t.ppf((1 + level) / 2, n - 1)) ** 2 / (n * (n - 1))
    bounded = mean**2 - scale * (away @ away)

    def ends(some: Float[np.ndarray, "pairs *rest"]) -> Float[np.ndarray, "three *rest"]:
        flat = some.reshape(n, -1)
        share = np.divide(flat.mean(0), mean, out=np.full(flat.shape[1], np.nan), where=mean != 0)
        low, high = np.full((2, *share.shape), np.nan)
        if bounded > 0:
            apart = flat - share * total[:, None]
            middle = -scale * (away @ apart)
            reach = np.sqrt(middle**2 + bounded * scale * (apart**2).sum(0))
            low, high = share + (middle - reach) / bounded, share + (middle + reach) / bounded
        return np.stack([share, low, high]).reshape(3, *some.shape[1:])

    return Interval(*map(np.asarray, by_columns(ends, pairs)))


def dominating_pair(
    normalized: Float[np.ndarray, "pairs *rest"],
) -> tuple[Int[np.ndarray, "*rest"], Float[np.ndarray, "*rest"]]:
    """Return which pair carries most of a mean, and its share |v| / Σ|v| of the sum of sizes.

    The share is NaN where all values are 0. Whether a pair dominates, `dominates` says.
    """

    def carried(some: Float[np.ndarray, "pairs *rest"]) -> Float[np.ndarray, "three *rest"]:
        sizes = np.abs(some)
        return np.stack([sizes.argmax(0), sizes.max(0), sizes.sum(0)])

    place, largest, total = map(np.asarray, by_columns(carried, normalized))
    share = np.divide(largest, total, out=np.full(total.shape, np.nan), where=total > 0)
    return place.astype(np.int64), share


def dominates(share: float, pairs: int) -> bool:
    """Whether one of so many pairs carries so much of a mean that it must be named.

    More than a quarter of the sum of sizes, and than three times an equal share.
    """
    return share > max(DOMINATES, _TIMES / pairs)
