"""Heads changed two by two, and their self-repair, on one pair of pictures or over many."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeAlias, TypeVar, Unpack

import numpy as np
import pandas as pd

from headpatch.core.ask import ask, origin, refuse_means
from headpatch.core.cost import inexact, widened
from headpatch.core.dataset import Pairs
from headpatch.core.head_selection import (
    Heads,
    check_candidates,
    choose,
    choose_heads,
    named,
    ranking_price,
    single_effects,
)
from headpatch.core.mean_activations import mean_z
from headpatch.core.outlook import Stage
from headpatch.core.over_pairs import Sources, each_pair, hangs_on_all
from headpatch.core.progress import Progress
from headpatch.core.question import Call, Files, Needs, Opened, Question, Result
from headpatch.core.ranking import order
from headpatch.core.session import Session
from headpatch.core.study.keywords import CombineKeywords
from headpatch.core.study.study import Study
from headpatch.engine.interventions import Intervention
from headpatch.engine.patching import OnProgress, ZMeans
from headpatch.errors import RunError
from headpatch.heads import HeadSet
from headpatch.kinds import averages
from headpatch.models.vlm import VLM
from headpatch.pairs.manifest import Entry
from headpatch.pairs.pair import Pair
from headpatch.questions.combine import VERB, selfrepair
from headpatch.questions.combine.columns import COMBINATIONS, PARTS, REPAIR
from headpatch.questions.combine.effects import Combinations, Effects, Plan, changes, judge, measure
from headpatch.questions.combine.selfrepair import Repairs, SelfRepair
from headpatch.questions.combine.view import summary
from headpatch.stats.scenes import Scenes

Measured = TypeVar("Measured")
Work: TypeAlias = Callable[[Session, ZMeans | None, OnProgress], Measured]
"""What is done to one pair, given the mean z that its kinds need."""
Each: TypeAlias = Callable[[str, Work[Any], Sequence[HeadSet]], list[Any]]
"""Does some work, by its name, on every pair; it hangs on the sets that are named."""


@dataclass(frozen=True, eq=False, repr=False)
class Combined(Result):
    """What combining heads showed, on one pair of pictures or over many.

    Attributes
    ----------
    combinations
        Every set in every way; its ``largest(count)`` are the largest interactions.
    repair
        Direct and total effects of sets, and the parts that make the difference: ``table`` and
        ``parts``. None where LD cannot be attributed to the model's parts (`why_not` says why).
    """

    combinations: Combinations
    repair: SelfRepair | None
    why_not: str

    @property
    def table(self) -> pd.DataFrame:
        """A row for each set × kind × direction: the columns of ``combinations.csv``."""
        return self.combinations.table

    @property
    def summary(self) -> str:
        """In plain words."""
        return summary(self.table, self.origin.context)

    def files(self) -> Files:
        """Return the tables."""
        tables = {COMBINATIONS.file: self.table.assign(word=self.table["word"].fillna(""))}
        if self.repair is not None:
            tables |= {REPAIR.file: self.repair.table, PARTS.file: self.repair.parts}
        return tables

    def json(self) -> Mapping[str, Any]:
        """Return what ``--json`` prints: every set, the largest interactions, and self-repair."""
        content: dict[str, Any] = {
            "noise_floor": self.noise_floor,
            "combinations": self.table,
            "largest": self.combinations.largest(self.origin.study.combine.listed),
        }
        if self.repair is not None:
            content |= {"selfrepair": self.repair.table, "selfrepair_parts": self.repair.parts}
        return content | {"summary": self.summary}


CombinedPairs = Combined


class Combine(Question[Combined]):
    """Changes heads two by two."""

    verb = VERB

    def needs(self, study: Study) -> Needs:
        """Change heads at the study's positions; pairs of a dataset are opened one by one."""
        means = averages(study.combine.kinds)
        return Needs(study.combine.positions, hold=False, means=means)

    def check_model(self, study: Study, vlm: VLM) -> None:
        """Refuse heads that the model does not have."""
        check_candidates(vlm.lm.grid, study.combine)

    def price(self, study: Study, vlm: VLM, pairs: Pair | Sequence[Entry]) -> list[Stage]:
        """Count the sets of the heads that are chosen; they are judged on half of several pairs."""
        options, many = study.combine, 1 if isinstance(pairs, Pair) else len(pairs)
        heads, stages = ranking_price(study, vlm, options, pairs)
        ways = len(set(options.kinds)) * len(set(options.directions))
        judged = many // 2 if stages and many > 1 else many
        rows = (heads + heads * (heads - 1) // 2 + 1) * ways * judged
        passes = widened(study, vlm, pairs, rows, options.positions)
        changed = Stage("Changing heads together", rows, passes)
        apart = (heads + 3) * ways * judged  # each alone, the first interactions, and all
        return [*stages, changed, Stage("Taking passes apart", apart, float(apart))]

    def answer(self, opened: Opened, call: Call) -> Combined:
        """Change every head, every two and all together, and take passes apart."""
        study = opened.study
        if isinstance(opened, Session):
            plan, each = _one_pair(opened, call)
            scenes = np.zeros(1, dtype=np.int64)
        else:
            plan, each, scenes = _many(opened, call)
        measured = each("Changing heads together", _measure(plan), plan.sets)
        combinations = judge(study, plan, measured, scenes)
        asked = changes(study, combinations.repaired)
        repairs = each("Taking passes apart", _take_apart(asked), combinations.repaired)
        repair, why_not = None, next((one for one in repairs if isinstance(one, str)), "")
        if why_not:
            call.say(f"self-repair is left out: {why_not}")
        else:
            taken = [one for one in repairs if isinstance(one, Repairs)]
            repair = selfrepair.judge(study, taken, scenes)
        where = origin(VERB, opened, combinations.noise_floor)
        return Combined(combinations, repair, why_not, origin=where)


def _measure(plan: Plan) -> Work[Effects]:
    return lambda session, means, advance: measure(session, plan, means, advance)


def _take_apart(asked: Sequence[Intervention]) -> Work[Repairs | str]:
    def apart(session: Session, means: ZMeans | None, advance: OnProgress) -> Repairs | str:
        """Take passes apart, or say why that cannot be."""
        try:
            return selfrepair.measure(session, asked, means, advance)
        except RunError as error:
            return str(error)

    return apart


QUESTION = Combine()


def combine(
    session: Session | Pairs,
    heads: Heads | None = None,
    means: ZMeans | None = None,
    on_progress: Progress = None,
    **options: Unpack[CombineKeywords],
) -> Combined:
    """Change heads two by two, to see whether they stand in for or need each other.

    Then self-repair: what heads write straight to the logits against what follows when they are
    changed (T. McGrath et al., The Hydra Effect, 2023, arXiv:2307.15771; C. Rushing and N. Nanda,
    Explorations of Self-Repair in Language Models, ICML 2024, arXiv:2402.15390).

    Parameters
    ----------
    session
        One pair, or many of `headpatch.open_pairs`. Over many, heads that a ranking picks are
        picked on one half of the pairs and judged on the other.
    heads
        Two or more. None takes the study's, or the first of its rankings.
    means
        For kind ``mean``, of `headpatch.mean_z`; made if left out. Not for many pairs: theirs is
        their own mean.
    options
        Override `headpatch.Study.combine`: ``top``, ``by``, ``kinds``, ``directions``,
        ``positions``, …

    Returns
    -------
    Combined
        ``table`` has the columns of ``combinations.csv``, and ``summary`` says it in words.

    Raises
    ------
    InputError
        If an option is wrong, the model has no such heads, or there are fewer than two; or too few
        pairs to pick heads on some and judge them on others.

    Examples
    --------
    >>> found = hp.combine(session, "20.18,21.14,23.9")
    >>> int((found.table["role"] == "pair").sum())  # 3 pairs × 2 directions
    6
    >>> found.repair.table[["heads", "direct", "total", "repair"]].shape[1]
    4
    """
    refuse_means(session, means)
    return ask(QUESTION, session, {**options, **named(heads)}, on_progress, means=means)


def _one_pair(session: Session, call: Call) -> tuple[Plan, Each]:
    """Return what is changed, and what runs the pair with the mean z that its kinds need."""
    session.check_region()
    if words := inexact(session):
        call.say(words)
    options, means = session.study.combine, call.given.get("means")
    with call.stages("Ranking heads by effect") as advance:
        heads = choose(
            session.vlm.lm.grid,
            options,
            lambda: single_effects(session, options.positions, advance),
            lambda: order(session),
        )
    plan = Plan.of(session.study, heads)
    if means is None and averages(options.kinds):
        with call.stages("Averaging reference pairs") as advance:
            means = mean_z(session, advance, options.reference)

    def each(name: str, work: Work[Any], _: Sequence[HeadSet]) -> list[Any]:
        with call.stages(name) as advance:
            return [work(session, means, advance)]

    return plan, each


def _many(pairs: Pairs, call: Call) -> tuple[Plan, Each, Scenes]:
    """Return what is changed, what runs the pairs on which it is judged, and their scenes."""
    options = pairs.study.combine
    with call.stages("Ranking heads by effect") as advance:
        chosen = choose_heads(pairs, call, options, advance)
    judged = replace(pairs.survey, entries=chosen.entries)
    sources = Sources(pairs, options, options.positions, False)

    def each(name: str, work: Work[Any], sets: Sequence[HeadSet]) -> list[Any]:
        def of_pair(session: Session, advance: OnProgress) -> Any:
            return work(*sources.of(session), advance)

        with call.stages(name) as advance:
            measured = each_pair(
                pairs, call, name, of_pair, advance, sections=("combine",),
                asked=list(map(str, sets)), whole=hangs_on_all(options), entries=chosen.entries,
            )  # fmt: skip
            return list(measured)

    return Plan.of(pairs.study, chosen.heads), each, judged.scenes
