"""What every head, or every set of a list, does to the Yes/No answer of one pair."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from typing import Any, Literal, TypeAlias

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float, Int
from scipy.stats import spearmanr
from torch import Tensor

from headpatch.analyses.listed import Listed
from headpatch.analyses.rank import differences, ranks
from headpatch.analyses.reference import mean_z
from headpatch.analyses.session import Session, intervene
from headpatch.engine.generate import decode
from headpatch.engine.interventions import Intervention
from headpatch.engine.patching import (
    PLAIN_BATCH,
    OnOutcome,
    OnProgress,
    Outcome,
    ZMeans,
    base_run,
)
from headpatch.engine.sweep import passes, rows_that_fit, rows_within
from headpatch.errors import InputError
from headpatch.heads import HeadSet
from headpatch.measures.logits import normalized_effect
from headpatch.measures.stats import noise_floor

Role = Literal["head", "set", "noise floor"]
Saved: TypeAlias = dict[str, Any]
"""Plain tensors, numbers and texts, as a ``.pt`` file holds them."""

_MIB = 1 << 20
_FIRST_KIND = ("resample", "mean", "zero")  # by which heads are sorted, if there are several


@dataclass(frozen=True, eq=False)
class Plan:
    """What a sweep is going to do.

    Attributes
    ----------
    sets
        Changed one after the other; every head alone, unless a list was given.
    every
        Whether they are every head alone.
    asked
        Every intervention: the sets' own, then those of the noise floor.
    noise
        How many sets are patched with their own z.
    size
        Rows that are run together; None leaves it to the plain path.
    passes
        Cost, in forward passes of the prompt.
    """

    sets: tuple[HeadSet, ...]
    every: bool
    asked: tuple[Intervention, ...]
    noise: int
    size: int | None
    passes: float


def plan(session: Session, sets: Sequence[HeadSet] | None = None) -> Plan:
    """Work out what a sweep of `sets`, or of every head, takes.

    Parameters
    ----------
    sets
        None takes those of the study's file, and every head alone if it names none.

    Raises
    ------
    InputError
        If a set is empty or does not fit the model, or the memory budget is too small for one row.
    """
    options, grid = session.study.sweep, session.vlm.lm.grid
    if sets is None and options.sets is not None:
        sets = Listed.read(Path(options.sets)).within(grid)
    every = sets is None
    chosen = (
        tuple(HeadSet.of(head) for head in grid) if sets is None else tuple(dict.fromkeys(sets))
    )
    if not chosen or not all(map(len, chosen)):
        raise InputError("sets", "an empty one", "sets of at least one head")
    for head in {head for members in chosen for head in members}:
        grid.check(head, "sets")
    kinds, directions = dict.fromkeys(options.kinds), dict.fromkeys(options.directions)
    asked = [
        Intervention(members, kind, direction, options.positions)
        for kind, direction in product(kinds, directions)
        for members in chosen
    ]
    rng = np.random.default_rng([session.study.seed % 2**64, len(chosen)])
    count = min(options.noise, len(chosen))
    drawn = sorted(rng.choice(len(chosen), size=count, replace=False).tolist())
    asked += [
        Intervention(chosen[index], "self", direction, options.positions)
        for direction in directions
        for index in drawn
    ]
    size = _size(session)
    return Plan(chosen, every, tuple(asked), count, size, cost(session, asked, size))


def _size(session: Session) -> int | None:
    """How many rows run together: as the study says, as its budget allows, or what fits."""
    options, prefill = session.study.sweep, session.base.trace.prefills[0]
    size = options.rows
    if size is None and session.widens:
        size = rows_that_fit(session.vlm, prefill)
    if options.budget is not None:
        if not session.widens:
            prefill = replace(prefill, start=0)  # a row is a whole pass
        most = rows_within(session.vlm, prefill, options.budget * _MIB)
        size = most if size is None else min(size, most)
    return size


def cost(session: Session, asked: Sequence[Intervention], size: int | None) -> float:
    """Return what interventions cost, in forward passes of the prompt."""
    total = 0.0
    for run, prefill in enumerate(session.base.trace.prefills):
        sets = [one.heads for one in asked if base_run(one.direction) == run]
        if session.widens:
            layers = session.vlm.lm.grid.layers
            total += passes(prefill, sets, layers, size or rows_that_fit(session.vlm, prefill))
        else:
            each = size or PLAIN_BATCH - 1
            total += len(sets) + -(-len(sets) // each)
    return total


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
        The largest effect, in logits, of patching a set with its own z.
    correlations
        By ``kind_direction``: Spearman's rho, over the heads of this pair, between the difference
        in attention and the size of the effect. Empty for a list of sets.
    """

    plan: Plan
    effects: pd.DataFrame
    saved: Saved
    noise_floor: float
    correlations: dict[str, float]

    @property
    def named(self) -> pd.DataFrame:
        """The rows of the heads or sets, without those of the noise floor."""
        return self.effects[self.effects["role"] != "noise floor"].reset_index(drop=True)

    @property
    def sorted_by(self) -> str:
        """The kind by which `top` sorts: resample, if it was run."""
        kinds = set(self.named["kind"])
        return next(kind for kind in _FIRST_KIND if kind in kinds)

    def top(self, count: int) -> list[dict[str, Any]]:
        """Return each direction's heads or sets with the largest effects, one dict each."""
        named, first = self.named, self.sorted_by
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
                        "heads": heads,
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
    return run(session, plan(session, sets), means, on_progress)


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
    if means is None and any(one.kind == "mean" for one in left):
        means = mean_z(session, reference=session.study.sweep.reference)
    start, total = len(outcomes), len(job.asked)

    def advance(done: int, _: int) -> None:
        if on_progress:
            on_progress(start + done, total)

    found = intervene(session, left, means, advance, on_outcome, job.size)
    outcomes.update(zip(left, found, strict=True))
    return _collect(session, job, [outcomes[one] for one in job.asked])


def _collect(session: Session, job: Plan, outcomes: Sequence[Outcome]) -> Sweep:
    attention = _attention(session)
    table = _table(session, outcomes, None if attention is None else ranks(attention))
    selves = table.loc[table["role"] == "noise floor", "effect"]
    floor = noise_floor(selves.to_numpy(dtype=np.float64))
    saved: Saved = {
        "normalized": _by_way(table, "normalized", job),
        "effect": _by_way(table, "effect", job),
        "heads": list(map(str, job.sets)),
        "positions": session.study.sweep.positions,
        "noise_floor": floor,
        "ld_with": session.base.ld_with,
        "ld_without": session.base.ld_without,
        "valid": session.valid,
        "question": session.pair.question,
        "region_name": session.pair.region.name,
    }
    correlations: dict[str, float] = {}
    if job.every and attention is not None:
        saved["attention_diff"] = torch.from_numpy(attention).float()
        saved["attention_rank"] = torch.from_numpy(ranks(attention))
        correlations = {
            way: _spearman(attention, effects) for way, effects in saved["effect"].items()
        }
    return Sweep(job, table, saved, floor, correlations)


def _attention(session: Session) -> Float[np.ndarray, "layers heads"] | None:
    """Each head's attention difference, where the image's tokens are attended to at all."""
    if len(session.prompt.patches.boxes) == 0:
        return None
    return differences(session)


def _table(
    session: Session,
    outcomes: Sequence[Outcome],
    ranking: Int[np.ndarray, "layers heads"] | None,
) -> pd.DataFrame:
    base = session.base
    asked = [one.intervention for one in outcomes]
    words: Callable[[int], str] = _cached(lambda token: decode(session.vlm, [token]))
    table = pd.DataFrame(
        {
            "pair": session.pair.name,
            "heads": [str(one.heads) for one in asked],
            "kind": [one.kind for one in asked],
            "direction": [one.direction for one in asked],
            "positions": [one.positions for one in asked],
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
    table["role"] = [_role(one) for one in asked]
    table["attention_rank"] = pd.array(
        [None if ranking is None else _rank(ranking, one.heads) for one in asked], dtype="Int64"
    )
    table["answer_before"] = [words(one.token_before) for one in outcomes]
    table["answer_after"] = [words(one.token) for one in outcomes]
    return table


def _cached(function: Callable[[int], str]) -> Callable[[int], str]:
    known: dict[int, str] = {}

    def look_up(key: int) -> str:
        if key not in known:
            known[key] = function(key)
        return known[key]

    return look_up


def _role(one: Intervention) -> Role:
    if one.kind == "self":
        return "noise floor"
    return "head" if len(one.heads) == 1 else "set"


def _rank(ranking: Int[np.ndarray, "layers heads"], members: HeadSet) -> int | None:
    """Attention rank of a single head; a set has none."""
    if len(members) > 1:
        return None
    (head,) = members
    return int(ranking[head.layer, head.head])


def _by_way(table: pd.DataFrame, column: str, job: Plan) -> dict[str, Tensor]:
    """Cut a column of the table into one tensor a kind and direction."""
    named = table[table["role"] != "noise floor"]
    shape: tuple[int, ...] = (len(job.sets),)
    if job.every:
        last = job.sets[-1].heads[0]
        shape = (last.layer + 1, last.head + 1)
    found = {}
    for (kind, direction), rows in named.groupby(["kind", "direction"], sort=False):
        values = torch.tensor(rows[column].to_numpy(dtype=np.float32))
        found[f"{kind}_{direction}"] = values.reshape(shape)
    return found


def _spearman(attention: Float[np.ndarray, "layers heads"], effects: Tensor) -> float:
    """Spearman's rho between attention difference and |effect|; NaN where one of them is flat."""
    sizes = effects.abs().numpy().ravel().astype(np.float64)
    looks = attention.ravel()
    if np.ptp(sizes) == 0 or np.ptp(looks) == 0:
        return float("nan")
    return float(spearmanr(looks, sizes).statistic)


def _whole(value: Any) -> int | None:
    return None if pd.isna(value) else int(value)
