"""How well estimated effects stand for exact ones of the same heads, in one pair or in means."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from scipy.stats import norm, pearsonr, spearmanr, t

from headpatch.stats.intervals import finite_pairs
from headpatch.stats.resampling import Resamples

Effects = Float[np.ndarray, "*shape"]
PairEffects = Float[np.ndarray, "pairs heads"]
_BLOCK = 1 << 20  # resampled means held at a time


@dataclass(frozen=True)
class Agreement:
    """Estimates beside exact effects; correlations are NaN where a side is constant."""

    pearson: float
    spearman: float
    # of the `k` heads of largest exact effect (by size), the share also among the estimates' first
    # k
    top_recall: float
    k: int
    heads: int

    @property
    def chance(self) -> float:
        """The recall that a random order of the heads has on average."""
        return self.k / self.heads

    def __str__(self) -> str:
        return (
            f"Pearson {self.pearson:.2f}, Spearman {self.spearman:.2f}, "
            f"top-{self.k} recall {self.top_recall:.2f}"
        )


def agreement(approx: Effects, exact: Effects, k: int = 20) -> Agreement:
    """Compare estimated with exact effects of the same heads; `k` is at most their number."""
    a, b = _flat(approx, exact)
    k = min(k, len(a))
    top = [set(np.argsort(-np.abs(values), kind="stable")[:k]) for values in (a, b)]
    recall = len(top[0] & top[1]) / k
    if np.ptp(a) == 0 or np.ptp(b) == 0:
        return Agreement(float("nan"), float("nan"), recall, k, len(a))
    return Agreement(float(pearsonr(a, b)[0]), float(spearmanr(a, b)[0]), recall, k, len(a))


def pearson_interval(
    approx: Effects, exact: Effects, level: float, resamples: int, rng: np.random.Generator
) -> tuple[float, float]:
    """Bootstrap interval of Pearson's correlation, heads resampled (percentiles).

    Heads of one model are not independent draws from anything, so this is no interval for other
    models or pairs: it shows how far the figure hangs on a few heads with large effects. Draws that
    leave a side constant are left out; the ends are NaN where one is constant.
    """
    if not 0 < level < 1:
        raise ValueError(f"level must lie between 0 and 1, got {level}")
    a, b = _flat(approx, exact)
    if np.ptp(a) == 0 or np.ptp(b) == 0:
        return float("nan"), float("nan")
    n = len(a)
    a, b = (a - a.mean()) / a.std(), (b - b.mean()) / b.std()
    weights = rng.multinomial(n, np.full(n, 1 / n), size=resamples) / n
    mean_a, mean_b, aa, bb, ab = (weights @ values for values in (a, b, a * a, b * b, a * b))
    spread = (aa - mean_a**2) * (bb - mean_b**2)
    there = spread > 1e-12 * n  # what a draw of one head alone leaves is rounding
    drawn = (ab - mean_a * mean_b)[there] / np.sqrt(spread[there])
    if len(drawn) == 0:
        return float("nan"), float("nan")
    low, high = np.quantile(drawn, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def _flat(
    approx: Effects, exact: Effects
) -> tuple[Float[np.ndarray, " heads"], Float[np.ndarray, " heads"]]:
    a, b = np.ravel(approx).astype(float), np.ravel(exact).astype(float)
    if len(a) < 2 or not (np.isfinite(a).all() and np.isfinite(b).all()):
        raise ValueError("agreement needs two or more effects, each a number")
    return a, b


@dataclass(frozen=True)
class MeanAgreement:
    """Agreement of means over pairs; the interval of Pearson's r is NaN where a side is flat."""

    measured: Agreement
    low: float
    high: float


def mean_agreement(
    approx: PairEffects,
    exact: PairEffects,
    k: int,
    level: float,
    resamples: int,
    rng: np.random.Generator,
) -> MeanAgreement:
    """Compare estimated with exact effects of the same heads, both as means over pairs.

    The interval of the correlation :math:`r` is the basic bootstrap (Davison and Hinkley, Bootstrap
    Methods and their Application, 1997, section 5.2), all figures of a pair resampled together:
    :math:`[2r - q_{high}, 2r - q_{low}]` of the quantiles :math:`q`, cut at -1 and 1, and made to
    hold
    :math:`r` itself. Resampled means are noisier than the means, which moves their correlations to
    one
    side; turning the quantiles about :math:`r` moves them back, where plain percentiles would miss
    the
    correlation of many pairs' means more often than not. Both ends are moved out for small n (T.
    Hesterberg, The American Statistician 69, 2015). The tests hold its coverage against a known
    population. Recall is a count of ranks, which no such interval covers; it has none.

    Draws that leave a side constant do not count.
    """
    if not 0 < level < 1:
        raise ValueError(f"level must lie between 0 and 1, got {level}")
    a, b = finite_pairs(approx), finite_pairs(exact)
    measured = agreement(a.mean(0), b.mean(0), k)
    n, heads = a.shape
    drawn = np.concatenate(
        [
            _pearson(some @ a, some @ b)
            for weights in Resamples.draw(n, resamples, rng).weights()
            for some in np.array_split(weights, -(-len(weights) * heads // _BLOCK))
        ]
    )
    drawn, r = drawn[~np.isnan(drawn)], measured.pearson
    if np.isnan(r) or not len(drawn):
        return MeanAgreement(measured, float("nan"), float("nan"))
    apart = r - np.quantile(drawn, [(1 + level) / 2, (1 - level) / 2])
    tail = (1 + level) / 2  # few pairs give too narrow quantiles, by about this factor
    low, high = r + t.ppf(tail, n - 1) / norm.ppf(tail) * np.sqrt(n / (n - 1)) * apart
    return MeanAgreement(measured, float(np.clip(low, -1, r)), float(np.clip(high, r, 1)))


def _pearson(
    a: Float[np.ndarray, "draws heads"], b: Float[np.ndarray, "draws heads"]
) -> Float[np.ndarray, " draws"]:
    """Correlate row by row; NaN where one is constant."""
    a, b = (side - side.mean(1, keepdims=True) for side in (a, b))
    spread = np.sqrt((a**2).sum(1) * (b**2).sum(1))
    found = np.full(len(a), np.nan)
    np.divide((a * b).sum(1), spread, out=found, where=spread > 0)
    return found
