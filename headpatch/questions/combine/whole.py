"""Heads changed two by two, and their self-repair: the whole, on one pair or over many.

What interactions mean says `headpatch.questions.combine.judge`; what self-repair is,
`headpatch.questions.combine.selfrepair`.
"""

from collections.abc import Callable
from dataclasses import dataclass

import pandas as pd

from headpatch.core.baseline_runs import Survey
from headpatch.core.head_selection import choose, choose_heads, single_effects
from headpatch.core.mean_activations import mean_z
from headpatch.core.progress import Stages, reporting
from headpatch.core.ranking import order
from headpatch.core.session import Session
from headpatch.core.study import Study
from headpatch.engine.patching import ZMeans
from headpatch.errors import RunError
from headpatch.kinds import averages
from headpatch.models.vlm import VLM
from headpatch.questions.combine import many as combine_many
from headpatch.questions.combine import selfrepair
from headpatch.questions.combine.judge import Combinations, judge
from headpatch.questions.combine.one import Plan, measure
from headpatch.questions.combine.selfrepair import SelfRepair


@dataclass(frozen=True, eq=False)
class Combined:
    """What combining heads showed.

    Attributes
    ----------
    combinations
        Every set in every way; its ``largest(count)`` are the largest interactions.
    repair
        Direct and total effects of sets, and the parts that make the difference; None where LD
        cannot be attributed to the model's parts (`why_not` says why).
    summary
        In plain words.
    """

    combinations: Combinations
    repair: SelfRepair | None
    why_not: str
    summary: str

    @property
    def table(self) -> pd.DataFrame:
        """A row for each set × kind × direction: the columns of ``combinations.csv``."""
        return self.combinations.table

    @property
    def noise_floor(self) -> float:
        """In logits, the largest over all pairs; see `headpatch.core.noise_floor.floor_of`."""
        return self.combinations.noise_floor


def combine(
    session: Session, stages: Stages | None = None, means: ZMeans | None = None
) -> Combined:
    """Combine the study's heads on one pair of pictures.

    Parameters
    ----------
    session
        Opened with the positions of the study's ``combine``.
    stages
        Told what is done; None tells nobody.
    means
        For kind ``mean``; made if left out.

    Raises
    ------
    InputError
        If the region has no image token, the model no such heads, or there are fewer than two.
    """
    study, options, stages = session.study, session.study.combine, stages or reporting(None)
    session.check_region()
    with stages("Ranking heads by effect") as advance:
        heads = choose(
            session.vlm.lm.grid,
            options,
            lambda: single_effects(session, options.positions, advance),
            lambda: order(session),
        )
    plan = Plan.of(study, heads)
    if means is None and averages(options.kinds):
        with stages("Averaging reference pairs") as advance:
            means = mean_z(session, advance, options.reference)
    with stages("Changing heads together") as advance:
        found = judge(study, plan, [measure(session, plan, means, advance)])
    with stages("Taking passes apart") as advance:

        def repair() -> SelfRepair:
            asked = selfrepair.plan(study, found.repaired)
            return selfrepair.judge(study, [selfrepair.measure(session, asked, means, advance)])

        repaired, why_not = _where_possible(repair)
    return Combined(found, repaired, why_not, found.summary(session.valid))


def combine_pairs(study: Study, vlm: VLM, survey: Survey, stages: Stages | None = None) -> Combined:
    """Combine the study's heads on every pair of a dataset that passed the gate.

    Parameters
    ----------
    survey
        Of the positions of the study's ``combine``.

    Raises
    ------
    InputError
        As `combine`; or if there are too few pairs to pick heads on some and judge on others.
    """
    stages = stages or reporting(None)
    with stages("Ranking heads by effect") as advance:
        chosen = choose_heads(study, study.combine, study.combine.positions, vlm, survey, advance)
    with stages("Changing heads together") as advance:
        found = combine_many.run(study, vlm, survey, chosen, advance)
    with stages("Taking passes apart") as advance:
        repaired, why_not = _where_possible(
            lambda: combine_many.repair(study, vlm, survey, chosen, found.repaired, advance)
        )
    summary = found.summary(survey.valid)
    if chosen.chosen_on:
        summary += (
            f" Heads were picked on {chosen.chosen_on:,} other pairs and judged on "
            f"{len(chosen.entries):,}."
        )
    return Combined(found, repaired, why_not, summary)


def _where_possible(repair: Callable[[], SelfRepair]) -> tuple[SelfRepair | None, str]:
    """Return self-repair, or why LD cannot be attributed to the model's parts."""
    try:
        return repair(), ""
    except RunError as error:
        return None, str(error)
