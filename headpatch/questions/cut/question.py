"""Cutting edges of attention, over one pair or over many."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Unpack

import pandas as pd

from headpatch.core.aggregate import aggregate, answer_changed, scene_mean
from headpatch.core.ask import ask, origin
from headpatch.core.cost import passes
from headpatch.core.dataset import Pairs
from headpatch.core.edge_cuts import CutTable, Job, cost, make, named_cuts, prepare
from headpatch.core.over_pairs import each_pair
from headpatch.core.progress import Progress
from headpatch.core.question import Call, Files, Needs, Opened, Question, Result
from headpatch.core.ranking import order
from headpatch.core.session import Session
from headpatch.core.study.keywords import CutKeywords
from headpatch.core.study.study import Study
from headpatch.engine.patching import OnProgress
from headpatch.errors import RowError
from headpatch.heads import Selection
from headpatch.questions.cut import VERB
from headpatch.questions.cut.columns import CUTS, MEANS
from headpatch.questions.cut.view import summary


@dataclass(frozen=True, eq=False, repr=False)
class Cuts(Result):
    """What `headpatch.cut` found.

    Attributes
    ----------
    effects
        The columns of ``cuts.csv``: a row for each place × edge × run, of every pair.
    means
        Over many pairs, the columns of ``cuts_mean.csv``; None of one.
    forward_passes
        What the cuts of one pair cost.
    resumed
        Whether passes were resumed at the first layer that is cut, or all were whole.
    """

    effects: pd.DataFrame
    means: pd.DataFrame | None
    forward_passes: float
    resumed: bool

    @property
    def named(self) -> pd.DataFrame:
        """What was asked for, without controls."""
        return named_cuts(self.effects)

    @property
    def summary(self) -> str:
        """One line of plain words."""
        return summary(self.named if self.means is None else self.means, self.origin.context)

    def files(self) -> Files:
        """Return the tables."""
        tables = {CUTS.file: self.effects}
        return tables if self.means is None else tables | {MEANS.file: self.means}

    def json(self) -> Mapping[str, Any]:
        """Return what ``--json`` prints of the cuts."""
        return {
            "noise_floor": self.noise_floor,
            "forward_passes": self.forward_passes,
            "resumed": self.resumed,
            **{name: one for name, one in self.origin.context.facts.items() if name == "sinks"},
            "cuts": self.named if self.means is None else self.means,
            "summary": self.summary,
        }


class Cut(Question[Cuts]):
    """Cuts edges of attention."""

    verb = VERB

    def needs(self, study: Study) -> Needs:
        """Keep what passes are resumed from: the tokens after the image."""
        return Needs(positions="question", one_length=True)

    def answer(self, opened: Opened, call: Call) -> Cuts:
        """Cut every edge at every place, in both runs of every pair."""
        if isinstance(opened, Session):
            job = prepare(opened, opened.study.cut, lambda: order(opened))
            price = cost(opened, job)
            call.say(_announcement(opened, job, price, 1))
            with call.stages("Cutting edges") as advance:
                cuts = make(opened, job, advance)
            facts = _sink_facts([cuts], opened.study.cut.sink_tau)
            where = origin(VERB, opened, cuts.noise_floor, **facts)
            return Cuts(cuts.table, None, price, job.resumed, origin=where)
        assert isinstance(opened, Pairs)
        return _over_pairs(opened, call)


QUESTION = Cut()


@dataclass(frozen=True, eq=False)
class CutPair:
    """What cuts of one pair did, what they cost, and whether passes were resumed."""

    cuts: CutTable
    price: float
    resumed: bool


def _over_pairs(pairs: Pairs, call: Call) -> Cuts:
    options, by, announced = pairs.study.cut, pairs.study.rank.by, False

    def measure(session: Session, _: OnProgress) -> CutPair | str:
        """Cut edges of a pair, or say which of them it does not have."""
        nonlocal announced
        try:
            job = prepare(session, session.study.cut, lambda: pairs.survey.order(by))
        except RowError as error:
            return f"{error.argument}: {error.found}; expected {error.expected}"
        price = cost(session, job)
        if not announced:
            announced = True
            call.say(_announcement(session, job, price, len(pairs.survey.entries)))
        return CutPair(make(session, job), price, job.resumed)

    ranked = options.heads is not None and Selection.parse(options.heads).needs_ranking
    what, sections = "Cutting edges", ("cut",)
    asked = list(map(str, pairs.survey.order(by))) if ranked else None
    with call.stages(what) as advance:
        each = each_pair(
            pairs, call, what, measure, advance, sections=sections, asked=asked, whole=ranked
        )
        found = list(each)
    refused = {
        entry.name: one
        for entry, one in zip(pairs.survey.entries, found, strict=True)
        if isinstance(one, str)
    }
    pairs = replace(pairs, survey=pairs.survey.without(refused))
    measured = [one for one in found if isinstance(one, CutPair)]
    tables = [one.cuts for one in measured]
    floor, facts = max(one.noise_floor for one in tables), _sink_facts(tables, options.sink_tau)
    return Cuts(
        pd.concat([one.table for one in tables], ignore_index=True),
        _means([one.named for one in tables], pairs),
        sum(one.price for one in measured),
        all(one.resumed for one in measured),
        origin=origin(VERB, pairs, floor, **facts),
    )


def _sink_facts(cuts: Sequence[CutTable], tau: float) -> Mapping[str, Any]:
    """Say by what sinks were told, and how many each run has, on average over pairs."""
    dimensions = sorted({one for table in cuts for one in table.sink_dims})
    if not dimensions:
        return {}
    named = pd.concat([one.named for one in cuts]).dropna(subset="sinks")
    of_pair = named.drop_duplicates(["pair", "run"]).groupby("run")["sinks"].mean()
    counts = {run: float(of_pair[run]) for run in ("with", "without")}
    return {"sinks": {"dimensions": dimensions, "tau": tau, **counts}}


def cut(
    session: Session | Pairs, on_progress: Progress = None, **options: Unpack[CutKeywords]
) -> Cuts:
    """Cut attention between named positions, in windows of layers: it shows when what is read.

    Attention knockout (M. Geva et al., Dissecting Recall of Factual Associations in Auto-Regressive
    Language Models, EMNLP 2023, arXiv:2304.14767).

    Parameters
    ----------
    session
        One pair, or many of `headpatch.open_pairs`.
    options
        Override `headpatch.Study.cut`: ``edges``, ``window``, ``layers``, ``heads``, ``controls``,
        ``itself``, ``sink_dims``, ``sink_tau``.

    Returns
    -------
    Cuts
        ``named`` and ``effects`` are tables with the columns of ``cuts.csv``; over many pairs
        ``means`` has those of ``cuts_mean.csv``.

    Raises
    ------
    InputError
        If an option is wrong, or the model has no such layers, heads or positions.

    Examples
    --------
    >>> found = hp.cut(session, edges=["answer-region"], layers="10-14", controls=2)
    >>> found.named[["edge", "layers", "run"]].values.tolist()
    [['answer-region', '10-14', 'with'], ['answer-region', '10-14', 'without']]
    """
    return ask(QUESTION, session, options, on_progress)


def _means(tables: Sequence[pd.DataFrame], pairs: Pairs) -> pd.DataFrame:
    """Return the columns of ``cuts_mean.csv``."""
    study, scenes = pairs.study, pairs.survey.scenes
    means: pd.DataFrame = MEANS.ordered(
        aggregate(tables, CUTS, study, scenes).assign(
            answer_changed=answer_changed(tables, CUTS),
            control_mean=scene_mean(tables, CUTS, "control_mean", scenes),
        )
    )
    return means


def _announcement(session: Session, job: Job, price: float, pairs: int) -> str:
    """Say what is cut, how, and what it costs."""
    options, roles = session.study.cut, [cut.role for cut in job.cuts]
    places = len(dict.fromkeys(cut.place.name for cut in job.cuts))
    if options.heads is not None:
        where = f"{places:,} {'heads or sets' if places > 1 else 'head'}"
    elif options.layers is not None:
        where = f"layers {options.layers}"
    else:
        where = f"{places:,} windows of {options.window} layers"
    edges = f"{len(options.edges):,} {'edge' if len(options.edges) == 1 else 'edges'}"
    asked = f"{where} x {edges} x both runs"
    if controls := roles.count("control"):
        asked += f", {controls:,} cuts of random image tokens"
    how = "each resumed at the first layer that is cut"
    if not job.resumed:
        model = f"{session.vlm.name} ({str(session.vlm.dtype).removeprefix('torch.')})"
        how = f"each a whole pass, since those of {model} cannot be resumed halfway"
    nothing = roles.count("noise floor")
    of_all = f"{pairs:,} pairs x {len(roles):,}" if pairs > 1 else f"{len(roles):,}"
    return f"{asked} and {nothing:,} of nothing: {of_all} cuts, {how}: {passes(price * pairs)}"
