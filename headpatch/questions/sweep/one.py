"""What every head, or every set of a list, does to the Yes/No answer of one pair."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, TypeAlias

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float
from scipy.stats import spearmanr
from torch import Tensor

from headpatch.core.cost import cost
from headpatch.core.mean_activations import mean_z
from headpatch.core.noise_floor import floor_of
from headpatch.core.progress import Stages, reporting
from headpatch.core.ranking import differences, ranks
from headpatch.core.session import Session, ready
from headpatch.core.study import alpha_of
from headpatch.core.towers import Unread, change, unread
from headpatch.engine.interventions import Intervention
from headpatch.engine.patching import OnOutcome, OnProgress, Outcome, ZMeans
from headpatch.heads import HeadSet
from headpatch.kinds import KINDS, averages
from headpatch.questions.sweep.approx import Agreed, Estimates, compare, estimate
from headpatch.questions.sweep.approx import saved as saved_approx
from headpatch.questions.sweep.plan import Plan, plan
from headpatch.questions.sweep.table import (
    by_layer,
    by_way,
    extremes,
    largest,
    layer_name,
    positions_of,
    table_of,
)

__all__ = ["Plan", "Sweep", "cost", "plan", "run", "sweep"]

Saved: TypeAlias = dict[str, Any]
"""Plain tensors, numbers and texts, as a ``.pt`` file holds them."""


@dataclass(frozen=True, eq=False)
class Sweep:
    """What `sweep` found.

    Attributes
    ----------
    effects
        One row for each set × kind × direction, then those of role ``noise floor``: the columns
        of ``effects.csv``.
    saved
        What ``sweep.pt`` holds; ``attention_data/README.md`` gives every key.
    noise_floor
        In logits; see `headpatch.core.noise_floor.floor_of`.
    correlations
        By ``kind_direction``: Spearman's rho, over the heads of this pair, between the difference
        in attention and the size of the effect. Empty for a list of sets, and for vision heads.
    unread
        The free control, if the vision tower was swept and has such layers.
    agreed
        By ``kind_direction``: how gradients' estimates agree with these effects, if asked for.
    estimates
        The estimates, likewise.
    level
        Coverage of the agreement's intervals.
    """

    plan: Plan
    effects: pd.DataFrame
    saved: Saved
    noise_floor: float
    correlations: dict[str, float]
    unread: Unread | None = None
    agreed: dict[str, Agreed] = field(default_factory=dict)
    estimates: Estimates | None = None
    level: float = float("nan")

    @cached_property
    def approx(self) -> Saved | None:
        """What ``approx.pt`` holds, if asked for (see `headpatch.questions.sweep.approx.saved`)."""
        if self.estimates is None:
            return None
        return saved_approx(self.plan, self.estimates, self.agreed, self.saved, self.level)

    @property
    def named(self) -> pd.DataFrame:
        """The rows of the heads, sets and layers, without those of the noise floor."""
        return self.effects[self.effects["role"] != "noise floor"].reset_index(drop=True)

    def top(self, count: int, layers: bool = False) -> list[dict[str, Any]]:
        """Return each direction's heads or sets with the largest effects, one dict each.

        Parameters
        ----------
        layers
            Take whole layers instead; their ``heads`` is then the layer's name.
        """
        named, found = self.named, []
        for place, row in largest(named, count, layers):
            heads, direction = row["heads"], row["direction"]
            own = named[(named["heads"] == heads) & (named["direction"] == direction)]
            found.append(
                {
                    "direction": direction,
                    "place": place,
                    "heads": layer_name(heads) if layers else heads,
                    "kind": row["kind"],
                    "effect": float(row["effect"]),
                    "normalized": {
                        str(kind): float(value)
                        for kind, value in own.set_index("kind")["normalized"].items()
                    },
                    "below_floor": bool(abs(row["effect"]) <= self.noise_floor),
                    "answer_before": row["answer_before"],
                    "answer_after": row["answer_after"],
                    "attention_rank": _whole(row["attention_rank"]),
                }
                | ({"alpha": float(row["alpha"])} if KINDS[row["kind"]].alpha else {})
                | ({"approx": float(row["approx"])} if "approx" in row else {})
            )
        return found

    def largest(self) -> list[dict[str, Any]]:
        """Return the head or set with the largest effect of each kind and direction."""
        return extremes(self.named, self.noise_floor)


def sweep(
    session: Session,
    sets: Sequence[HeadSet] | None = None,
    means: ZMeans | None = None,
    stages: Stages | None = None,
) -> Sweep:
    """Change every head, or every set of `sets`, in every way that the study's ``sweep`` names.

    Parameters
    ----------
    session
        Run again unless it is open for the heads and positions of the study's ``sweep``.
    means
        For kind ``mean``; made if left out.
    stages
        Told what is done; None tells nobody.
    """
    options, stages = session.study.sweep, stages or reporting(None)
    positions = options.positions if options.tower == "lm" else session.positions
    session = ready(session, positions, options.tower == "vision")
    job = plan(session, sets, options.tower)
    if means is None and averages(options.kinds):
        with stages("Averaging reference pairs") as advance:
            means = mean_z(session, advance, options.reference, (job.tower,))
    with stages("Changing heads") as advance:
        return run(session, job, means, advance)


def run(
    session: Session,
    job: Plan,
    means: ZMeans | None = None,
    on_progress: OnProgress | None = None,
    on_outcome: OnOutcome | None = None,
    finished: Mapping[Intervention, Outcome] | None = None,
) -> Sweep:
    """Do what is planned, but for what an earlier run has finished.

    Parameters
    ----------
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
    return _collect(session, job, outcomes, estimates, means)


def _collect(
    session: Session,
    job: Plan,
    outcomes: Sequence[Outcome],
    estimates: Estimates | None,
    means: ZMeans | None,
) -> Sweep:
    attention = _attention(session, job)
    ranking = None if attention is None else ranks(attention)
    table = table_of(session, job, outcomes, ranking, estimates)
    floor = floor_of(session, outcomes, means)
    saved: Saved = {
        "normalized": by_way(table, "normalized", job),
        "effect": by_way(table, "effect", job),
        "heads": list(map(str, job.sets)),
        "tower": job.tower,
        "positions": positions_of(session.study, job),
        "noise_floor": floor,
        "ld_with": session.base.ld_with,
        "ld_without": session.base.ld_without,
        "valid": session.valid,
        "question": session.pair.question,
        "region_name": session.pair.region.name,
    }
    saved |= alpha_of(session.study.sweep)
    if job.layers:
        saved |= {f"layer_{name}": by_layer(table, name, job) for name in ("normalized", "effect")}
    correlations: dict[str, float] = {}
    if job.every and attention is not None:
        saved["attention_diff"] = torch.from_numpy(attention).float()
        saved["attention_rank"] = torch.from_numpy(ranks(attention))
        correlations = {
            way: _spearman(attention, effects) for way, effects in saved["effect"].items()
        }
    if job.tower == "vision":
        saved["feature_layer"] = session.vlm.feature_layer
    agreed = dict[str, Agreed]()
    if estimates is not None:
        agreed = compare(session, job, estimates, outcomes)
    control, level = unread(session, outcomes), session.study.pairs.level
    return Sweep(job, table, saved, floor, correlations, control, agreed, estimates, level)


def _attention(session: Session, job: Plan) -> Float[np.ndarray, "layers heads"] | None:
    """Each head's attention difference, where the region has a share of it that can differ."""
    if job.tower != "lm" or not session.compares:
        return None
    return differences(session)


def _spearman(attention: Float[np.ndarray, "layers heads"], effects: Tensor) -> float:
    """Spearman's rho between attention difference and |effect|; NaN where one of them is flat."""
    sizes = effects.abs().numpy().ravel().astype(np.float64)
    looks = attention.ravel()
    if np.ptp(sizes) == 0 or np.ptp(looks) == 0:
        return float("nan")
    return float(spearmanr(looks, sizes).statistic)


def _whole(value: Any) -> int | None:
    return None if pd.isna(value) else int(value)
