"""What changed heads do on one pair, as a share of the difference between its runs."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

from headpatch.core.session import Session, intervene
from headpatch.engine.forward import Keep
from headpatch.engine.interventions import Intervention
from headpatch.engine.patching import Outcome, run_pair
from headpatch.engine.selfcheck import Checks
from headpatch.engine.vision import patch_vision
from headpatch.heads import HeadSet
from headpatch.stats.effects import normalized_effect


def noise_sets(session: Session, sets: Sequence[HeadSet]) -> Float[np.ndarray, " sets"]:
    """Return the normalized effect of noising each set, by resampling, as the verdict does."""
    positions = session.study.verdict.positions
    asked = [Intervention(one, "resample", "noising", positions) for one in sets]
    return normalized(session, intervene(session, asked, answers_only=True))


def normalized(session: Session, outcomes: Sequence[Outcome]) -> Float[np.ndarray, " outcomes"]:
    """Return the normalized effects of interventions."""
    base = session.base
    return np.array(
        [
            normalized_effect(one.ld, base.ld_with, base.ld_without, one.intervention.direction)
            for one in outcomes
        ]
    )


def noise_vision(
    session: Session, sets: Sequence[HeadSet], checks: Checks
) -> tuple[list[Outcome], float]:
    """Noise sets of vision heads by resampling, at all tokens of the tower.

    Returns what it did, and how far resumed passes that were used (`checks` say whether they may
    be) lay from whole ones, in logits.
    """
    base = run_pair(session.vlm, session.prompt, Keep(z=("vision",)), exact=True)
    asked = [Intervention(one, "resample", "noising") for one in sets]
    fast = checks.vision(session.vlm, base)
    outcomes = patch_vision(session.vlm, base, asked, resumed=fast.exact)
    return outcomes, fast.worst if fast.exact else 0.0
