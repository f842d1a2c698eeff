"""How far two runs rank the same heads, or layers, alike."""

from dataclasses import dataclass
from typing import Final

import numpy as np
from jaxtyping import Float, Int
from scipy.stats import hypergeom, norm, t

from headpatch.stats.rankings import spearman, spearman_rows
from headpatch.stats.resampling import Resamples

Values = Float[np.ndarray, "scenes places"]
Others = Float[np.ndarray, "other_scenes places"]
_SPLITS: Final = 50
_NEARLY_ONE: Final = 1 - 1e-12  # where Fisher's z is still finite


@dataclass(frozen=True)
class RankAgreement:
    """Spearman's rho of two lists of means, and how many of their first k they share."""

    rho: float  # NaN where one side is flat
    low: float  # of its interval over scenes; NaN where a run kept no more than means
    high: float
    ceiling: float  # what two such noisy lists would reach if the true ones were one; or NaN
    k: int
    shared: int
    p: float  # that two random rankings share as many of their first k or more
    shared_low: float = np.nan  # of its interval over scenes, as that of rho
    shared_high: float = np.nan


def rank_agreement(
    first: Values,
    second: Others,
    together: bool,
    k: int,
    level: float,
    resamples: int,
    rng: np.random.Generator,
    sizes: bool = False,
) -> RankAgreement:
    r"""Compare the means over scenes of two runs, place by place.

    Parameters
    ----------
    first, second
        A row a scene; one row is a mean of which no more is known.
    together
        Whether both have the same scenes in the same order, which are then resampled together; else
        each run's are resampled on their own.
    sizes
        Whether the first k are those with the largest sizes, rather than values.

    The interval reaches, at each end, as far as the further of two. The basic bootstrap, as that of
    `headpatch.stats.agreement.mean_agreement`: resampled means are noisier than the means, and
    quantiles are turned about rho to make up for it; alone it held the rho of the true means in 84%
    to 93% of simulated studies. And a jackknife over scenes of Fisher's z, as that of
    `headpatch.stats.rankings.correlation`: alone 95% to 100%, but 55% where noise pulls rho down.
    Both together (30 scenes, 60 heads, true rho 0 to 0.95, errors of the means of 0.1 and 0.4 of
    their spread, 150 studies each) held it in 93% to 100%, and in 89% and 91% at a rho of 0.8 and
    errors of 0.4. The ceiling is :math:`\sqrt{r_1 r_2}` of the reliabilities: by Spearman and
    Brown's formula, from the rho of random halves of a run's scenes. The interval of the count of
    shared places reaches as far as the further of the quantiles of resampled counts and of these
    turned about the count. In such studies (k = 10) it held the count of the true means in 98% to
    100% with errors of 0.1; with errors of 0.4 in 94% to 100% up to a rho of 0.5, in 90% at 0.8 and
    77% to 83% at 0.95: noise pulls a count down. Chance alone shares :math:`k^2 / n`.
    """
    means = first.mean(0), second.mean(0)
    rho, n = spearman(*means), len(means[0])
    k = min(k, n)
    shared = int(_shared(means[0][None], means[1][None], k, sizes)[0])
    p = float(hypergeom.sf(shared - 1, n, k, k))
    if min(len(first), len(second)) < 2 or np.isnan(rho):
        return RankAgreement(rho, np.nan, np.nan, np.nan, k, shared, p)
    some = Resamples.draw(len(first), resamples, rng)
    other = some if together else Resamples.draw(len(second), resamples, rng)
    resampled = some.means(first), other.means(second)
    drawn, low, high = spearman_rows(*resampled), rho, rho
    drawn = drawn[~np.isnan(drawn)]
    if len(drawn):
        units = min(len(first), len(second))
        tail = (1 + level) / 2  # few scenes give too narrow quantiles, by about this factor
        wider = t.ppf(tail, units - 1) / norm.ppf(tail) * np.sqrt(units / (units - 1))
        apart = rho - np.quantile(drawn, [(1 + level) / 2, (1 - level) / 2])
        low, high = np.clip(rho + wider * apart, -1, 1)
    if (reach := _jackknifed(first, second, together, level)) > 0:
        middle = np.arctanh(np.clip(rho, -_NEARLY_ONE, _NEARLY_ONE))
        low, high = min(low, np.tanh(middle - reach)), max(high, np.tanh(middle + reach))
    ceiling = np.sqrt(reliability(first, rng) * reliability(second, rng))
    ends = _around(shared, _shared(*resampled, k, sizes), level)
    shared_low, shared_high = (float(min(max(end, 0), k)) for end in ends)
    ends = min(low, rho), max(high, rho)
    return RankAgreement(rho, *ends, float(ceiling), k, shared, p, shared_low, shared_high)


def _shared(first: Values, second: Values, k: int, sizes: bool) -> Int[np.ndarray, " lists"]:
    """Return how many of their first k places two lists share, pair of lists by pair of lists."""
    tops = []
    for values in (first, second):
        order = np.argsort(-(np.abs(values) if sizes else values), axis=1, kind="stable")
        top = np.zeros(values.shape, dtype=bool)
        np.put_along_axis(top, order[:, :k], True, axis=1)
        tops.append(top)
    return np.asarray((tops[0] & tops[1]).sum(1))


def _around(count: int, drawn: Int[np.ndarray, " draws"], level: float) -> tuple[float, float]:
    """Return the further ends of the quantiles of resampled counts, and of them turned about it."""
    low, high = np.quantile(drawn, [(1 - level) / 2, (1 + level) / 2])
    return min(low, 2 * count - high), max(high, 2 * count - low)


def _jackknifed(first: Values, second: Others, together: bool, level: float) -> float:
    """How far the interval of Fisher's z reaches to each side, by leaving out a scene at a time."""
    without = [(values.sum(0) - values) / (len(values) - 1) for values in (first, second)]
    whole = [values.mean(0) for values in (first, second)]
    sides = [tuple(without)] if together else [(without[0], whole[1]), (whole[0], without[1])]
    variance = 0.0
    for one, other in sides:
        rhos = spearman_rows(*np.broadcast_arrays(np.atleast_2d(one), np.atleast_2d(other)))
        z = np.arctanh(np.clip(rhos[~np.isnan(rhos)], -_NEARLY_ONE, _NEARLY_ONE))
        variance += (len(z) - 1) / len(z) * ((z - z.mean()) ** 2).sum() if len(z) else 0.0
    units = min(len(first), len(second))
    return float(t.ppf((1 + level) / 2, units - 1) * np.sqrt(variance))


def reliability(values: Values, rng: np.random.Generator) -> float:
    """Squared correlation of measured and true ranks, from halves of the scenes; 0 to 1, or NaN."""
    units = len(values)
    if units < 4:
        return float("nan")
    orders = [rng.permutation(units) for _ in range(_SPLITS)]
    ends = slice(None, units // 2), slice(units // 2, None)
    halves = (np.stack([values[order[end]].mean(0) for order in orders]) for end in ends)
    half = float(np.mean(spearman_rows(*halves)))
    return float("nan") if np.isnan(half) else max(2 * half / (1 + half), 0.0)


def at_depths(
    profile: Float[np.ndarray, "scenes layers"], count: int
) -> Float[np.ndarray, "scenes depths"]:
    """Read a profile over layers at `count` evenly spaced relative depths, by linear interpolation.

    A layer stands at the middle of its share of the depth.
    """
    layers = profile.shape[1]
    own, asked = ((np.arange(n) + 0.5) / n for n in (layers, count))
    return np.stack([np.interp(asked, own, row) for row in profile])
