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

from headpatch.analyses.cut.plan import NAMED, Asked, plan
from headpatch.analyses.cut.table import summarize, table_of
from headpatch.analyses.session import Session
from headpatch.engine.forward import Keep
from headpatch.engine.knockout import disagreement, knock_out, resume
from headpatch.engine.patching import WITH, Baseline, OnProgress, run_pair
from headpatch.engine.selfcheck import TOLERANCE
from headpatch.heads import Head
from headpatch.measures.stats import noise_floor


@dataclass(frozen=True, eq=False)
class Cuts:
    """What `cut` found.

    Attributes
    ----------
    effects
        One row for each place × edge × run; the columns of ``cuts.csv``.
    noise_floor
        The largest effect, in logits, of cutting nothing; or how far resumed passes lay from
        whole ones where they were compared, if that is more.
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
    asked = plan(session, ranking)
    base, apart = _base(session, asked)
    resumed = apart <= TOLERANCE
    run_all = resume if resumed else knock_out
    shifts = run_all(session.vlm, base, [one.knockout for one in asked], on_progress)
    table = table_of(session, asked, shifts)
    nothing_cut = table.loc[table["role"] == "noise floor", "effect"].tolist()
    floor = noise_floor([*nothing_cut, apart] if resumed else nothing_cut)
    return Cuts(table, floor, resumed, summarize(session, table, floor))


def _base(session: Session, asked: Sequence[Asked]) -> tuple[Baseline, float]:
    """Return both untouched runs with what resuming needs, and how far off resuming is.

    It is compared with whole passes on every edge, at the place in the middle.
    """
    start = min(one.knockout.start for one in asked)
    base = session.base
    if not base.trace.prefills or base.trace.prefills[WITH].start > start:
        base = run_pair(session.vlm, session.prompt, Keep(suffix=start), exact=True)
    named = [one for one in asked if one.role in NAMED and one.knockout.run == WITH]
    middle = named[len(named) // 2].place
    probes = [one.knockout for one in named if one.place == middle]
    return base, disagreement(session.vlm, base, probes)
