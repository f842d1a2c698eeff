"""Changing every head, or every set of a list, over one pair or over many."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Unpack

import pandas as pd

from headpatch.core.ask import ask, origin, refuse_means, with_options
from headpatch.core.cost import Plan, left, opening, plan, refuse
from headpatch.core.dataset import Pairs
from headpatch.core.donors import refuse_one_pair
from headpatch.core.effects import Unread, both
from headpatch.core.mean_activations import mean_z
from headpatch.core.over_pairs import Sources
from headpatch.core.pair_units import each_unit
from headpatch.core.progress import Progress
from headpatch.core.question import Call, Files, Needs, Opened, Question, Result
from headpatch.core.ranking import differences
from headpatch.core.session import Session
from headpatch.core.study.keywords import SweepKeywords
from headpatch.core.study.study import Study
from headpatch.engine.patching import OnProgress, ZMeans
from headpatch.errors import InputError
from headpatch.heads import HeadSet
from headpatch.kinds import averages
from headpatch.models.vlm import VLM
from headpatch.pairs.manifest import Entry
from headpatch.pairs.pair import Pair
from headpatch.questions.sweep import VERB, agreement, table
from headpatch.questions.sweep.agreement import Agreed, AgreedPairs, Estimates, Gradients
from headpatch.questions.sweep.asked import Listed, announce, refuse_options
from headpatch.questions.sweep.columns import EDGES, EFFECTS, MEANS
from headpatch.questions.sweep.finished_rows import FinishedRows, keys_of, whole
from headpatch.questions.sweep.listing import extremes, named_rows, top, top_means
from headpatch.questions.sweep.view import correlation


@dataclass(frozen=True, eq=False, repr=False)
class Sweep(Result):
    """What `headpatch.sweep` found.

    Attributes
    ----------
    plan
        Of the last pair; all have the same sets.
    effects
        One row for each set × kind × direction, then those of role ``noise floor``, of every pair:
        the columns of ``effects.csv``.
    means
        Over many pairs, the columns of ``effects_mean.csv``; None of one.
    saved
        What ``sweep.pt`` holds; ``attention_data/README.md`` gives every key.
    correlations
        By ``kind_direction``: Spearman's rho, over the heads of one pair, between the difference
        in attention and the size of the effect. Empty for a list of sets, and for vision heads.
    unread
        The free control over all pairs, if the vision tower was swept and has such layers.
    agreed, approx
        How gradients' estimates agree with these effects, by ``kind_direction``, and what
        ``approx.pt`` holds, if they were asked for.
    forward_passes, widened, estimates
        Of one pair: what was still to come when it began, whether language-model heads were changed
        by widening passes, and the estimates.
    edges
        Of one pair: edges between heads, the columns of ``edges.csv``, if they were asked for.
    """

    plan: Plan
    effects: pd.DataFrame
    means: pd.DataFrame | None
    saved: table.Saved
    correlations: Mapping[str, float]
    unread: Unread | None
    agreed: Mapping[str, Agreed | AgreedPairs]
    approx: table.Saved | None
    forward_passes: float | None = None
    widened: bool | None = None
    estimates: Estimates | None = None
    edges: pd.DataFrame | None = None

    @property
    def level(self) -> float:
        """Coverage of the intervals."""
        return self.origin.context.level

    @property
    def named(self) -> pd.DataFrame:
        """The rows of the heads, sets and layers, without those of the noise floor."""
        return named_rows(self.effects)

    def top(self, count: int, layers: bool = False) -> list[dict[str, Any]]:
        """Return each direction's heads or sets with the largest (mean) effects, one dict each.

        With `layers` whole layers instead; their ``heads`` is then the layer's name.
        """
        if self.means is not None:
            return top_means(self.means, count, layers)
        return top(self.named, count, self.noise_floor or 0.0, layers)

    def largest(self) -> list[dict[str, Any]]:
        """Return the head or set with the largest (mean) effect of each kind and direction."""
        rows = self.named if self.means is None else self.means
        return extremes(rows, self.noise_floor or 0.0)

    def files(self) -> Files:
        """Return tables and tensors."""
        means = {} if self.means is None else {MEANS.file: self.means}
        approx = {} if self.approx is None else {"approx.pt": self.approx}
        edges = {} if self.edges is None else {EDGES.file: self.edges}
        return {EFFECTS.file: self.effects, **means, "sweep.pt": self.saved, **approx, **edges}

    def json(self) -> Mapping[str, Any]:
        """Return what ``--json`` prints of the sweep."""
        count, job = self.origin.study.sweep.top, self.plan
        facts: dict[str, Any] = {"tower": job.tower, "positions": self.saved["positions"]}
        if self.means is None:
            facts |= {
                "rows": len(job.asked),
                "forward_passes": self.forward_passes,
                "widened": self.widened,
                "noise_floor_over": job.noise,
                "spearman": self.correlations,
            }
        facts |= {"noise_floor": self.noise_floor, "top": self.top(count)}
        facts["largest"] = self.largest()
        if job.layers:
            facts["top_layers"] = self.top(count, layers=True)
        if self.unread is not None:
            facts["unread"] = self.saved["unread"]
        if job.approx:
            facts["approx"] = {way: one.figures() for way, one in self.agreed.items()}
        if self.edges is not None:
            facts["edges"] = self.edges
        return facts


Sweeps = Sweep
"""Over many pairs it is the same, with `Sweep.means`."""


class EveryHead(Question[Sweep]):
    """Changes every head, or every set of a list."""

    verb = VERB

    def check(self, study: Study) -> None:
        """Refuse a bad file of sets, and what gradients or edges do not go with."""
        refuse_options(study)

    def check_one(self, study: Study) -> None:
        """Refuse kinds that take z of another pair."""
        refuse_one_pair(study.sweep.kinds)

    def check_model(self, study: Study, vlm: VLM) -> None:
        """Refuse gradients, or vision heads, where the model has no such."""
        refuse(study, vlm)

    def needs(self, study: Study) -> Needs:
        """Say whose heads are changed, and where."""
        positions, vision = opening(study)
        return Needs(positions, vision, means=averages(study.sweep.kinds))

    def units(
        self, study: Study, vlm: VLM, pairs: Pair | Sequence[Entry], given: Mapping[str, Any]
    ) -> Mapping[str, str]:
        """Name the rows of each pair."""
        return keys_of(study, vlm, pairs, sets_of(study, vlm, given))

    def answer(self, opened: Opened, call: Call) -> Sweep:
        """Change every head, or every set, in every way that is asked."""
        sets = sets_of(opened.study, opened.vlm, call.given)
        if isinstance(opened, Session):
            return _of_one(opened, sets, call)
        assert isinstance(opened, Pairs)
        return _over_pairs(opened, sets, call)


QUESTION = EveryHead()


def sweep(
    session: Session | Pairs,
    sets: Iterable[HeadSet | str] | None = None,
    means: ZMeans | None = None,
    on_progress: Progress = None,
    *,
    keep: str | Path | None = None,
    **options: Unpack[SweepKeywords],
) -> Sweep:
    """Change every head, one after the other, or every set of heads, and see what each does.

    Exact for each head. At the answer position all heads together cost a few forward passes.

    Parameters
    ----------
    session
        One pair, or many of `headpatch.open_pairs`.
    sets
        ``20.18+21.14`` or a `HeadSet` each. None takes the study's file, or every single head.
    means
        For kind ``mean``, of `headpatch.mean_z`; made if left out. Many pairs have their own.
    keep
        A folder for finished rows, from which an interrupted sweep goes on.
    options
        Override `headpatch.Study.sweep`: ``kinds``, ``directions``, ``positions``, ``tower``,
        ``layers``, ``approx``, ``reference``, …; with tower ``vision``, ``positions`` is that of
        `headpatch.Study.vision`.

    Returns
    -------
    Sweep
        ``saved["normalized"]`` holds a tensor ``[layers, heads]`` for each ``kind_direction``; over
        many pairs that of the means, ``normalized_low``, … their intervals, and
        ``normalized_by_pair`` each pair's.

    Raises
    ------
    InputError
        If an option is wrong, or a set does not fit the model.

    Examples
    --------
    >>> swept = hp.sweep(session, ["20.18", "20.18+21.14"], kinds=["zero"], noise=1)
    >>> swept.named[["heads", "kind", "direction"]].values.tolist()[1]
    ['20.18+21.14', 'zero', 'noising']
    >>> bool(swept.noise_floor < 1e-4)  # logits
    True
    >>> swept = hp.sweep(pairs, ["20.18", "20.18+21.14"], kinds=["zero"], noise=1)
    >>> swept.saved["normalized_by_pair"]["zero_noising"].shape  # pairs, sets
    torch.Size([2, 2])
    """
    refuse_means(session, means)
    if means is not None and keep is not None:
        raise InputError("means, keep", "both of them", "one of them")
    session = with_options(session, {"sweep.tower": options.get("tower")})
    if session.study.sweep.tower == "vision":
        session = with_options(session, {"vision.positions": options.pop("positions", None)})
    listed = None if sets is None else list(sets)
    return ask(QUESTION, session, options, on_progress, keep, sets=listed, means=means)


def sets_of(study: Study, vlm: VLM, given: Mapping[str, Any]) -> Sequence[HeadSet] | None:
    """Return the sets that are given, or those of the study's file; None is every head alone."""
    sets = given.get("sets")
    if sets is not None:
        return [HeadSet.parse(one) if isinstance(one, str) else one for one in sets]
    if study.sweep.sets is None:
        return None
    return Listed.read(Path(study.sweep.sets)).within(vlm.stack(study.sweep.tower).grid)


def _of_one(session: Session, sets: Sequence[HeadSet] | None, call: Call) -> Sweep:
    options, name = session.study.sweep, session.pair.name
    job = plan(session, sets, options.tower)
    rows = FinishedRows(call.store, call.units)
    finished = rows.finished(name)
    to_come = left(session, job, finished)
    announce(session, to_come, len(finished), None, call)
    means = call.given.get("means")
    if means is None and averages(options.kinds):
        with call.stages("Averaging reference pairs") as advance:
            means = mean_z(session, advance, options.reference, (job.tower,))
    with call.stages("Changing heads") as advance, rows.writing(name) as add:
        swept = table.measure(session, job, means, advance, add, finished)
    where = origin(VERB, session, swept.noise_floor)
    diff = differences(session) if job.every and table.compares(session, job) else None
    saved = table.saved_of_one(session, where, job, swept, diff)
    approx, estimates = None, swept.estimates
    if estimates is not None:
        level = where.context.level
        approx = agreement.saved_of_one(job, estimates, swept.agreed, saved, level)
    correlations = {} if diff is None else {
        way: correlation(diff, effects.numpy()) for way, effects in saved["effect"].items()
    }  # fmt: skip
    edges = swept.edges
    if approx is not None and edges is not None:
        approx["edges"] = dict(edges.scores)
    rest = approx, to_come.total, session.widens, estimates
    return Sweep(
        job, swept.table, None, saved, correlations, swept.unread, swept.agreed, *rest,
        None if edges is None else edges.table, origin=where,
    )  # fmt: skip


def _over_pairs(pairs: Pairs, sets: Sequence[HeadSet] | None, call: Call) -> Sweep:
    study, survey = pairs.study, pairs.survey
    gradients, tables, floors = Gradients(survey.scenes), list[pd.DataFrame](), list[float]()
    control: Unread | None = None
    with call.stages("Changing heads") as advance:
        for swept in _each(pairs, sets, jobs := list[Plan](), call, advance):
            tables.append(swept.table)
            floors.append(swept.noise_floor)
            control = both(control, swept.unread)
            if swept.estimates is not None:
                gradients.add(swept.estimates, swept.agreed)
    job = jobs[-1]
    means, floor = table.means_over(tables, survey, study, job), max(floors)
    where = origin(VERB, pairs, floor)
    saved = table.saved_over_pairs(pairs, where, job, tables, means, control)
    agreed = gradients.agreed(study)
    approx = gradients.saved(agreed, saved) if job.approx else None
    effects = pd.concat(tables, ignore_index=True)
    return Sweep(job, effects, means, saved, {}, control, agreed, approx, origin=where)


def _each(
    pairs: Pairs,
    sets: Sequence[HeadSet] | None,
    jobs: list[Plan],
    call: Call,
    on_progress: OnProgress,
) -> Iterator[table.SweptPair]:
    """Yield what was measured of each pair; of those that are measured here add what is done.

    What is to come is said once the first of them is open.
    """
    study, survey, store, units = pairs.study, pairs.survey, call.store, call.units
    options, where = study.sweep, opening(study)
    rows, sources = FinishedRows(store, units), Sources(pairs, options, *where)
    finished = store.count if store else 0

    def measure(session: Session, advance: OnProgress) -> table.SweptPair:
        session, means = sources.of(session)
        jobs.append(plan(session, sets, options.tower))
        if len(jobs) == 1:
            announce(session, jobs[0], finished, survey, call)
        name = session.pair.name
        with rows.writing(name) as add:
            return table.measure(session, jobs[-1], means, advance, add, rows.finished(name))

    def keys() -> list[str]:
        end = whole(study)
        return [units[entry.name] + end for entry in pairs.entries]

    opened = survey.open(study, pairs.vlm, *where)
    each = each_unit(
        pairs.entries, opened, "Changing heads", keys, measure, on_progress,
        store=store if units else None, share=pairs.share, near=survey.held,
        counted=lambda swept: len(swept.table),
    )  # fmt: skip
    for entry, swept in zip(pairs.entries, each, strict=True):
        rows.forget(entry.name)  # the pair is kept as a whole
        yield swept
        del swept
    if not jobs:
        jobs.append(plan(opened(pairs.entries[-1]), sets, options.tower))
