"""What ``sweep.pt`` and ``effects_mean.csv`` hold, of one pair and over pairs."""

from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor

from headpatch.core.aggregate import aggregate, answer_changed
from headpatch.core.baseline_runs import Survey
from headpatch.core.dataset import Pairs
from headpatch.core.question import Opened, Origin
from headpatch.core.ranking import ranks
from headpatch.core.session import Session
from headpatch.core.study import Study, alpha_of
from headpatch.core.sweep_plan import Plan
from headpatch.core.towers import Unread
from headpatch.heads import HeadSet
from headpatch.questions.sweep.columns import EFFECTS, MEANS
from headpatch.questions.sweep.listing import named_rows
from headpatch.questions.sweep.table import SweptPair, positions_of, rank_in

Saved: TypeAlias = dict[str, Any]
"""Plain tensors, numbers and texts, as a ``.pt`` file holds them."""
Map: TypeAlias = Float[np.ndarray, "layers heads"]


def saved_of_one(session: Session, where: Origin, swept: SweptPair, diff: Map | None) -> Saved:
    """Lay out ``sweep.pt`` of one pair, see ``attention_data/README.md``.

    Parameters
    ----------
    diff
        Differences in attention, if every head was changed that has one.
    """
    return {
        **as_tensors(swept.table, ("normalized", "effect"), swept.job),
        **_attention(diff),
        "ld_with": session.base.ld_with,
        "ld_without": session.base.ld_without,
        **_facts(session, where, swept.job, swept.unread),
    }


def saved_over_pairs(
    pairs: Pairs,
    where: Origin,
    job: Plan,
    tables: Sequence[pd.DataFrame],
    means: pd.DataFrame,
    control: Unread | None,
) -> Saved:
    """Lay out ``sweep.pt`` over pairs: means, their intervals, and each pair's own.

    Parameters
    ----------
    tables
        Each pair's ``effects.csv``.
    means
        ``effects_mean.csv``.
    control
        Vision layers that are never read, over all pairs.
    """
    survey = pairs.survey
    columns = ("normalized", "effect", *["approx"] * job.approx)
    ends = [f"{column}{end}" for column in columns for end in ("", "_low", "_high")]
    each = [as_tensors(named_rows(table), ("normalized",), job) for table in tables]
    compared = job.every and job.tower == "lm" and survey.incomparable is None
    passed = {one.entry.name: one for one in survey.gated}
    ran = [passed[entry.name] for entry in survey.entries]
    return {
        **as_tensors(means, ends, job),
        **{
            f"{name}_by_pair": {way: torch.stack([one[name][way] for one in each]) for way in ways}
            for name, ways in each[0].items()
        },
        **_attention(survey.masses["diff"].mean(0) if compared else None),
        "pair_names": [entry.name for entry in survey.entries],
        "level": pairs.study.pairs.level,
        "ld_with": float(np.mean([one.ld_with for one in ran])),
        "ld_without": float(np.mean([one.ld_without for one in ran])),
        **_facts(pairs, where, job, control),
    }


def means_over(
    tables: Sequence[pd.DataFrame], survey: Survey, study: Study, job: Plan
) -> pd.DataFrame:
    """Return the columns of ``effects_mean.csv``."""
    named = [named_rows(table) for table in tables]
    means = aggregate(named, EFFECTS, study, gaps="pair")
    means["answer_changed"] = answer_changed(named, EFFECTS)
    # a share is not defined for a pair without a difference in LD
    means["pairs"] = sum(bool(np.isfinite(table["normalized"]).all()) for table in named)
    compared = job.tower == "lm" and survey.incomparable is None
    ranking = ranks(survey.masses["diff"].mean(0)) if compared else None
    found = [rank_in(ranking, HeadSet.parse(str(heads))) for heads in means["heads"]]
    means["attention_rank"] = pd.Series(found, dtype=object, index=means.index)
    return means[[column.name for column in MEANS if column.name in means]]


def _attention(diff: Float[np.ndarray, "layers heads"] | None) -> Saved:
    if diff is None:
        return {}
    return {
        "attention_diff": torch.from_numpy(diff).float(),
        "attention_rank": torch.from_numpy(ranks(diff)),
    }


def _facts(opened: Opened, where: Origin, job: Plan, unread: Unread | None) -> Saved:
    """Return what ``sweep.pt`` says beside its tensors."""
    context = where.context
    facts: Saved = {
        "heads": list(map(str, job.sets)),
        "tower": job.tower,
        "positions": positions_of(opened.study, job),
        "noise_floor": context.noise_floor,
        "valid": context.valid,
        "question": context.question,
        "region_name": context.region,
    }
    facts |= alpha_of(opened.study.sweep)
    if job.tower == "vision":
        facts["feature_layer"] = opened.vlm.feature_layer
    if unread is not None:
        facts["unread"] = vars(unread) | {"layers": list(unread.layers)}
    return facts


def as_tensors(table: pd.DataFrame, columns: Sequence[str], job: Plan) -> dict[str, Any]:
    """Cut columns into a tensor a kind and direction, those of whole layers as ``layer_…``."""
    cuts = {"": by_way} | ({"layer_": by_layer} if job.layers else {})
    return {
        f"{prefix}{column}": cut(table, column, job)
        for prefix, cut in cuts.items()
        for column in columns
    }


def by_way(table: pd.DataFrame, column: str, job: Plan) -> dict[str, Tensor]:
    """Cut a column's heads or sets into one tensor a kind and direction."""
    shape: tuple[int, ...] = (len(job.sets),)
    if job.every:
        last = job.sets[-1].heads[0]
        shape = (last.layer + 1, last.head + 1)
    return _cut(table[table["role"].isin(["head", "set"])], column, shape)


def by_layer(table: pd.DataFrame, column: str, job: Plan) -> dict[str, Tensor]:
    """Cut a column's whole layers into one tensor a kind and direction."""
    return _cut(table[table["role"] == "layer"], column, (len(job.layers),))


def _cut(table: pd.DataFrame, column: str, shape: tuple[int, ...]) -> dict[str, Tensor]:
    tensors = {}
    for (kind, direction), rows in table.groupby(["kind", "direction"], sort=False):
        values = torch.tensor(rows[column].to_numpy(dtype=np.float32))
        tensors[f"{kind}_{direction}"] = values.reshape(shape)
    return tensors
