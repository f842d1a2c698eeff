"""The table of a sweep, and its columns as tensors."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Literal

import numpy as np
import pandas as pd
import torch
from jaxtyping import Int
from torch import Tensor

from headpatch.core.session import Session
from headpatch.core.study import Study
from headpatch.engine.answers import decode
from headpatch.engine.interventions import Intervention
from headpatch.engine.patching import Outcome
from headpatch.heads import HeadSet
from headpatch.kinds import KINDS, first_of
from headpatch.present.head_columns import with_alpha, with_head_columns
from headpatch.questions.sweep.approx import Estimates
from headpatch.questions.sweep.plan import Plan
from headpatch.stats.effects import normalized_effect

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
            "positions": [one.scope for one in asked],
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
        [None if ranking is None else rank_in(ranking, one.heads) for one in asked], dtype="Int64"
    )
    table["answer_before"] = [words(one.token_before) for one in outcomes]
    table["answer_after"] = [words(one.token) for one in outcomes]
    if estimates is not None:
        table["approx"] = [estimates.of(one) for one in asked]
    return with_head_columns(with_alpha(table, session.study.sweep.alpha))


def positions_of(study: Study, job: Plan) -> str:
    """Return where z is changed: a scope of the prompt, or of the vision tower's tokens."""
    return study.sweep.positions if job.tower == "lm" else study.vision.positions


def largest(
    named: pd.DataFrame, count: int, layers: bool = False
) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield each direction's rows with the largest effects, each with its place from 1.

    Parameters
    ----------
    named
        Effects of heads, sets and layers, or their means.
    layers
        Take whole layers instead of heads or sets.
    """
    first = first_of(set(named["kind"]))
    chosen = named[((named["role"] == "layer") == layers) & (named["kind"] == first)]
    for _, rows in chosen.groupby("direction", sort=False):
        size = rows["effect"].abs().sort_values(ascending=False, kind="stable")
        listed = rows.loc[size.index[:count]].to_dict("records")
        for place, row in enumerate(listed, start=1):
            yield place, {str(name): value for name, value in row.items()}


def extremes(named: pd.DataFrame, floor: float) -> list[dict[str, Any]]:
    """Return the head or set with the largest effect of each kind and direction.

    Parameters
    ----------
    named
        Effects of heads, sets and layers, or their means.
    floor
        Noise floor, in logits.
    """
    chosen = named[named["role"] != "layer"]
    sizes = chosen["effect"].abs()
    first = sizes.groupby([chosen["kind"], chosen["direction"]], sort=False).idxmax()
    return [
        {name: row[name] for name in ("kind", "direction", "heads")}
        | {name: float(row[name]) for name in ("effect", "normalized")}
        | {"below_floor": bool(abs(row["effect"]) <= floor)}
        | ({"alpha": float(row["alpha"])} if KINDS[row["kind"]].alpha else {})
        for row in chosen.loc[first].to_dict("records")
    ]


def layer_name(heads: str) -> str:
    """Name a whole layer as ``headpatch ablate --heads`` does: ``layer:3``, ``layer:v3``.

    Parameters
    ----------
    heads
        All its heads, as tables have them: ``3.0+3.1``.
    """
    return f"layer:{heads.partition('.')[0]}"


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


def rank_in(ranking: Int[np.ndarray, "layers heads"], members: HeadSet) -> int | None:
    """Attention rank of a single head; a set has none."""
    if len(members) > 1:
        return None
    (head,) = members
    return int(ranking[head.layer, head.head])
