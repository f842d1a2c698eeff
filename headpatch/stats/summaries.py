"""The little statistics a single pair allows: how an effect compares with its controls."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

Values = Sequence[float] | Float[np.ndarray, "n"]


@dataclass(frozen=True, slots=True)
class Summary:
    """The spread of a set of values, in the values' own unit."""

    mean: float
    sd: float
    """Sample standard deviation (n - 1 in the denominator); NaN for a single value."""
    n: int
    low: float
    """The smallest value."""
    high: float
    """The largest value."""


def spread(values: Values) -> Summary:
    """Mean, standard deviation, count and range, used for the random-head controls.

    Raises
    ------
    ValueError
        If there are no values, or one of them is not finite.
    """
    v = _finite("values", values)
    sd = float(v.std(ddof=1)) if v.size > 1 else float("nan")
    return Summary(float(v.mean()), sd, int(v.size), float(v.min()), float(v.max()))


def rank_of(value: float, null: Values) -> float:
    r"""Two-sided p of a value among draws from a null (effects of random heads, say).

    With n draws of which ``a`` are at least the value and ``b`` at most the value,

    .. math:: p = \min\left(1, 2 \min\left(\frac{a + 1}{n + 1}, \frac{b + 1}{n + 1}\right)\right)

    The value itself counts as one draw (the +1), so p is never 0 and, if the value does come
    from the null, P(p <= alpha) <= alpha. The null need be neither symmetric nor centred on 0.
    Ties count against the value. The smallest p that n draws can give is 2 / (n + 1).

    Raises
    ------
    ValueError
        If there are no draws, or a number is not finite.

    References
    ----------
    B. Phipson and G. K. Smyth, Permutation p-values should never be zero, Statistical
    Applications in Genetics and Molecular Biology 9 (2010).
    """
    draws = _finite("null", null)
    (x,) = _finite("value", [value])
    tail = min(int((draws >= x).sum()), int((draws <= x).sum()))
    return min(1.0, 2.0 * (tail + 1) / (draws.size + 1))


def noise_floor(nothing: Values, fast_path: float = 0.0, low_precision: float = 0.0) -> float:
    """Return the size up to which an effect is rounding, by the one definition of all analyses.

    The largest of three; an effect no larger says nothing. Same unit as the effects.

    Parameters
    ----------
    nothing
        Effects of changes that change nothing: heads patched with their own z, a stream swapped
        with itself, no edge cut, no patch replaced. What they do is rounding.
    fast_path
        How far a fast path that was used lay from plain passes in its self-check: a change that
        changes nothing may leave every bit as it was, where one that does something is rounded.
    low_precision
        Over low-precision weights, how far the largest effects of a fast path lie from those in
        float32 arithmetic, since rounding grows with the effect. Plain passes are float32
        arithmetic over any weights: for them it is 0.

    Raises
    ------
    ValueError
        If nothing was changed into itself, or a number is not finite.
    """
    largest = float(np.abs(_finite("nothing", nothing)).max())
    return float(_finite("floors", [largest, fast_path, low_precision]).max())


def _finite(name: str, values: Values) -> Float[np.ndarray, "n"]:
    v = np.asarray(values, dtype=np.float64)
    if v.ndim != 1 or v.size == 0:
        raise ValueError(f"{name} must be a non-empty list of numbers, got shape {v.shape}")
    if not np.isfinite(v).all():
        raise ValueError(f"{name} must be finite, found {v[~np.isfinite(v)][0]}")
    return v
