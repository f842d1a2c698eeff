"""How far an effect is rounding: what a run shows beside every figure."""

from collections.abc import Iterable, Sequence

import numpy as np
import torch

from headpatch.analyses.session import Session
from headpatch.engine.patching import PLAIN_BATCH, Outcome, patch
from headpatch.measures.stats import noise_floor


def floor_of(session: Session, outcomes: Iterable[Outcome]) -> float:
    """Return the noise floor of a run, in logits.

    The largest effect of patching heads with their own z. Over low-precision weights that shows
    too little: the widening pass computes rows as deviations from the untouched run, and a patch
    that changes nothing deviates by nothing. There the floor is at least the largest difference
    between that pass and float32 arithmetic, on the heads of the self-check and on those with the
    largest effects, since rounding grows with the effect.
    """
    outcomes = list(outcomes)
    selves = [one.effect for one in outcomes if one.intervention.kind == "self"]
    floor = noise_floor(np.array(selves))
    if session.fast is None or not session.widens or session.vlm.dtype == torch.float32:
        return floor
    return max(floor, session.fast.worst, _off(session, outcomes))


def _off(session: Session, outcomes: Sequence[Outcome]) -> float:
    """Run the largest effects again in float32 arithmetic; return how far off they were."""
    same = [
        one
        for one in outcomes
        if one.intervention.kind in ("zero", "resample")  # of means, not every caller has any
        and all(head.tower == "lm" for head in one.intervention.heads)
    ]
    largest = sorted(same, key=lambda one: -abs(one.effect))[: PLAIN_BATCH - 1]
    again = patch(session.vlm, session.base, [one.intervention for one in largest])
    return max((abs(a.effect - b.effect) for a, b in zip(largest, again, strict=True)), default=0.0)
