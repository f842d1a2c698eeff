"""How far apart two attention distributions are: KL, JS divergence, JS distance.

All act on the last axis, broadcast over the others, and use the natural logarithm. The maths
decides what zeros mean (``0 log 0 = 0``; ``p log(p / 0) = inf``): nothing is smoothed. All raise
ValueError if an input is no distribution: negative or non-finite entries, or a sum off 1 by more
than 1e-4 (within that, it is divided by its sum).

Divergence and distance go by one name: scipy's ``jensenshannon`` returns the *distance*, the square
root. The "JS divergence" of the analysis that this project extends is almost surely that distance:
squared, its figures stand to their KLs as 1:5 to 1:8, as a JS divergence does.

S. Kullback and R. A. Leibler, On information and sufficiency, Annals of Mathematical Statistics 22
(1951). J. Lin, Divergence measures based on the Shannon entropy, IEEE Transactions on Information
Theory 37 (1991). D. M. Endres and J. E. Schindelin, A new metric for probability distributions,
IEEE Transactions on Information Theory 49 (2003).
"""

import numpy as np
from jaxtyping import Float
from scipy.special import rel_entr

Distribution = Float[np.ndarray, "*#batch n"]
Divergence = Float[np.ndarray, "*batch"]
_TOLERANCE = 1e-4  # how far from 1 a sum may be (half-precision softmax rows, say)


def kl(p: Distribution, q: Distribution) -> Divergence:
    r"""Kullback-Leibler divergence of q from p, in nats.

    .. math:: KL(p \| q) = \sum_i p_i \ln (p_i / q_i)

    At least 0, and 0 exactly when p = q; infinite where some ``q_i = 0 < p_i``; not symmetric.
    """
    total = rel_entr(_distribution("p", p), _distribution("q", q)).sum(axis=-1)
    return np.asarray(np.maximum(total, 0.0))  # rounding can leave -1e-17


def js(p: Distribution, q: Distribution) -> Divergence:
    r"""Jensen-Shannon divergence, in nats.

    .. math:: JS(p, q) = \tfrac12 KL(p \| m) + \tfrac12 KL(q \| m), \quad m = \tfrac12 (p + q)

    Symmetric, always finite, between 0 (p = q) and ln 2 = 0.693 (disjoint supports).
    """
    p, q = _distribution("p", p), _distribution("q", q)
    twice_m = p + q  # KL(p || m) = KL(2p || 2m) / 2: halving could underflow to 0
    total = (rel_entr(2 * p, twice_m) + rel_entr(2 * q, twice_m)).sum(axis=-1) / 4
    return np.asarray(np.clip(total, 0.0, np.log(2.0)))


def js_distance(p: Distribution, q: Distribution) -> Divergence:
    r"""Jensen-Shannon distance, :math:`\sqrt{JS(p, q)}`, in square-root nats.

    A metric, between 0 and :math:`\sqrt{\ln 2}` = 0.833; scipy's ``jensenshannon``, which can give
    NaN when rounding makes the divergence of equal distributions negative.
    """
    return np.asarray(np.sqrt(js(p, q)))


def _distribution(name: str, values: Float[np.ndarray, "*b n"]) -> Float[np.ndarray, "*b n"]:
    exact = values.astype(np.float64)
    if not np.isfinite(exact).all():
        raise ValueError(f"{name} is not a distribution: it holds NaN or infinity")
    if (exact < 0).any():
        raise ValueError(f"{name} is not a distribution: it holds {exact.min():.3g} < 0")
    total = exact.sum(axis=-1, keepdims=True)
    error = np.abs(total - 1.0).max(initial=0.0)
    if error > _TOLERANCE:
        worst = total.flat[np.abs(total - 1.0).argmax()]
        raise ValueError(f"{name} is not a distribution: it sums to {worst:.6g}, not to 1")
    return np.asarray(exact / total)
