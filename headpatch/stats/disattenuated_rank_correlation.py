r"""Spearman's rho of the heads' *true* values: of means over endless pairs, not the measured ones.

Errors of measurement scramble ranks, which pulls the rho of measured means to 0 (Spearman 1904; for
ranks, Kitagawa, Nybom and Stuhler 2018). Dividing by reliabilities of split halves, as Spearman
did, does not do for sizes of effects: a head without any effect but with a large error ranks high
in both halves, so halves agree on noise, and if errors go with attention, rho is even inflated. The
errors are known here, head by head, so the ranks are corrected instead. With A and E the true ranks
of attention difference and effect size, Â and Ê their expectations given what was measured
(`expected_ranks`) and C the rank of the error of the effects,

.. math:: \mathrm{cov}(A, E) = \frac1{r_A} \left[
    \frac{\mathrm{cov}(\hat A, C)\, \mathrm{cov}(C, \hat E)}{\mathrm{var}(C)}
    + \frac{\mathrm{cov}(\hat A, \hat E \mid C)}{r_{E|C}} \right],

as regression calibration has it (Carroll et al. 2006). The reliability :math:`r_A =
\mathrm{var}(\hat A) / \mathrm{var}(A)` is the squared correlation of measured and true rank;
:math:`r_{E|C}` is the same of what C leaves open: what measuring effects tells beyond what the size
of their errors foretells. From cov(Â, Ê | C) is taken what errors of one head in the same pairs
share.

What no data can show is how ranks relate *below* the errors: the formula supposes that they go on
as above, in a straight line. The interval allows for a relation there that is absent or twice as
strong, and for errors that pass for effects where these are too small to tell,

.. math:: (1 - r_A r_{E|C}) |\rho| + (1 - r_{E|C}) |\mathrm{cor}(A, C)|,

and for the chance correlation of n heads of which that share is not told, :math:`z \sqrt{(1 - r_A
r_{E|C}) / n}`. The three, the jackknife's reach over pairs among them, are joined as a root of
squares: an interval that is rather too wide than too narrow. Where a reliability is below `LEAST`,
or there are too few heads to tell how true values are spread (`FEWEST`), nothing is said of the
true rho.

Coverage of the true rho by 95% intervals, in 1,600 studies of 1,024 heads, 20 to 200 pairs and
true rhos of 0 to 0.7 (``benchmarks/rho_coverage.py``): 99% where it is told, and 94% or more in
each of its 20 kinds of effects and errors, where the interval of the measured rho covers 49%. It is
told in all studies whose usual effect is ten times its error, in 88% at three times, 43% at once,
5% at a third, none at a tenth.

References
----------
C. Spearman, The proof and measurement of association between two things, American Journal of
Psychology 15 (1904). E. P. Charles, The correction for attenuation due to measurement error,
Psychological Methods 10 (2005). T. Kitagawa, M. Nybom and J. Stuhler, Measurement error and rank
correlations, cemmap working paper 28/18 (2018). S. Behseta et al., Bayesian correction for
attenuation of correlation in multi-trial spike count data, Journal of Neurophysiology 101 (2009).
R. J. Carroll et al., Measurement error in nonlinear models (2006), chapter 4.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from scipy.stats import norm, rankdata, t

from headpatch.stats.deconvolution import Prior, Shares, fit, posterior
from headpatch.stats.rankings import effect_size, stacked
from headpatch.stats.resampling import ALIGNED, blocks, by_columns

LEAST = 0.5  # reliability that both rankings need, for the true rho to be told
FEWEST = 64  # heads, for the true rho to be told
_CELLS = 8  # of log size, between its quartiles
_GROUPS = 50  # that the jackknife leaves out one by one, at most
_NUDGE = 0.5  # in errors, to see how a rank goes with its mean

PairMeans = Float[np.ndarray, "pairs heads"]
Values = Float[np.ndarray, "pairs three heads"]
Floor = Float[np.ndarray, "three 1"]
Measured = Float[np.ndarray, "three heads"]  # of attention difference, necessity and sufficiency
Heads = Float[np.ndarray, " heads"]
Places = Float[np.ndarray, "heads places"]
"""By head: the probability of each place in one order that all heads share; rows sum to 1."""


@dataclass(frozen=True)
class TrueCorrelation:
    """Spearman's rho of true values, with its interval, and how far the rankings can be trusted."""

    rho: float  # with its interval; NaN where it cannot be told
    low: float
    high: float
    # Squared correlation of measured and true rank, of attention differences and of effect sizes
    # (of these, beyond what the size of their errors foretells): 1, the ranking is certain; 0, it
    # is noise. NaN where one of them is flat, or there are too few heads.
    looks_reliability: float
    effects_reliability: float
    untold: str  # why it cannot be told; empty where it can


@dataclass(frozen=True)
class _Estimate:
    """What one set of means gives."""

    rho: float
    looks: float
    effects: float
    errors_go: float  # correlation of true attention rank and the rank of errors


@dataclass(frozen=True, eq=False)
class _Priors:
    looks: Prior
    effects: tuple[Prior, Prior]


def true_correlation(
    looks: PairMeans, necessity: PairMeans, sufficiency: PairMeans, level: float
) -> TrueCorrelation:
    """Spearman's rho, over heads, of true attention difference and true effect size.

    The interval's coverage is `level` or more.
    """
    values = stacked(looks, necessity, sufficiency)
    means = values.mean(0)
    if np.ptp(means[0]) == 0 or np.ptp(effect_size(means[1], means[2])) == 0:
        return _untold("as one of them does not vary")
    if means.shape[1] < FEWEST:
        return _untold(f"as there are fewer than {FEWEST} heads")
    floor = _floor(values)
    errors = _errors(by_columns(_variance, values), len(values), floor)
    priors = _fit(means, errors)
    shared = _shared(priors, means, errors, values)
    estimate = _estimate(priors, means, errors, shared)
    if min(estimate.looks, estimate.effects) < LEAST:
        return _untold("as errors scramble the ranks too much", estimate.looks, estimate.effects)
    without = np.array(
        [
            _estimate(priors, some, _errors(variance, count, floor), shared).rho
            for some, variance, count in _left_out(values)
        ]
    )
    groups = len(without)
    error = np.sqrt((groups - 1) / groups * ((without - without.mean()) ** 2).sum())
    sampled = float(t.ppf((1 + level) / 2, groups - 1)) * error
    untold = 1 - estimate.looks * estimate.effects
    unseen = untold * abs(estimate.rho) + (1 - estimate.effects) * abs(estimate.errors_go)
    chance = float(norm.ppf((1 + level) / 2)) * np.sqrt(untold / means.shape[1])
    reach = float(np.sqrt(sampled**2 + unseen**2 + chance**2))
    rho, low, high = np.clip(
        [estimate.rho, estimate.rho - reach, estimate.rho + reach], -1, 1
    ).tolist()
    return TrueCorrelation(rho, low, high, estimate.looks, estimate.effects, "")


def _untold(why: str, looks: float = np.nan, effects: float = np.nan) -> TrueCorrelation:
    return TrueCorrelation(np.nan, np.nan, np.nan, looks, effects, why)


def _floor(values: Values) -> Floor:
    """Smallest error that counts, for cells of log size need a lower end."""
    # A thousandth of the usual one; where heads mostly do not vary, a trifle of the largest mean.
    usual = np.median(np.sqrt(by_columns(_variance, values)), axis=1, keepdims=True)
    size = np.abs(values.mean(0)).max(1, keepdims=True)
    return np.asarray(np.maximum(1e-3 * usual / np.sqrt(len(values)), 1e-9 * size))


def _variance(values: Float[np.ndarray, "pairs *rest"]) -> Float[np.ndarray, "*rest"]:
    return np.asarray(values.var(0))


def _errors(variance: Measured, n: int, floor: Floor) -> Measured:
    """Standard errors of means of n values with that variance (n in the denominator)."""
    return np.asarray(np.maximum(np.sqrt(np.maximum(variance, 0) / (n - 1)), floor))


def _fit(means: Measured, errors: Measured) -> _Priors:
    step = _step(effect_size(means[1], means[2]))
    necessity, sufficiency = (fit(means[i], errors[i], step, signed=False) for i in (1, 2))
    looks = fit(means[0], errors[0], _step(means[0]), signed=True)
    return _Priors(looks, (necessity, sufficiency))


def _step(values: Heads) -> float:
    """Width of a cell: fine enough to tell ranks, coarse enough to be filled."""
    size = np.abs(values)
    low, high = np.quantile(np.log(size[size > 0]), [0.25, 0.75])
    return float(np.clip((high - low) / _CELLS, 0.02, 0.25))


def _estimate(priors: _Priors, means: Measured, errors: Measured, shared: float) -> _Estimate:
    """Apply the module's formula; `shared` is the covariance that errors bring in."""
    looks = expected_ranks(signed_places(priors.looks, means[0], errors[0]))
    effects = expected_ranks(
        size_places(priors.effects, (means[1], means[2]), (errors[1], errors[2]))
    )
    unsure = rankdata(np.log(errors[1]) + np.log(errors[2])) / len(looks)
    unsure -= unsure.mean()
    whole = (1 - len(looks) ** -2) / 12
    spread = max((unsure**2).mean(), 1e-12)  # 0 where all errors are the same
    slope_a, slope_e = ((ranks * unsure).mean() / spread for ranks in (looks, effects))
    rest_a, rest_e = looks - slope_a * unsure, effects - slope_e * unsure
    reliable_a = (looks**2).mean() / whole
    reliable_e = max((rest_e**2).mean() / (whole - slope_e**2 * spread), 1e-12)
    together = slope_a * slope_e * spread + ((rest_a * rest_e).mean() - shared) / reliable_e
    return _Estimate(
        float(together / reliable_a / whole),
        float(min(reliable_a, 1)),
        float(min(reliable_e, 1)),
        float(slope_a * np.sqrt(spread / whole) / reliable_a),
    )


def _shared(priors: _Priors, means: Measured, errors: Measured, values: Values) -> float:
    """Covariance of expected ranks that comes of errors of one head in the same pairs."""
    # To first order: the covariance of its means, times how fast its ranks go with them.
    n = len(values)
    products = np.empty((2, means.shape[1]))
    for some in blocks(means.shape[1], values[:, :, 0].size, ALIGNED):
        apart = values[:, :, some] - means[:, some]
        products[:, some] = (apart[:, :1] * apart[:, 1:]).sum(0)
    together = products / (n * (n - 1))

    def looks(by: float) -> Places:
        return signed_places(priors.looks, means[0] + by * errors[0], errors[0])

    def effects(first: float, second: float) -> Places:
        moved = (means[1] + first * errors[1], means[2] + second * errors[2])
        return size_places(priors.effects, moved, (errors[1], errors[2]))

    def slope(up: np.ndarray, down: np.ndarray, at: np.ndarray) -> Heads:
        change = expected_ranks(up, at) - expected_ranks(down, at)
        return np.asarray(change / (2 * _NUDGE))

    one = slope(looks(_NUDGE), looks(-_NUDGE), looks(0.0)) / errors[0]
    here = effects(0.0, 0.0)
    need = slope(effects(_NUDGE, 0.0), effects(-_NUDGE, 0.0), here) / errors[1]
    enough = slope(effects(0.0, _NUDGE), effects(0.0, -_NUDGE), here) / errors[2]
    return float((one * (need * together[0] + enough * together[1])).mean())


def _left_out(values: Values) -> Iterator[tuple[Measured, Measured, int]]:
    """Mean and variance without each pair, or group of pairs, and how many are left."""
    n = len(values)
    groups = np.array_split(np.arange(n), -(-n // -(-n // _GROUPS)))

    def sums(some: Float[np.ndarray, "pairs *rest"]) -> Float[np.ndarray, "groups two *rest"]:
        apart = some - some.mean(0)  # sums of squares of what is nearly alike need it
        whole = apart, apart**2
        total = [one.sum(0) for one in whole]
        return np.array(
            [
                [of - one[group].sum(0) for of, one in zip(total, whole, strict=True)]
                for group in groups
            ]
        )

    for group, (total, squares) in zip(groups, by_columns(sums, values), strict=True):
        left = n - len(group)
        mean = total / left
        yield values.mean(0) + mean, squares / left - mean**2, left


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

    Two heads in one place share its middle. `among`: where the others may lie, if not as `places`
    says.
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
