"""Heads changed two by two: which sets are changed, and what each does in one pair of pictures.

What follows from it is said in `headpatch.questions.combine.judge`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations, product

import numpy as np
from jaxtyping import Float, Int

from headpatch.core.noise_floor import floor_of
from headpatch.core.session import Session, intervene
from headpatch.core.study import Study
from headpatch.engine.interventions import Direction, Intervention
from headpatch.engine.patching import OnProgress, ZMeans
from headpatch.errors import InputError
from headpatch.heads import Head, HeadSet
from headpatch.stats.effects import normalized_effect


@dataclass(frozen=True, eq=False)
class Plan:
    """Which sets are changed, and in which ways.

    Attributes
    ----------
    heads
        Two or more.
    sets
        Every head alone, every two together, and all together if they are more than two.
    ways
        Kind and direction.
    """

    heads: tuple[Head, ...]
    sets: tuple[HeadSet, ...]
    ways: tuple[tuple[str, Direction], ...]

    @classmethod
    def of(cls, study: Study, heads: Sequence[Head]) -> "Plan":
        """Make the plan of a study.

        Raises
        ------
        InputError
            If there are fewer than two heads.
        """
        if len(heads) < 2:
            raise InputError(
                "--heads", f"one head ({heads[0]})" if heads else "none", "two heads or more"
            )
        options = study.combine
        sets = [HeadSet.of(head) for head in heads]
        sets += [HeadSet.of(*two) for two in combinations(heads, 2)]
        if len(heads) > 2:
            sets.append(HeadSet(tuple(heads)))
        ways = product(dict.fromkeys(options.kinds), dict.fromkeys(options.directions))
        return cls(tuple(heads), tuple(sets), tuple(ways))

    @property
    def members(self) -> Int[np.ndarray, "sets heads"]:
        """Which heads belong to which set."""
        return np.array(
            [[head in members.heads for head in self.heads] for members in self.sets], int
        )


@dataclass(frozen=True, eq=False)
class Effects:
    """What every set of a plan does in one pair.

    Attributes
    ----------
    logits, normalized
        The effect on LD.
    floor
        Noise floor, in logits; see `headpatch.core.noise_floor.floor_of`.
    gap
        LD_with - LD_without.
    """

    logits: Float[np.ndarray, "ways sets"]
    normalized: Float[np.ndarray, "ways sets"]
    floor: float
    gap: float


def measure(
    session: Session,
    plan: Plan,
    means: ZMeans | None = None,
    on_progress: OnProgress | None = None,
) -> Effects:
    """Change every set of a plan, exactly.

    Parameters
    ----------
    session
        Opened with the positions of the study's ``combine``.
    means
        Needed if its kinds hold ``mean``.
    """
    options, base = session.study.combine, session.base
    scope, alpha = options.positions, options.alpha
    asked = [Intervention(one, *way, scope, alpha=alpha) for way in plan.ways for one in plan.sets]
    nothing = [
        Intervention(one, "self", direction, scope)
        for direction in dict.fromkeys(direction for _, direction in plan.ways)
        for one in plan.sets
        if len(one) in (1, len(plan.heads))
    ]
    outcomes = intervene(session, [*asked, *nothing], means, on_progress, answers_only=True)
    shape = len(plan.ways), len(plan.sets)
    normalized = [
        normalized_effect(one.ld, base.ld_with, base.ld_without, one.intervention.direction)
        for one in outcomes[: len(asked)]
    ]
    return Effects(
        np.array([one.effect for one in outcomes[: len(asked)]]).reshape(shape),
        np.array(normalized).reshape(shape),
        floor_of(session, outcomes, means),
        base.ld_with - base.ld_without,
    )
