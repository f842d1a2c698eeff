"""What a sweep measures of one pair; tables and tensors of it, and over pairs."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, TypeAlias

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float, Int

from headpatch.core.aggregate import aggregate, answer_changed
from headpatch.core.baseline_runs import Survey
from headpatch.core.cost import Plan
from headpatch.core.dataset import Pairs
from headpatch.core.effects import Unread, change, floor_of, unread
from headpatch.core.mean_activations import mean_z
from headpatch.core.measures import places
from headpatch.core.question import Opened, Origin
from headpatch.core.ranking import ranks
from headpatch.core.session import Session
from headpatch.core.study.options import alpha_of
from headpatch.core.study.study import Study
from headpatch.engine.answers import decode
from headpatch.engine.interventions import Intervention
from headpatch.engine.patching import OnOutcome, OnProgress, Outcome, ZMeans
from headpatch.heads import HeadSet
from headpatch.kinds import averages
from headpatch.present.head_columns import with_alpha, with_donor, with_head_columns
from headpatch.questions.sweep.agreement import Agreed, Estimates, compare, estimate, estimators
from headpatch.questions.sweep.columns import EFFECTS, MEANS
from headpatch.questions.sweep.edges import Edges, edges_of
from headpatch.questions.sweep.listing import named_rows
from headpatch.stats.effects import normalized_effect
from headpatch.stats.scenes import by_scene

Map: TypeAlias = Float[np.ndarray, "layers heads"]
Ranking: TypeAlias = Int[np.ndarray, "layers heads"]
Saved: TypeAlias = dict[str, Any]
"""Plain tensors, numbers and texts, as a ``.pt`` file holds them."""


@dataclass(frozen=True, eq=False)
class SweptPair:
    """What was measured of a pair; `table` has the columns of ``effects.csv``."""

    table: pd.DataFrame
    noise_floor: float  # logits
    unread: Unread | None
    estimates: Estimates | None  # if asked for
    agreed: Mapping[str, Agreed]  # by kind_direction
    edges: Edges | None = None  # if asked for


def measure(
    session: Session,
    job: Plan,
    means: ZMeans | None = None,
    on_progress: OnProgress | None = None,
    on_outcome: OnOutcome | None = None,
    finished: Mapping[Intervention, Outcome] | None = None,
) -> SweptPair:
    """Do what is planned, but for what an earlier run of the same study has finished.

    `means` are for kind ``mean``, made if left out; `on_outcome` gets each outcome as soon as it
    is known.
    """
    if means is None and averages([one.kind for one in job.asked]):
        means = mean_z(session, None, session.study.sweep.reference, (job.tower,))
    estimates = estimate(session, job, means) if job.approx else None
    told = on_progress, on_outcome
    outcomes = change(session, job.asked, means, *told, job.size, finished=finished)
    ranking = ranks(session) if compares(session, job) else None
    return SweptPair(
        _table(session, job, outcomes, ranking, estimates),
        floor_of(session, outcomes, means),
        unread(session, outcomes),
        estimates,
        {} if estimates is None else compare(session, job, estimates, outcomes),
        edges_of(session) if session.study.sweep.edges is not None else None,
    )


def compares(session: Session, job: Plan) -> bool:
    """Whether heads have a difference in attention: the region has a share that can differ."""
    return job.tower == "lm" and session.compares


def _table(
    session: Session,
    job: Plan,
    outcomes: Sequence[Outcome],
    ranking: Ranking | None,
    estimates: Estimates | None,
) -> pd.DataFrame:
    base, asked = session.base, [one.intervention for one in outcomes]
    layers = set(job.layers)
    words = cache(lambda token: decode(session.vlm, [token]))
    directions, ld = [one.direction for one in asked], np.array([one.ld for one in outcomes])
    noised, restored = (
        normalized_effect(ld, base.ld_with, base.ld_without, direction)
        for direction in ("noising", "denoising")
    )
    columns: dict[str, Any] = {
        "pair": session.pair.name,
        "heads": [str(one.heads) for one in asked],
        "kind": [one.kind for one in asked],
        "direction": directions,
        "positions": [one.scope for one in asked],
        "ld_with": base.ld_with,
        "ld_without": base.ld_without,
        "ld": ld,
        "effect": [one.effect for one in outcomes],
        "normalized": np.where(np.array(directions) == "noising", noised, restored),
        "role": [_role(one, layers) for one in asked],
        "attention_rank": pd.array([_rank(ranking, one.heads) for one in asked], "Int64"),
        "answer_before": [words(one.token_before) for one in outcomes],
        "answer_after": [words(one.token) for one in outcomes],
    }
    if estimates is not None:
        for by in estimators(session.study):
            column = f"approx{by.replace('-', '_')}"
            columns[column] = [estimates.of(one, by) for one in asked]
    table = with_donor(pd.DataFrame(columns), base.donor.name if base.donor else None)
    options = session.study.sweep
    return with_head_columns(with_alpha(table, options.alpha, options.toward))


def _role(one: Intervention, layers: set[HeadSet]) -> str:
    if one.kind == "self":
        return "noise floor"
    if one.heads in layers:
        return "layer"
    return "head" if len(one.heads) == 1 else "set"


def _rank(ranking: Ranking | None, members: HeadSet) -> int | None:
    """Attention rank of a single head; a set has none."""
    if ranking is None or len(members) > 1:
        return None
    (head,) = members
    return int(ranking[head.layer, head.head])


def saved_of_one(
    session: Session, where: Origin, job: Plan, swept: SweptPair, diff: Map | None
) -> Saved:
    """Lay out ``sweep.pt`` of one pair; `diff` if every head was changed that has one."""
    ranking = None if diff is None else ranks(session)
    return {
        **_tensors(swept.table, ("normalized", "effect"), job),
        **_attention(diff, ranking),
        "ld_with": session.base.ld_with,
        "ld_without": session.base.ld_without,
        **_facts(session, where, job, swept.unread),
    }


def saved_over_pairs(
    pairs: Pairs,
    where: Origin,
    job: Plan,
    tables: Sequence[pd.DataFrame],
    means: pd.DataFrame,
    control: Unread | None,
) -> Saved:
    """Lay out ``sweep.pt`` over pairs: means, their intervals, and each pair's own."""
    survey = pairs.survey
    named = [name for name in ("approx", "approx_ig") if name in means]
    columns = ("normalized", "effect", *named)
    ends = [f"{column}{end}" for column in columns for end in ("", "_low", "_high")]
    each = [_tensors(named_rows(table), ("normalized",), job) for table in tables]
    passed = {one.entry.name: one for one in survey.gated}
    ranking = _ranking(survey, pairs.study, job)
    ran = [passed[entry.name] for entry in survey.entries]
    return {
        **_tensors(means, ends, job),
        **{
            f"{name}_by_pair": {way: torch.stack([one[name][way] for one in each]) for way in ways}
            for name, ways in each[0].items()
        },
        **(_attention(survey.mean_masses("diff"), ranking) if job.every else {}),
        "pair_names": [entry.name for entry in survey.entries],
        "level": pairs.study.pairs.level,
        "ld_with": float(by_scene(np.array([one.ld_with for one in ran]), survey.scenes).mean()),
        "ld_without": float(
            by_scene(np.array([one.ld_without for one in ran]), survey.scenes).mean()
        ),
        **_facts(pairs, where, job, control),
    }


def means_over(
    tables: Sequence[pd.DataFrame], survey: Survey, study: Study, job: Plan
) -> pd.DataFrame:
    """Return the columns of ``effects_mean.csv``."""
    named = [named_rows(table) for table in tables]
    means = aggregate(named, EFFECTS, study, survey.scenes, gaps="pair")
    means["answer_changed"] = answer_changed(named, EFFECTS)
    # a share is not defined for a pair without a difference in LD
    means["pairs"] = sum(bool(np.isfinite(table["normalized"]).all()) for table in named)
    ranking = _ranking(survey, study, job)
    found = [_rank(ranking, HeadSet.parse(str(heads))) for heads in means["heads"]]
    means["attention_rank"] = pd.Series(found, dtype=object, index=means.index)
    return pd.DataFrame(MEANS.ordered(means))


def _ranking(survey: Survey, study: Study, job: Plan) -> Ranking | None:
    """Return heads' places in the study's ranking over the pairs, where heads are compared."""
    if job.tower != "lm" or survey.incomparable is not None:
        return None
    return places(survey.ranking(study.rank.by), survey.grid)


def _attention(diff: Map | None, ranking: Ranking | None) -> Saved:
    if diff is None or ranking is None:
        return {}
    return {
        "attention_diff": torch.from_numpy(diff).float(),
        "attention_rank": torch.from_numpy(ranking),
    }


def _facts(opened: Opened, where: Origin, job: Plan, control: Unread | None) -> Saved:
    """Return what ``sweep.pt`` says beside its tensors."""
    context, study, vision = where.context, opened.study, job.tower == "vision"
    return {
        "heads": list(map(str, job.sets)),
        "tower": job.tower,
        "positions": study.vision.positions if vision else study.sweep.positions,
        "noise_floor": context.noise_floor,
        "valid": context.valid,
        "question": context.question,
        "region_name": context.region,
        **alpha_of(study.sweep),
        **({"feature_layer": opened.vlm.feature_layer} if vision else {}),
        **({"unread": vars(control) | {"layers": list(control.layers)}} if control else {}),
    }


def _tensors(table: pd.DataFrame, columns: Sequence[str], job: Plan) -> Saved:
    """Cut columns into a tensor a kind and direction, those of whole layers as ``layer_…``.

    What stands for a layer without heads is NaN.
    """
    shape: tuple[int, ...] = (len(job.sets),)
    at = list(range(len(job.sets)))
    if job.every:
        (last,) = job.sets[-1]
        shape = (last.layer + 1, last.head + 1)
        at = [one.layer * shape[1] + one.head for (one,) in job.sets]
    cuts: dict[str, tuple[list[str], tuple[int, ...], list[int]]] = {
        "": (["head", "set"], shape, at)
    }
    if job.layers:
        numbers = [one.heads[0].layer for one in job.layers]
        cuts["layer_"] = ["layer"], (numbers[-1] + 1,), numbers
    tensors: Saved = {}
    for prefix, (roles, sizes, where) in cuts.items():
        ways = table[table["role"].isin(roles)].groupby(["kind", "direction"], sort=False)
        for column in columns:
            tensors[f"{prefix}{column}"] = {
                f"{kind}_{direction}": _scattered(rows[column], sizes, where)
                for (kind, direction), rows in ways
            }
    return tensors


def _scattered(values: pd.Series, sizes: tuple[int, ...], places: Sequence[int]) -> torch.Tensor:
    """Put values at flat places of a tensor that is NaN elsewhere."""
    whole = torch.full(sizes, torch.nan)
    whole.view(-1)[torch.tensor(places)] = torch.tensor(values.to_numpy(np.float32))
    return whole
