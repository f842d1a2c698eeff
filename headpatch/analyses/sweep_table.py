"""The table of a sweep, and its columns as tensors."""

from collections.abc import Callable, Sequence
from typing import Literal

import numpy as np
import pandas as pd
import torch
from jaxtyping import Int
from torch import Tensor

from headpatch.analyses.approx import Estimates
from headpatch.analyses.session import Session
from headpatch.analyses.sweep_plan import Plan
from headpatch.engine.generate import decode
from headpatch.engine.interventions import Intervention
from headpatch.engine.patching import Outcome
from headpatch.heads import HeadSet
from headpatch.measures.logits import normalized_effect

Role = Literal["head", "set", "layer", "noise floor"]


def table_of(
    session: Session,
    job: Plan,
    outcomes: Sequence[Outcome],
    ranking: Int[np.ndarray, "layers heads"] | None,
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
    words: Callable[[int], str] = _cached(lambda token: decode(session.vlm, [token]))
    table = pd.DataFrame(
        {
            "pair": session.pair.name,
            "heads": [str(one.heads) for one in asked],
            "kind": [one.kind for one in asked],
            "direction": [one.direction for one in asked],
            "positions": positions_of(session, job),
            "ld_with": base.ld_with,
            "ld_without": base.ld_without,
            "ld": [one.ld for one in outcomes],
            "effect": [one.effect for one in outcomes],
        }
    )
    table["normalized"] = np.nan
    for direction in ("noising", "denoising"):
        here = table["direction"] == direction
        after = table.loc[here, "ld"].to_numpy(dtype=np.float64)
        table.loc[here, "normalized"] = normalized_effect(
            after, base.ld_with, base.ld_without, direction
        )
    whole = set(job.layers)
    table["role"] = [_role(one, whole) for one in asked]
    table["attention_rank"] = pd.array(
        [None if ranking is None else _rank(ranking, one.heads) for one in asked], dtype="Int64"
    )
    table["answer_before"] = [words(one.token_before) for one in outcomes]
    table["answer_after"] = [words(one.token) for one in outcomes]
    if estimates is not None:
        table["approx"] = [estimates.of(one) for one in asked]
    return table


def positions_of(session: Session, job: Plan) -> str:
    """Return where z is changed: a scope of the prompt, or of the vision tower's tokens."""
    study = session.study
    return study.sweep.positions if job.tower == "lm" else study.vision.positions


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
    found = {}
    for (kind, direction), rows in table.groupby(["kind", "direction"], sort=False):
        values = torch.tensor(rows[column].to_numpy(dtype=np.float32))
        found[f"{kind}_{direction}"] = values.reshape(shape)
    return found


def _cached(function: Callable[[int], str]) -> Callable[[int], str]:
    known: dict[int, str] = {}

    def look_up(key: int) -> str:
        if key not in known:
            known[key] = function(key)
        return known[key]

    return look_up


def _role(one: Intervention, whole: set[HeadSet]) -> Role:
    if one.kind == "self":
        return "noise floor"
    if one.heads in whole:
        return "layer"
    return "head" if len(one.heads) == 1 else "set"


def _rank(ranking: Int[np.ndarray, "layers heads"], members: HeadSet) -> int | None:
    """Attention rank of a single head; a set has none."""
    if len(members) > 1:
        return None
    (head,) = members
    return int(ranking[head.layer, head.head])
