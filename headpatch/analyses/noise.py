"""How far an effect is rounding: what a run shows beside every figure."""

from collections.abc import Iterable, Sequence

import numpy as np
import torch

from headpatch.analyses.session import Session
from headpatch.engine.patching import PLAIN_BATCH, Outcome, patch
from headpatch.measures.stats import noise_floor


def floor_of(session: Session, outcomes: Iterable[Outcome]) -> float:
    """Return the noise floor of a run, in logits.

    The largest effect of patching heads with their own z, or the largest difference between a fast
    path that was used and the plain one in its self-check, whichever is larger: a patch that
    changes nothing may leave every bit as it was, where one that does something is rounded. Over
    low-precision weights, where the widening pass computes rows as deviations from the untouched
    run, it is also compared with float32 arithmetic on the heads with the largest effects, since
    rounding grows with the effect.
    """
    outcomes = list(outcomes)
    selves = [one.effect for one in outcomes if one.intervention.kind == "self"]
    floor = noise_floor(np.array(selves))
    widened = [
        one for one in outcomes if all(head.tower == "lm" for head in one.intervention.heads)
    ]
    fast_vision = session.fast_vision
    if len(widened) < len(outcomes) and fast_vision is not None and fast_vision.exact:
        floor = max(floor, fast_vision.worst)
    if widened and session.widens:
        floor = max(floor, session.widened_off)
        if session.vlm.dtype != torch.float32:
            floor = max(floor, _off(session, widened))
    return floor


def _off(session: Session, outcomes: Sequence[Outcome]) -> float:
    """Run the largest effects again in float32 arithmetic; return how far off they were."""
    kinds = ("zero", "resample")  # of means, not every caller has any
    same = [one for one in outcomes if one.intervention.kind in kinds]
    largest = sorted(same, key=lambda one: -abs(one.effect))[: PLAIN_BATCH - 1]
    again = patch(session.vlm, session.base, [one.intervention for one in largest])
    return max((abs(a.effect - b.effect) for a, b in zip(largest, again, strict=True)), default=0.0)
