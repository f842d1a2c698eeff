r"""Intervals of rates and of shares, by which a null is judged.

A null that asked for a rate over few units ("95% of 16 pairs") would fail more often than not where
all is well. It fails here only if the interval lies beyond its limit: the limit is then refuted.
"""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from jaxtyping import Float
from scipy.stats import binomtest

from headpatch.stats.ratio import fieller_interval


@dataclass(frozen=True)
class Estimate:
    """A figure and its two-sided interval; endless ends say that nothing is known of it."""

    value: float
    low: float
    high: float


@lru_cache(maxsize=1024)  # a null asks for every count of its pairs, and each takes milliseconds
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
    """Return the mean over pairs of `part` as a share of that of `whole`, with Fieller's interval.

    It holds every share r for which a t-test does not tell the mean of part - r whole from 0
    (`headpatch.stats.ratio.fieller_interval`). Where the whole is not shown to differ from 0 the
    ends are infinite. Errors as of `finite_pairs`.
    """
    found = fieller_interval(part, whole, level)
    low, high = (float(end) for end in found.ends[1:])
    if np.isnan(low):
        low, high = -np.inf, np.inf
    return Estimate(float(found.mean), low, high)
