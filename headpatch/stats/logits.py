"""What an intervention does to the Yes/No answer.

LD, the logit difference, is logit(Yes) - logit(No) at the answer position. Everything is in
logits except the normalized effect, which has no unit. Floats give a float, arrays an array.
"""

from typing import Literal, TypeAlias, overload

import numpy as np
from jaxtyping import Float

Direction = Literal["noising", "denoising"]
"""noising: the base is the with-run (is the head necessary?); denoising: the base is the
without-run and z comes from the with-run (is it sufficient?)."""

Array: TypeAlias = Float[np.ndarray, "..."]

NEITHER_BELOW, DOUBTFUL_BELOW = 0.01, 0.5
"""P(Yes) + P(No) below which a run answers with neither, and below which its reader is told."""


@overload
def logit_difference(yes: float, no: float) -> float: ...
@overload
def logit_difference(yes: Array, no: Array) -> Array: ...
def logit_difference(yes: float | Array, no: float | Array) -> float | Array:
    """LD = logit(Yes) - logit(No), in logits; positive where the answer is Yes.

    Differences are taken in float64: two half-precision logits near 20 are 0.016 apart at best.
    """
    return _exact(yes) - _exact(no)


@overload
def effect(ld: float, ld_base: float) -> float: ...
@overload
def effect(ld: Array, ld_base: float | Array) -> Array: ...
def effect(ld: float | Array, ld_base: float | Array) -> float | Array:
    """Return LD_intervened - LD_base, in logits.

    Negative when the intervention pushes towards No, positive when it pushes towards Yes. Take
    the base from the same batch as the intervened row: batch shape changes low-precision logits.
    """
    return _exact(ld) - _exact(ld_base)


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
    """Express the effect as a fraction of the whole difference between the two runs.

    noising: ``(LD_with - LD) / (LD_with - LD_without)``; denoising:
    ``(LD - LD_without) / (LD_with - LD_without)``. 0 = nothing happened, 1 = the intervention
    carries the whole difference, negative = the other way (inhibitory), above 1 = overshoot.

    Parameters
    ----------
    ld
        LD after the intervention, in logits.
    ld_with, ld_without
        LD of the two untouched runs, in logits.
    direction
        Which run was the base.

    Returns
    -------
    No unit. NaN where LD_with == LD_without, for which it is not defined: one such pair among
    many must not end the study, and a NaN is not mistaken for a finding.

    Raises
    ------
    ValueError
        If direction is neither word.
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
