r"""How an effect goes with the dose of a change: its slope, how straight it is, whether it turns.

A dose α has a neutral value :math:`α_0` at which the change changes nothing: there every effect is
0 without a measurement, and that point belongs to the curve.

- *Slope*: least squares through the neutral point, :math:`b = \sum d x / \sum d^2` with
  :math:`d = α - α_0` and the effects x.
- *Straightness*: :math:`1 - \sum (x - b d)^2 / \sum x^2`, 1 where the effect is in proportion to
  the dose, 0 where no line through the neutral point says anything of it.
- *Trend*: E. B. Page's test (Ordered hypotheses for multiple treatments, JASA 58, 1963), two-sided.
  Each scene ranks its doses by effect; :math:`L = \sum_i \sum_j j R_{ij}` is as far from its middle
  as the doses and the effects of a scene go the same way. Exact over the rankings that a scene
  could have (its ties included) up to `_DOSES` doses and `_SCENES` scenes, normal beyond.
- *Turn*: whether the mean curve rises somewhere *and* falls somewhere, so that no monotonic curve
  fits. H0 holds if no step from one dose to the next goes up, or none goes down. Against each half
  the smallest one-sided p of the steps counts, times their number (Bonferroni); both halves must be
  refuted, so the larger of the two is the p of a turn (an intersection-union test).

A trend alone does not show that a curve is monotonic, nor does a turn that is not shown.
"""

from functools import lru_cache
from itertools import permutations

import numpy as np
from jaxtyping import Float
from scipy.stats import norm, rankdata

from headpatch.stats.significance import one_sided_test

Curve = Float[np.ndarray, "*curves doses"]
Curves = Float[np.ndarray, "scenes doses"]
_DOSES, _SCENES = 6, 60


def slope(effects: Curve, doses: Float[np.ndarray, " doses"]) -> Float[np.ndarray, "*curves"]:
    """Return the effect of one unit of dose; `doses` are counted from the neutral one."""
    return np.asarray(effects @ doses / (doses @ doses))


def straightness(
    effects: Curve, doses: Float[np.ndarray, " doses"]
) -> Float[np.ndarray, "*curves"]:
    """Return the share of the squared effects that is in proportion to the dose; NaN of none."""
    whole = (effects**2).sum(-1)
    off = ((effects - slope(effects, doses)[..., None] * doses) ** 2).sum(-1)
    return np.asarray(1 - np.divide(off, whole, out=np.full_like(whole, np.nan), where=whole > 0))


def rank_trend(effects: Curve) -> Float[np.ndarray, "*curves"]:
    """Return Spearman's ρ of effect and dose, whose order is that of the columns; 0 of a tie."""
    count = effects.shape[-1]
    dose = np.arange(count) - (count - 1) / 2
    ranks = rankdata(effects, axis=-1) - (count + 1) / 2
    spread = np.sqrt((ranks**2).sum(-1) * (dose**2).sum())
    return np.asarray(np.divide(ranks @ dose, spread, out=np.zeros_like(spread), where=spread > 0))


def trend_test(effects: Curves) -> float:
    """Two-sided p of the hypothesis that in each scene all orders of the effects are alike likely.

    The columns are ordered by dose.
    """
    scenes, count = effects.shape
    ranks = np.rint(2 * rankdata(effects, axis=1)).astype(np.int64)  # halves, where effects tie
    scores = ranks @ (2 * np.arange(count) - (count - 1))
    total = abs(int(scores.sum()))
    if count > _DOSES or scenes > _SCENES:
        weights = float(((2 * np.arange(count) - (count - 1)) ** 2).sum())
        middle = ranks - ranks.mean(1, keepdims=True)
        deviation = np.sqrt(weights * float((middle**2).sum()) / (count - 1))
        return float(2 * norm.sf(total / deviation)) if deviation else 1.0
    chances = np.ones(1)  # of sums from -n to n, in steps of 1
    for own in np.sort(ranks, axis=1).tolist():
        chances = np.convolve(chances, _chances(tuple(own)))
    half = len(chances) // 2
    p = chances[: half - total + 1].sum() + chances[half + total :].sum()
    return float(min(1.0, p if total else 1.0))


@lru_cache(maxsize=64)
def _chances(ranks: tuple[int, ...]) -> Float[np.ndarray, " sums"]:
    """Return how likely each sum is of one scene with these ranks, all their orders being so."""
    weights = 2 * np.arange(len(ranks)) - (len(ranks) - 1)
    sums = np.array(list(permutations(ranks))) @ weights
    most = int(np.abs(sums).max())
    return np.bincount(sums + most, minlength=2 * most + 1) / len(sums)


def turn_test(effects: Curves) -> float:
    """P of the hypothesis that the mean curve only rises or only falls; see the module."""
    steps = np.diff(effects, axis=1)
    up, down = (float(one_sided_test(sign * steps).min()) for sign in (1, -1))
    return float(min(1.0, max(up, down) * steps.shape[1]))
