"""What a sweep measures of one pair: its table, and the columns of a table as tensors."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Literal

import numpy as np
import pandas as pd
from jaxtyping import Int

from headpatch.core.mean_activations import mean_z
from headpatch.core.noise_floor import floor_of
from headpatch.core.ranking import differences, ranks
from headpatch.core.session import Session
from headpatch.core.study import Study
from headpatch.core.sweep_plan import Plan
from headpatch.core.towers import Unread, change, unread
from headpatch.engine.answers import decode
from headpatch.engine.interventions import Intervention
from headpatch.engine.patching import OnOutcome, OnProgress, Outcome, ZMeans
from headpatch.heads import HeadSet
from headpatch.kinds import averages
from headpatch.present.head_columns import with_alpha, with_head_columns
from headpatch.questions.sweep.agreement import Agreed, Estimates, compare, estimate
from headpatch.stats.effects import normalized_effect

Role = Literal["head", "set", "layer", "noise floor"]
Ranking = Int[np.ndarray, "layers heads"]


@dataclass(frozen=True, eq=False)
class SweptPair:
    """What was measured of a pair.

    Attributes
    ----------
    table
        The columns of ``effects.csv``.
    noise_floor
        In logits; see `headpatch.core.noise_floor.floor_of`.
    unread
        The free control, if the vision tower was swept and has such layers.
    estimates, agreed
        What gradients estimate, if asked for, and by ``kind_direction`` how it agrees.
    """

    job: Plan
    table: pd.DataFrame
    noise_floor: float
    unread: Unread | None
    estimates: Estimates | None
    agreed: Mapping[str, Agreed]


def measure(
    session: Session,
    job: Plan,
    means: ZMeans | None = None,
    on_progress: OnProgress | None = None,
    on_outcome: OnOutcome | None = None,
    finished: Mapping[Intervention, Outcome] | None = None,
) -> SweptPair:
    """Do what is planned, but for what an earlier run has finished.

    Parameters
    ----------
    means
        For kind ``mean``; made if left out.
    on_outcome
        Called with each outcome as soon as it is known.
    finished
        Outcomes of the same study; taken as they are.
    """
    if means is None and averages([one.kind for one in job.asked]):
        means = mean_z(session, None, session.study.sweep.reference, (job.tower,))
    estimates = estimate(session, job, means) if job.approx else None
    told = on_progress, on_outcome
    outcomes = change(session, job.asked, means, *told, job.size, finished=finished)
    ranking = ranks(differences(session)) if compares(session, job) else None
    return SweptPair(
        job,
        table_of(session, job, outcomes, ranking, estimates),
        floor_of(session, outcomes, means),
        unread(session, outcomes),
        estimates,
        {} if estimates is None else compare(session, job, estimates, outcomes),
    )


def compares(session: Session, job: Plan) -> bool:
    """Whether heads have a difference in attention: the region has a share that can differ."""
    return job.tower == "lm" and session.compares


def table_of(
    session: Session,
    job: Plan,
    outcomes: Sequence[Outcome],
    ranking: Ranking | None,
    estimates: Estimates | None,
) -> pd.DataFrame:
    """Make the columns of ``effects.csv``, a row an outcome.

    Parameters
    ----------
    ranking
        Attention rank of each head, where there is one.
    estimates
        Make the last column, ``approx`` (logits), if given.
    """
    base = session.base
    asked = [one.intervention for one in outcomes]
    words = cache(lambda token: decode(session.vlm, [token]))
    table = pd.DataFrame(
        {
            "pair": session.pair.name,
            "heads": [str(one.heads) for one in asked],
            "kind": [one.kind for one in asked],
            "direction": [one.direction for one in asked],
            "positions": [one.scope for one in asked],
            "ld_with": base.ld_with,
            "ld_without": base.ld_without,
            "ld": [one.ld for one in outcomes],
            "effect": [one.effect for one in outcomes],
        }
    )
    table["normalized"] = np.nan
    for direction in ("noising", "denoising"):
        rows = table["direction"] == direction
        after = table.loc[rows, "ld"].to_numpy(dtype=np.float64)
        table.loc[rows, "normalized"] = normalized_effect(
            after, base.ld_with, base.ld_without, direction
        )
    whole = set(job.layers)
    table["role"] = [_role(one, whole) for one in asked]
    table["attention_rank"] = pd.array([rank_in(ranking, one.heads) for one in asked], "Int64")
    table["answer_before"] = [words(one.token_before) for one in outcomes]
    table["answer_after"] = [words(one.token) for one in outcomes]
    if estimates is not None:
        table["approx"] = [estimates.of(one) for one in asked]
    return with_head_columns(with_alpha(table, session.study.sweep.alpha))


def positions_of(study: Study, job: Plan) -> str:
    """Return where z is changed: a scope of the prompt, or of the vision tower's tokens."""
    return study.sweep.positions if job.tower == "lm" else study.vision.positions


def rank_in(ranking: Ranking | None, members: HeadSet) -> int | None:
    """Attention rank of a single head; a set has none."""
    if ranking is None or len(members) > 1:
        return None
    (head,) = members
    return int(ranking[head.layer, head.head])


def _role(one: Intervention, whole: set[HeadSet]) -> Role:
    if one.kind == "self":
        return "noise floor"
    if one.heads in whole:
        return "layer"
    return "head" if len(one.heads) == 1 else "set"
