r"""Intervals of rates and of shares, by which a null is judged.

A null that asked for a rate over few units ("95% of 16 pairs") would fail more often than not where
all is well. It fails here only if the interval lies beyond its limit: the limit is then refuted.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from scipy.stats import binomtest, t

from headpatch.stats.intervals import finite_pairs


@dataclass(frozen=True)
class Estimate:
    """A figure and its two-sided interval; endless ends say that nothing is known of it."""

    value: float
    low: float
    high: float


def rate_interval(hits: int, units: int, level: float) -> Estimate:
    """Return the share of independent units that are hits, with Clopper and Pearson's interval.

    Exact: with a true rate at or within a limit, the interval lies beyond the limit in at most
    (1 - level)/2 of samples (C. J. Clopper and E. S. Pearson, Biometrika 26, 1934). A ValueError if
    there is no unit, or more hits than units.
    """
    ends = binomtest(hits, units).proportion_ci(level, method="exact")
    return Estimate(hits / units, float(ends.low), float(ends.high))


def share_interval(
    part: Float[np.ndarray, " pairs"], whole: Float[np.ndarray, " pairs"], level: float
) -> Estimate:
    r"""Return the mean over pairs of `part` as a share of that of `whole`, with Fieller's interval.

    It holds every share r for which a t-test does not tell the mean of part - r whole from 0 (E. C.
    Fieller, Some problems in interval estimation, JRSS B 16, 1954): with means a, b, the squared
    quantile :math:`q^2` of t over n, and (co)variances s,

    .. math:: (b^2 - q^2 s_{bb}) r^2 - 2 (ab - q^2 s_{ab}) r + a^2 - q^2 s_{aa} \le 0.

    Unlike an interval of the ratio by its standard error it holds for a whole that is hardly known.
    Where that is not shown to differ from 0 the ends are infinite. Errors as of `finite_pairs`.
    """
    pairs = finite_pairs(np.stack([part, whole], 1))
    a, b = pairs.mean(0)
    (aa, ab), (_, bb) = np.cov(pairs, rowvar=False)
    square = float(t.ppf((1 + level) / 2, len(pairs) - 1)) ** 2 / len(pairs)
    first, middle, last = b * b - square * bb, a * b - square * ab, a * a - square * aa
    value = float(a / b) if b else float("nan")
    if first <= 0:
        return Estimate(value, -np.inf, np.inf)
    reach = np.sqrt(max(middle * middle - first * last, 0.0))
    return Estimate(value, float((middle - reach) / first), float((middle + reach) / first))
