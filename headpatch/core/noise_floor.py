"""How far an effect is rounding: what a run shows beside every figure."""

from collections.abc import Iterable, Sequence
from typing import Final, TypeAlias

import numpy as np
import torch
from jaxtyping import Float

from headpatch.core.session import Session
from headpatch.engine.patching import PLAIN_BATCH, Outcome, Read, ZMeans, patch
from headpatch.kinds import averages
from headpatch.stats.effects import noise_floor

MANY: Final = PLAIN_BATCH - 1
"""Effects of a run that are held against float32 arithmetic: a batch, with its untouched row."""
FEW: Final = 2
"""The same where a run measures many tokens, pairs or paths, each on its own."""
Changed: TypeAlias = tuple[Sequence[Outcome], ZMeans | None]
"""What changes of heads did, and the mean z that those of kind ``mean`` put in, if it is known."""


def floor_of(
    session: Session, outcomes: Iterable[Outcome], means: ZMeans | None = None, largest: int = MANY
) -> float:
    """Return the noise floor of changed heads, in logits; what it is, `noise_floor` says.

    `outcomes` are of all that was changed, heads patched with their own z among them; `means` was
    put in by kind ``mean``; the `largest` effects are held against float32 arithmetic where weights
    are of low precision.
    """
    (floor,) = floors_of(session, outcomes, means, largest)
    return floor


def floors_of(
    session: Session,
    outcomes: Iterable[Outcome],
    means: ZMeans | None = None,
    largest: int = MANY,
    read: Read | None = None,
) -> tuple[float, ...]:
    """Return the noise floor of LD, then that of each measure that was `read` beside it."""
    outcomes = list(outcomes)
    nothing = [one for one in outcomes if one.intervention.kind == "self"]
    return floors_over(session, nothing, [(outcomes, means)], largest, read)


def floors_over(
    session: Session,
    nothing: Sequence[Outcome],
    changed: Sequence[Changed],
    largest: int = MANY,
    read: Read | None = None,
) -> tuple[float, ...]:
    """Return the noise floors of what several mean z changed; `nothing` are null changes."""
    vision = [_is_vision(one) for outcomes, _ in changed for one in outcomes]
    fast = [0.0]
    if any(vision) and session.fast_vision is not None and session.fast_vision.exact:
        fast.append(session.fast_vision.worst)
    selves = np.array([_figures(one) for one in nothing])
    off = np.zeros(selves.shape[1])
    if not all(vision) and session.widens:
        fast.append(session.widened_off)
        if session.vlm.dtype != torch.float32:
            off = _off(session, changed, largest, read, len(off))
    return tuple(
        noise_floor(own, max(fast), low) for own, low in zip(selves.T, off.tolist(), strict=True)
    )


def _off(
    session: Session, changed: Sequence[Changed], largest: int, read: Read | None, measures: int
) -> Float[np.ndarray, " measures"]:
    """Run the largest effects again in float32 arithmetic; return how far off they were."""
    changes = [
        (one.intervention.kind, one, means)
        for outcomes, means in changed
        for one in outcomes
        if not _is_vision(one)
    ]
    # Those of which the pair alone says what was put in the heads' place; else means, if known.
    several = [each for each in changes if each[0] != "self" and not averages([each[0]])] or [
        each for each in changes if averages([each[0]]) and each[2] is not None
    ]
    chosen = sorted(several, key=lambda each: -abs(each[1].effect))[:largest]
    off = np.zeros(measures)
    for means in {id(means): means for *_, means in chosen}.values():
        low = [one for _, one, own in chosen if own is means]
        asked = [one.intervention for one in low]
        again = patch(session.vlm, session.base, asked, means, read=read)
        for one, other in zip(low, again, strict=True):
            off = np.maximum(off, np.abs(np.subtract(_figures(one), _figures(other))))
    return off


def _figures(one: Outcome) -> tuple[float, ...]:
    return one.effect, *one.read


def _is_vision(one: Outcome) -> bool:
    """Whether a vision head was among those that were changed: then no pass was widened."""
    return any(head.tower == "vision" for head in one.intervention.heads)
