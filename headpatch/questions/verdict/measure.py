"""Measuring one pair for a verdict: every head, sets of heads, nulls, whole vision layers."""

from itertools import product

import numpy as np
from jaxtyping import Float

from headpatch.core.noise_floor import FEW, floor_of
from headpatch.core.pair_measurements import noise_vision, normalized
from headpatch.core.ranking import differences
from headpatch.core.session import Session, checked, intervene, run_both
from headpatch.engine.attribution import attribute, gradients
from headpatch.engine.interventions import Direction, Intervention, refused, whole_layers
from headpatch.engine.patching import ZMeans
from headpatch.engine.selfcheck import Checks
from headpatch.heads import HeadSet
from headpatch.pairs.pair import Pair
from headpatch.questions.verdict.counterfactual_questions import mirrored, wrong_place
from headpatch.questions.verdict.pair_record import (
    DIRECTIONS,
    KINDS,
    Other,
    PairRecord,
    PerHead,
    Task,
)


def measure(
    session: Session, task: Task, means: ZMeans, checks: Checks, rng: np.random.Generator
) -> PairRecord:
    """Sweep every head, both directions, and do what else the task asks.

    Parameters
    ----------
    session
        Opened with the positions of the study's ``verdict``.
    rng
        Draws the heads that are patched with their own z.
    """
    options, base = session.study.verdict, session.base
    singles = [HeadSet.of(head) for head in session.vlm.lm.grid]
    ways = list(product(KINDS, DIRECTIONS))

    def changed(members: HeadSet, kind: str, direction: Direction) -> Intervention:
        return Intervention(members, kind, direction, options.positions)

    asked = [changed(one, kind, direction) for kind, direction in ways for one in singles]
    asked += [changed(one, "resample", "noising") for one in task.sets]
    drawn = rng.choice(len(singles), size=min(options.noise, len(singles)), replace=False)
    own = [changed(singles[i], "self", direction) for direction in DIRECTIONS for i in drawn]
    outcomes = intervene(session, [*asked, *own], means, answers_only=True)
    checked(session, checks)  # the same pair asked otherwise is as long
    nowhere = np.zeros(0), float("nan"), 0.0
    vision, unread, off = _vision(session, checks) if task.vision else nowhere
    shape = (session.vlm.lm.grid.layers, session.vlm.lm.grid.heads)
    found = normalized(session, outcomes[: len(asked)])
    swept = found[: len(ways) * len(singles)].reshape(len(ways), *shape)
    return PairRecord(
        name=session.pair.name,
        ld_with=base.ld_with,
        ld_without=base.ld_without,
        effects={f"{kind}_{way}": swept[i] for i, (kind, way) in enumerate(ways)},
        floor=max(floor_of(session, outcomes, means, FEW), off),
        nothing=max(session.widened_off, *(abs(one.effect) for one in outcomes[len(asked) :])),
        sets=found[len(ways) * len(singles) :],
        attribution=_attributed(session) if task.attribution else {},
        vision=vision,
        unread=unread,
        wrong_place=_otherwise(session, wrong_place(session.pair), checks) if task.nulls else None,
        mirrored=_otherwise(session, mirrored(session.pair), checks) if task.nulls else None,
        widened=session.widens,
    )


def _attributed(session: Session) -> dict[str, PerHead]:
    """Estimate the normalized effect of resampling every head, from one backward pass."""
    base = session.base
    pair = gradients(session.vlm, session.prompt, ("lm",))
    where = session.prompt.spans.positions(session.study.verdict.positions)
    gap = base.ld_with - base.ld_without
    towards = {"noising": -gap, "denoising": gap}
    found: dict[str, PerHead] = {}
    for direction in DIRECTIONS:
        effect = attribute(pair, "resample", direction)["lm"][..., where].sum(-1)
        found[direction] = effect.cpu().numpy().astype(np.float64) / towards[direction]
    return found


def _vision(
    session: Session, checks: Checks
) -> tuple[Float[np.ndarray, " vision_layers"], float, float]:
    """Noise all heads of each vision layer; the layers beyond the last that is read do nothing.

    Returns
    -------
    Normalized effects; the largest of the layers that are not read; and how far the resumed passes
    that were used lay from whole ones where they were compared. Both in logits.
    """
    if refused(session.vlm):
        return np.zeros(0), float("nan"), 0.0
    found, off = noise_vision(session, whole_layers(session.vlm), checks)
    last = session.vlm.feature_layer
    beyond = [] if last is None else found[last + 1 :]
    unread = max((abs(one.effect) for one in beyond), default=float("nan"))
    return normalized(session, found), unread, off


def _otherwise(session: Session, pair: Pair | None, checks: Checks) -> Other | None:
    """Run the pair asked otherwise, and resample every head."""
    if pair is None:
        return None
    study = session.study
    other = run_both(study, session.vlm, pair, study.verdict.positions)
    other = checked(other, checks)
    grid = session.vlm.lm.grid
    asked = [
        Intervention(HeadSet.of(head), "resample", direction, study.verdict.positions)
        for direction in DIRECTIONS
        for head in grid
    ]
    outcomes = intervene(other, asked, answers_only=True)
    effects = np.array([one.effect for one in outcomes])
    noising, denoising = effects.reshape(2, grid.layers, grid.heads)
    base = other.base
    return Other(base.ld_with, base.ld_without, differences(other), noising, denoising)
