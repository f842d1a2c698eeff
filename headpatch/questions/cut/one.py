"""What cutting attention between named positions does to the answer of one pair.

Attention knockout: queries no longer see keys, and what attention they have left is renormalised.
Over the layers it is done in windows around each layer, as in M. Geva, J. Bastings, K. Filippova
and A. Globerson, Dissecting Recall of Factual Associations in Auto-Regressive Language Models
(EMNLP 2023, arXiv:2304.14767): all heads of the window's layers at once. Here a window starts
window // 2 layers before its centre, and is clipped at both ends of the model.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import pandas as pd

from headpatch.core.session import Session
from headpatch.engine.forward import Keep
from headpatch.engine.knockout import disagreement, knock_out, resume
from headpatch.engine.patching import WITH, Baseline, OnProgress, run_pair
from headpatch.engine.selfcheck import TOLERANCE
from headpatch.heads import Head
from headpatch.questions.cut.plan import NAMED, Asked, plan
from headpatch.questions.cut.price import cost
from headpatch.questions.cut.table import summarize, table_of
from headpatch.stats.summaries import noise_floor


@dataclass(frozen=True, eq=False)
class Job:
    """What `cut` is going to do, and how.

    Attributes
    ----------
    asked
        Every cut.
    base
        Both untouched runs, with what resuming needs.
    apart
        How far resumed passes lay from whole ones where they were compared, in logits; infinite
        where passes cannot be resumed.
    """

    asked: tuple[Asked, ...]
    base: Baseline
    apart: float

    @property
    def resumed(self) -> bool:
        """Whether passes are resumed at the first layer that is cut, or all are whole."""
        return self.apart <= TOLERANCE

    def passes(self, session: Session) -> float:
        """Return what the cuts cost, in forward passes of the prompt."""
        return cost(session, self.base, [one.knockout for one in self.asked], self.resumed)


@dataclass(frozen=True, eq=False)
class Cuts:
    """What `cut` found.

    Attributes
    ----------
    effects
        One row for each place × edge × run; the columns of ``cuts.csv``.
    noise_floor
        In logits; see `headpatch.stats.summaries.noise_floor`. The fast path are passes that are
        resumed at the first layer that is cut; over low-precision weights there are none.
    resumed
        Whether passes were resumed at the first layer that is cut, or all were whole.
    summary
        One line of plain words.
    """

    effects: pd.DataFrame
    noise_floor: float
    resumed: bool
    summary: str

    @property
    def named(self) -> pd.DataFrame:
        """What was asked for, without controls."""
        return self.effects[self.effects["role"].isin(NAMED)].reset_index(drop=True)


def cut(
    session: Session,
    ranking: Callable[[], Sequence[Head]] = tuple,
    on_progress: OnProgress | None = None,
) -> Cuts:
    """Cut every edge of the study at every place, in both runs.

    Where an edge names the region, the same is done with random image tokens outside it, as many
    as the region has, in the region's place.

    Parameters
    ----------
    ranking
        Gives the heads by attention, if the study's heads hold ``top:N``.

    Raises
    ------
    InputError
        If the model has no such layers or heads, or the prompt no such positions.
    """
    return run(session, prepare(session, ranking), on_progress)


def run(session: Session, job: Job, on_progress: OnProgress | None = None) -> Cuts:
    """Do what is prepared; see `cut`."""
    run_all = resume if job.resumed else knock_out
    knockouts = [one.knockout for one in job.asked]
    shifts = run_all(session.vlm, job.base, knockouts, on_progress)
    table = table_of(session, job.asked, shifts)
    nothing_cut = table.loc[table["role"] == "noise floor", "effect"].tolist()
    floor = noise_floor(nothing_cut, job.apart if job.resumed else 0.0)
    return Cuts(table, floor, job.resumed, summarize(session, table, floor))


def prepare(session: Session, ranking: Callable[[], Sequence[Head]] = tuple) -> Job:
    """List every cut, and compare resumed passes with whole ones; see `cut`.

    On every edge, at the place in the middle.
    """
    asked = plan(session, ranking)
    start = min(one.knockout.start for one in asked)
    base = session.base
    if not base.trace.prefills or base.trace.prefills[WITH].start > start:
        base = run_pair(session.vlm, session.prompt, Keep(suffix=start), exact=True)
    named = [one for one in asked if one.role in NAMED and one.knockout.run == WITH]
    middle = named[len(named) // 2].place
    probes = [one.knockout for one in named if one.place == middle]
    return Job(tuple(asked), base, disagreement(session.vlm, base, probes))
