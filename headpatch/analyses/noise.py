"""How far an effect is rounding: what a run shows beside every figure."""

from collections.abc import Iterable

import numpy as np
import torch

from headpatch.analyses.session import Session
from headpatch.engine.patching import Outcome
from headpatch.measures.stats import noise_floor


def floor_of(session: Session, outcomes: Iterable[Outcome]) -> float:
    """Return the noise floor of a run, in logits.

    The largest effect of patching heads with their own z. Over low-precision weights that shows
    too little: the widening pass computes rows as deviations from the untouched run, and a patch
    that changes nothing deviates by nothing. There the floor is at least the largest difference
    between that pass and float32 arithmetic on the heads of the self-check.
    """
    selves = [one.effect for one in outcomes if one.intervention.kind == "self"]
    floor = noise_floor(np.array(selves))
    if session.fast is None or not session.widens or session.vlm.dtype == torch.float32:
        return floor
    return max(floor, session.fast.worst)
