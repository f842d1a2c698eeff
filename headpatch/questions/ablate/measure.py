"""What named heads do to the Yes/No logits of one pair, beside random heads of their layers."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pandas as pd

from headpatch.core.controls import random_sets
from headpatch.core.cost import Beside, cost
from headpatch.core.noise_floor import floor_of
from headpatch.core.session import Session
from headpatch.core.towers import Unread, change, has, unread
from headpatch.engine.answers import decode
from headpatch.engine.interventions import Direction, Intervention, check_scope
from headpatch.engine.patching import OnProgress, Outcome, ZMeans
from headpatch.heads import Head, HeadSet
from headpatch.present.head_columns import with_alpha, with_head_columns
from headpatch.stats.effects import normalized_effect, rank_of, spread

Role = Literal["head", "joint", "control", "noise floor"]


@dataclass(frozen=True)
class Asked:
    """An intervention, and what it is run for.

    Attributes
    ----------
    members
        The named set; of a control, the set that it is compared with.
    """

    members: HeadSet
    role: Role
    intervention: Intervention


@dataclass(frozen=True)
class Plan:
    """What `ablate` is going to do.

    Attributes
    ----------
    vision_rows
        Interventions that change vision heads: each costs most of a forward pass.
    passes
        What all interventions cost, in forward passes of the prompt.
    beside
        What the run costs besides, likewise.
    """

    asked: tuple[Asked, ...]
    vision_rows: int
    passes: float
    beside: Beside

    @property
    def interventions(self) -> tuple[Intervention, ...]:
        """Every intervention, once."""
        return tuple(dict.fromkeys(one.intervention for one in self.asked))


@dataclass(frozen=True, eq=False)
class Ablated:
    """What changing heads of one pair did.

    Attributes
    ----------
    table
        One row for each set × kind × direction; the columns of ``effects.csv``. Rows of role
        ``control`` are the random sets, those of role ``noise floor`` patch a set with its own z.
    noise_floor
        In logits; see `headpatch.core.noise_floor.floor_of`.
    unread
        The free control, if vision heads were changed that never reach the language model.
    """

    table: pd.DataFrame
    noise_floor: float
    unread: Unread | None = None

    @property
    def named(self) -> pd.DataFrame:
        """The named heads and their joint set, without controls."""
        return named_rows(self.table)


def named_rows(table: pd.DataFrame) -> pd.DataFrame:
    """Return the rows of named heads and their joint set, without controls."""
    return table[table["role"].isin(["head", "joint"])].reset_index(drop=True)


def plan(session: Session, heads: Sequence[Head]) -> Plan:
    """Work out what changing each head alone, then all of them together, takes.

    Parameters
    ----------
    session
        Opened so that these heads can be changed.
    heads
        The heads to change, each once. Those of the vision tower change at the positions of the
        study's ``vision``, those of the language model at those of its ``ablate``.
    means
        Needed if the study's kinds average.
        Each once. Those of the vision tower change at the positions of the study's ``vision``,
        those of the language model at those of its ``ablate``.

    Raises
    ------
    InputError
        If the vision tower has no class token, where its heads are to be changed there.
    """
    options, vlm = session.study.ablate, session.vlm
    vision = None
    if has("vision", heads):
        vision = vlm.stack("vision").grid
        check_scope(vlm, session.study.vision.positions, "--vision-positions")
    sets: list[tuple[HeadSet, Role]] = [(HeadSet.of(head), "head") for head in heads]
    if len(heads) > 1:
        sets.append((HeadSet(tuple(heads)), "joint"))

    def ways(members: HeadSet, kind: str) -> list[Intervention]:
        more = options.positions, session.study.vision.positions, options.alpha
        return [Intervention(members, kind, way, *more) for way in options.directions]

    asked: list[Asked] = []
    for members, role in sets:
        controls = random_sets(members, options.controls, session.study.seed, vlm.lm.grid, vision)
        for kind in options.kinds:
            asked += [Asked(members, role, one) for one in ways(members, kind)]
            for control in controls:
                asked += [Asked(members, "control", one) for one in ways(control, kind)]
        asked += [Asked(members, "noise floor", one) for one in ways(members, "self")]
    unique = dict.fromkeys(one.intervention for one in asked)
    seen = [one for one in unique if has("vision", one.heads)]
    others = [one for one in unique if not has("vision", one.heads)]
    passes = cost(session, seen, tower="vision") + cost(session, others)
    beside = Beside.of(session, options.kinds, options.reference, widened=bool(others))
    return Plan(tuple(asked), len(seen), passes, beside)


def run(
    session: Session,
    job: Plan,
    means: ZMeans | None = None,
    on_progress: OnProgress | None = None,
) -> Ablated:
    """Do what is planned.

    Parameters
    ----------
    means
        Needed if the study's kinds hold ``mean``.
    """
    unique = job.interventions
    outcomes = dict(zip(unique, change(session, unique, means, on_progress), strict=True))
    nulls: dict[tuple[HeadSet, str, Direction], list[float]] = {}
    for asked in job.asked:
        if asked.role == "control":
            one = asked.intervention
            key = (asked.members, one.kind, one.direction)
            nulls.setdefault(key, []).append(_normalized(session, outcomes[one]))
    rows = []
    for asked in job.asked:
        one = asked.intervention
        row = _row(session, asked.role, outcomes[one])
        named = asked.role in ("head", "joint")
        null = nulls.get((asked.members, one.kind, one.direction), []) if named else []
        rows.append(row | _beside(row["normalized"], null))
    floor = floor_of(session, outcomes.values(), means)
    table = pd.DataFrame(rows).drop_duplicates(
        subset=["heads", "kind", "direction", "role"], ignore_index=True
    )
    table = with_alpha(table, session.study.ablate.alpha)
    control = unread(session, outcomes.values())
    return Ablated(with_head_columns(table), floor, control)


def _normalized(session: Session, outcome: Outcome) -> float:
    base = session.base
    direction = outcome.intervention.direction
    return normalized_effect(outcome.ld, base.ld_with, base.ld_without, direction)


def _row(session: Session, role: Role, outcome: Outcome) -> dict[str, Any]:
    one, base = outcome.intervention, session.base
    return {
        "pair": session.pair.name,
        "heads": str(one.heads),
        "kind": one.kind,
        "direction": one.direction,
        "positions": one.scope,
        "ld_with": base.ld_with,
        "ld_without": base.ld_without,
        "ld": outcome.ld,
        "effect": outcome.effect,
        "normalized": _normalized(session, outcome),
        "role": role,
        "answer_before": decode(session.vlm, [outcome.token_before]),
        "answer_after": decode(session.vlm, [outcome.token]),
    }


def _beside(normalized: float, null: Sequence[float]) -> dict[str, float]:
    """How a normalized effect stands to those of the random sets, where it is defined."""
    if not null or np.isnan(normalized):
        return {
            "control_mean": np.nan,
            "control_sd": np.nan,
            "control_n": len(null),
            "control_p": np.nan,
        }
    summary = spread(null)
    return {
        "control_mean": summary.mean,
        "control_sd": summary.sd,
        "control_n": summary.n,
        "control_p": rank_of(normalized, null),
    }
