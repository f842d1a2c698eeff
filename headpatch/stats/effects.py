"""What an intervention does to the Yes/No answer of one pair, and how that compares with controls.

LD, the logit difference, is logit(Yes) - logit(No) at the answer position, in logits.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias, overload

import numpy as np
from jaxtyping import Float

Direction = Literal["noising", "denoising"]
"""noising: the base is the with-run (is the head necessary?); denoising: the base is the
without-run and z comes from the with-run (is it sufficient?)."""

Array: TypeAlias = Float[np.ndarray, "..."]
Values = Sequence[float] | Float[np.ndarray, "n"]

NEITHER_BELOW, DOUBTFUL_BELOW = 0.01, 0.5
"""P(Yes) + P(No) below which a run answers with neither, and below which its reader is told."""


@overload
def normalized_effect(
    ld: float, ld_with: float, ld_without: float, direction: Direction
) -> float: ...
@overload
def normalized_effect(
    ld: Array, ld_with: float | Array, ld_without: float | Array, direction: Direction
) -> Array: ...
def normalized_effect(
    ld: float | Array, ld_with: float | Array, ld_without: float | Array, direction: Direction
) -> float | Array:
    """Express the effect as a fraction of the whole difference between the two runs, in float64.

    noising: ``(LD_with - LD) / (LD_with - LD_without)``; denoising: ``(LD - LD_without) / (LD_with
    - LD_without)``. 0 = nothing happened, 1 = the intervention carries the whole difference,
    negative = the other way (inhibitory), above 1 = overshoot.

    NaN where LD_with == LD_without, for which it is not defined: one such pair among many must not
    end the study, and a NaN is not mistaken for a finding.
    """
    after, present, absent = _exact(ld), _exact(ld_with), _exact(ld_without)
    if direction == "noising":
        moved = present - after
    elif direction == "denoising":
        moved = after - absent
    else:
        raise ValueError(f"direction must be 'noising' or 'denoising', got {direction!r}")
    gap = present - absent
    defined = gap != 0
    ratio: float | Array = np.where(defined, moved / np.where(defined, gap, 1.0), np.nan)[()]
    return ratio


def _exact(value: float | Array) -> float | Array:
    return value.astype(np.float64) if isinstance(value, np.ndarray) else value


@dataclass(frozen=True, slots=True)
class Summary:
    """Spread of n values in their unit; sd has n - 1 in its denominator, NaN for one value."""

    mean: float
    sd: float
    n: int
    low: float
    high: float


def spread(values: Values) -> Summary:
    """Summarize finite values, such as effects of random heads."""
    v = _finite("values", values)
    sd = float(v.std(ddof=1)) if v.size > 1 else float("nan")
    return Summary(float(v.mean()), sd, int(v.size), float(v.min()), float(v.max()))


def rank_of(value: float, null: Values) -> float:
    r"""Two-sided p of a value among draws from a null (effects of random heads, say).

    With n draws of which ``a`` are at least the value and ``b`` at most the value,

    .. math:: p = \min\left(1, 2 \min\left(\frac{a + 1}{n + 1}, \frac{b + 1}{n + 1}\right)\right)

    The value itself counts as one draw (the +1), so p is never 0 and, if the value does come from
    the null, P(p <= alpha) <= alpha (B. Phipson and G. K. Smyth, Permutation p-values should never
    be zero, Statistical Applications in Genetics and Molecular Biology 9, 2010). The null need be
    neither symmetric nor centred on 0. Ties count against the value. The smallest p is 2 / (n + 1).
    """
    draws = _finite("null", null)
    (x,) = _finite("value", [value])
    tail = min(int((draws >= x).sum()), int((draws <= x).sum()))
    return min(1.0, 2.0 * (tail + 1) / (draws.size + 1))


def noise_floor(nothing: Values, fast_path: float = 0.0, low_precision: float = 0.0) -> float:
    """Return the size up to which an effect is rounding, by the one definition of all analyses.

    The largest of three, in the effects' unit. `nothing`: effects of changes that change nothing
    (heads patched with their own z, a stream swapped with itself, no edge cut, no patch replaced).
    `fast_path`: how far a fast path that was used lay from plain passes in its self-check, since a
    change that changes nothing may leave every bit as it was, where one that does something is
    rounded. `low_precision`: over low-precision weights, how far the largest effects of a fast path
    lie from those in float32 arithmetic, since rounding grows with the effect; 0 for plain passes.
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
