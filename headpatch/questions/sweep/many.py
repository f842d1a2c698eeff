"""What every head, or every set of a list, does to the Yes/No answer over a dataset of pairs."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

import numpy as np
import pandas as pd
import torch

from headpatch.core.aggregate import Gathered
from headpatch.core.baseline_runs import Survey
from headpatch.core.ranking import ranks
from headpatch.core.session import Session
from headpatch.core.study import Study, alpha_of
from headpatch.core.towers import Unread, both
from headpatch.core.walk import walk
from headpatch.engine.interventions import Intervention
from headpatch.engine.patching import OnOutcome, OnProgress, Outcome
from headpatch.heads import HeadSet
from headpatch.models.vlm import VLM
from headpatch.questions.sweep import one as one_pair
from headpatch.questions.sweep.approx_many import AgreedPairs, Gradients
from headpatch.questions.sweep.plan import opening
from headpatch.questions.sweep.table import (
    by_layer,
    by_way,
    extremes,
    largest,
    layer_name,
    positions_of,
    rank_in,
)


@dataclass(frozen=True, eq=False)
class Sweeps:
    """What `sweep` found.

    Attributes
    ----------
    plan
        Of the last pair; all have the same sets.
    means
        One row for each set × kind × direction: the columns of ``effects_mean.csv``.
    saved
        What ``sweep.pt`` holds: the means under the names that a sweep of one pair has, their
        intervals under ``…_low`` and ``…_high``, and ``normalized_by_pair`` (``[pairs, sets]``).
    noise_floor
        The largest effect, in logits, of patching a set with its own z, over all pairs.
    unread
        The free control over all pairs, if the vision tower was swept and has such layers.
    agreed
        By ``kind_direction``: how gradients' estimates agree with these effects, if asked for.
    approx
        What ``approx.pt`` holds, likewise (see `headpatch.questions.sweep.approx_many`).
    """

    plan: one_pair.Plan
    means: pd.DataFrame
    saved: dict[str, Any]
    noise_floor: float
    unread: Unread | None = None
    agreed: Mapping[str, AgreedPairs] = field(default_factory=dict)
    approx: dict[str, Any] | None = None

    def top(self, count: int, layers: bool = False) -> list[dict[str, Any]]:
        """Return each direction's heads or sets with the largest mean effects, one dict each.

        Parameters
        ----------
        layers
            Take whole layers instead; their ``heads`` is then the layer's name.
        """
        found = []
        for place, row in largest(self.means, count, layers):
            named = {"heads": layer_name(row["heads"])} if layers else {}
            found.append({"place": place} | row | named)
        return found

    def largest(self) -> list[dict[str, Any]]:
        """Return the head or set with the largest mean effect of each kind and direction."""
        return extremes(self.means, self.noise_floor)


@runtime_checkable
class Keeper(Protocol):
    """Keeps finished outcomes by pair: `headpatch.questions.sweep.finished_rows.FinishedRows`."""

    def finished(self, pair: str) -> dict[Intervention, Outcome]:
        """Return what an earlier run has finished of a pair."""

    def writing(self, pair: str) -> AbstractContextManager[OnOutcome]:
        """Give a function that keeps an outcome."""


def sweep(
    study: Study,
    vlm: VLM,
    survey: Survey,
    sets: Sequence[HeadSet] | None = None,
    on_progress: OnProgress | None = None,
    on_plan: Callable[[Session, one_pair.Plan], None] | None = None,
    on_pair: Callable[[one_pair.Sweep], None] | None = None,
    keeper: Keeper | None = None,
) -> Sweeps:
    """Change every head of the study's tower, or every set, on every pair.

    Parameters
    ----------
    survey
        Of the positions of the study's ``sweep``, or of vision heads.
    sets
        None takes those of the study's file, and every head alone if it names none.
    on_plan
        Called with each pair before it is swept, and with what is planned.
    on_pair
        Called with each pair's sweep, in order; they are not kept.
    keeper
        Whose finished outcomes are taken as they are, and which gets the others.
    """
    options = study.sweep
    gathered = Gathered("effect", "normalized", *["approx"] * options.approx)
    gradients = Gradients() if options.approx else None
    floor, job, control = 0.0, None, None
    opened = walk(study, vlm, survey, options, *opening(study), on_progress)
    for session, means, advance in opened:
        name = session.pair.name
        job = one_pair.plan(session, sets, options.tower)
        if on_plan:
            on_plan(session, job)
        finished = keeper.finished(name) if keeper else {}
        with keeper.writing(name) if keeper else nullcontext() as add:
            found = one_pair.run(session, job, means, advance, add, finished)
        if on_pair:
            on_pair(found)
        gathered.add(found.named)
        if gradients is not None:
            gradients.add(found)
        floor, control = max(floor, found.noise_floor), both(control, found.unread)
        del session, found
    assert job is not None  # a survey holds pairs
    table = _with_attention(gathered.means(study), survey, job)
    saved = _saved(study, vlm, survey, job, gathered, table, floor)
    agreed = {} if gradients is None else gradients.agreed(study)
    approx = None if gradients is None else gradients.saved(agreed, saved)
    return Sweeps(job, table, saved, floor, control, agreed, approx)


def _with_attention(means: pd.DataFrame, survey: Survey, job: one_pair.Plan) -> pd.DataFrame:
    """Add each head's rank by mean attention difference; a set and a vision head have none."""
    compared = job.tower == "lm" and survey.incomparable is None
    ranking = ranks(survey.masses["diff"].mean(0)) if compared else None
    found = [
        None if ranking is None else rank_in(ranking, HeadSet.parse(str(heads)))
        for heads in means["heads"]
    ]
    return means.assign(attention_rank=pd.Series(found, dtype=object, index=means.index))


def _saved(
    study: Study,
    vlm: VLM,
    survey: Survey,
    job: one_pair.Plan,
    gathered: Gathered,
    means: pd.DataFrame,
    floor: float,
) -> dict[str, Any]:
    columns = ("normalized", "effect", *["approx"] * job.approx)
    ends = [f"{column}{end}" for column in columns for end in ("", "_low", "_high")]
    cuts = {"": by_way} | ({"layer_": by_layer} if job.layers else {})
    saved: dict[str, Any] = {}
    for prefix, cut in cuts.items():
        saved |= {f"{prefix}{name}": cut(means, name, job) for name in ends}
        each = [
            cut(gathered.keys.assign(normalized=row), "normalized", job)
            for row in gathered.values("normalized")
        ]
        saved[f"{prefix}normalized_by_pair"] = {
            way: torch.stack([one[way] for one in each]) for way in each[0]
        }
    passed = {one.entry.name: one for one in survey.gated}
    saved |= {
        "pair_names": [entry.name for entry in survey.entries],
        "heads": list(map(str, job.sets)),
        "tower": job.tower,
        "positions": positions_of(study, job),
        "noise_floor": floor,
        "level": study.pairs.level,
        "ld_with": float(np.mean([passed[entry.name].ld_with for entry in survey.entries])),
        "ld_without": float(np.mean([passed[entry.name].ld_without for entry in survey.entries])),
        "valid": survey.valid,
        "question": survey.question,
        "region_name": survey.region_name,
    }
    saved |= alpha_of(study.sweep)
    if job.every and job.tower == "lm" and survey.incomparable is None:
        diff = survey.masses["diff"].mean(0)
        saved["attention_diff"] = torch.from_numpy(diff).float()
        saved["attention_rank"] = torch.from_numpy(ranks(diff))
    if job.tower == "vision":
        saved["feature_layer"] = vlm.feature_layer
    return saved
