"""What every head, or every set of a list, does to the Yes/No answer of one pair."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float
from scipy.stats import spearmanr
from torch import Tensor

from headpatch.analyses.approx import Agreed, Estimates, compare, estimate, unread
from headpatch.analyses.approx import saved as saved_approx
from headpatch.analyses.noise import floor_of
from headpatch.analyses.rank import differences, ranks
from headpatch.analyses.reference import mean_z
from headpatch.analyses.session import Session, intervene
from headpatch.analyses.sweep_plan import Plan, cost, plan, with_tower
from headpatch.analyses.sweep_table import by_layer, by_way, positions_of, table_of
from headpatch.engine.interventions import Intervention
from headpatch.engine.patching import PLAIN_BATCH, OnOutcome, OnProgress, Outcome, ZMeans
from headpatch.engine.vision import patch_vision
from headpatch.heads import HeadSet

__all__ = ["Plan", "Sweep", "Unread", "cost", "plan", "run", "sweep", "with_tower"]

Saved: TypeAlias = dict[str, Any]
"""Plain tensors, numbers and texts, as a ``.pt`` file holds them."""

_FIRST_KIND = ("resample", "mean", "zero")  # by which heads are sorted, if there are several


@dataclass(frozen=True)
class Unread:
    """The free control: vision layers that never reach the language model.

    Attributes
    ----------
    layers
        Those past the last one that is read.
    rows
        Interventions on nothing else.
    largest
        Largest of their effects, in logits: 0 by construction.
    """

    layers: tuple[int, ...]
    rows: int
    largest: float


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
        In logits; see `headpatch.analyses.noise.floor_of`.
    correlations
        By ``kind_direction``: Spearman's rho, over the heads of this pair, between the difference
        in attention and the size of the effect. Empty for a list of sets, and for vision heads.
    unread
        The free control, if the vision tower was swept and has such layers.
    agreed
        By ``kind_direction``: how gradients' estimates agree with these effects, if asked for.
    approx
        What ``approx.pt`` holds, likewise (see `headpatch.analyses.approx.saved`).
    """

    plan: Plan
    effects: pd.DataFrame
    saved: Saved
    noise_floor: float
    correlations: dict[str, float]
    unread: Unread | None = None
    agreed: dict[str, Agreed] = field(default_factory=dict)
    approx: Saved | None = None

    @property
    def named(self) -> pd.DataFrame:
        """The rows of the heads, sets and layers, without those of the noise floor."""
        return self.effects[self.effects["role"] != "noise floor"].reset_index(drop=True)

    @property
    def sorted_by(self) -> str:
        """The kind by which `top` sorts: resample, if it was run."""
        kinds = set(self.named["kind"])
        return next(kind for kind in _FIRST_KIND if kind in kinds)

    def top(self, count: int, layers: bool = False) -> list[dict[str, Any]]:
        """Return each direction's heads or sets with the largest effects, one dict each.

        Parameters
        ----------
        layers
            Take whole layers instead; their ``heads`` is then the layer's name.
        """
        named, first = self.named, self.sorted_by
        named = named[(named["role"] == "layer") == layers]
        names = dict(zip(map(str, self.plan.layers), map(_layer, self.plan.layers), strict=True))
        found = []
        for direction, rows in named.groupby("direction", sort=False):
            lead = rows[rows["kind"] == first].set_index("heads")
            size = (lead["effect"].abs()).sort_values(ascending=False, kind="stable")
            for place, heads in enumerate(size.index[:count], start=1):
                row = lead.loc[heads]
                own = rows[rows["heads"] == heads].set_index("kind")
                found.append(
                    {
                        "direction": direction,
                        "place": place,
                        "heads": names[heads] if layers else heads,
                        "kind": first,
                        "effect": float(row["effect"]),
                        "normalized": {
                            str(kind): float(value) for kind, value in own["normalized"].items()
                        },
                        "below_floor": bool(abs(row["effect"]) <= self.noise_floor),
                        "answer_before": row["answer_before"],
                        "answer_after": row["answer_after"],
                        "attention_rank": _whole(row["attention_rank"]),
                    }
                    | ({"approx": float(row["approx"])} if "approx" in row else {})
                )
        return found


def sweep(
    session: Session,
    sets: Sequence[HeadSet] | None = None,
    means: ZMeans | None = None,
    on_progress: OnProgress | None = None,
) -> Sweep:
    """Change every head, or every set of `sets`, in every way that the study's ``sweep`` names.

    Parameters
    ----------
    session
        Opened with the positions of the study's ``sweep``.
    means
        For kind ``mean``; made if left out.
    """
    tower = session.study.sweep.tower
    session = with_tower(session, tower)
    return run(session, plan(session, sets, tower), means, on_progress)


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
    finished = finished or {}
    outcomes = {one: finished[one] for one in job.asked if one in finished}
    left = [one for one in job.asked if one not in outcomes]
    asked = job.asked if job.approx else left
    if means is None and any(one.kind == "mean" for one in asked):
        means = mean_z(session, None, session.study.sweep.reference, (job.tower,))
    estimates = estimate(session, job, means) if job.approx else None
    start, total = len(outcomes), len(job.asked)

    def advance(done: int, _: int) -> None:
        if on_progress:
            on_progress(start + done, total)

    if job.tower == "vision":
        scope, batch = session.study.vision.positions, (job.size or PLAIN_BATCH - 1) + 1
        found = patch_vision(
            session.vlm, session.base, left, scope, means, batch, advance, on_outcome
        )
    else:
        found = intervene(session, left, means, advance, on_outcome, job.size)
    outcomes.update(zip(left, found, strict=True))
    return _collect(session, job, [outcomes[one] for one in job.asked], estimates)


def _collect(
    session: Session,
    job: Plan,
    outcomes: Sequence[Outcome],
    estimates: Estimates | None,
) -> Sweep:
    attention = _attention(session, job)
    ranking = None if attention is None else ranks(attention)
    table = table_of(session, job, outcomes, ranking, estimates)
    floor = floor_of(session, outcomes)
    saved: Saved = {
        "normalized": by_way(table, "normalized", job),
        "effect": by_way(table, "effect", job),
        "heads": list(map(str, job.sets)),
        "tower": job.tower,
        "positions": positions_of(session, job),
        "noise_floor": floor,
        "ld_with": session.base.ld_with,
        "ld_without": session.base.ld_without,
        "valid": session.valid,
        "question": session.pair.question,
        "region_name": session.pair.region.name,
    }
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
    agreed, approx = dict[str, Agreed](), None
    if estimates is not None:
        agreed = compare(session, job, estimates, outcomes)
        approx = saved_approx(session, job, estimates, agreed, saved)
    control = _unread(session, job, outcomes)
    return Sweep(job, table, saved, floor, correlations, control, agreed, approx)


def _attention(session: Session, job: Plan) -> Float[np.ndarray, "layers heads"] | None:
    """Each head's attention difference, where the image's tokens are attended to at all."""
    if job.tower != "lm" or len(session.prompt.patches.boxes) == 0:
        return None
    return differences(session)


def _unread(session: Session, job: Plan, outcomes: Sequence[Outcome]) -> Unread | None:
    sizes = [abs(one.effect) for one in outcomes if unread(session, job, one.intervention.heads)]
    last = session.vlm.feature_layer
    if not sizes or last is None:
        return None
    layers = range(last + 1, session.vlm.stack("vision").grid.layers)
    return Unread(tuple(layers), len(sizes), max(sizes))


def _layer(members: HeadSet) -> str:
    """Name a whole layer as ``headpatch ablate --heads`` does: ``layer:3``, ``layer:v3``."""
    head = members.heads[0]
    return f"layer:{str(head).partition('.')[0]}"


def _spearman(attention: Float[np.ndarray, "layers heads"], effects: Tensor) -> float:
    """Spearman's rho between attention difference and |effect|; NaN where one of them is flat."""
    sizes = effects.abs().numpy().ravel().astype(np.float64)
    looks = attention.ravel()
    if np.ptp(sizes) == 0 or np.ptp(looks) == 0:
        return float("nan")
    return float(spearmanr(looks, sizes).statistic)


def _whole(value: Any) -> int | None:
    return None if pd.isna(value) else int(value)
