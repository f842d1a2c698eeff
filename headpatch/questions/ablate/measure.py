"""What named heads do to the Yes/No logits of one pair, beside random heads of their layers."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any, Literal, NamedTuple

import numpy as np
import pandas as pd

from headpatch.core.cost import Beside, cost
from headpatch.core.dataset import Pairs
from headpatch.core.effects import Unread, change, check_toward, floor_of, has, unread
from headpatch.core.ranking import random_sets
from headpatch.core.session import Session
from headpatch.core.study.options import alphas_of
from headpatch.engine.answers import decode
from headpatch.engine.interventions import Direction, Intervention, check_scope
from headpatch.engine.patching import OnProgress, Outcome, ZMeans
from headpatch.heads import Head, HeadSet
from headpatch.kinds import KINDS
from headpatch.present.head_columns import with_alpha, with_donor, with_head_columns
from headpatch.stats.effects import normalized_effect, rank_of, spread

Role = Literal["head", "joint", "control", "noise floor"]


class Asked(NamedTuple):
    """An intervention, what it is run for, and its named set (a control: the set beside it)."""

    members: HeadSet
    role: Role
    intervention: Intervention


@dataclass(frozen=True)
class Plan:
    """What `ablate` is going to do, and its cost in forward passes of the prompt."""

    asked: tuple[Asked, ...]
    vision_rows: int  # interventions that change vision heads: each costs most of a forward pass
    passes: float  # of all interventions
    beside: Beside  # what the run costs besides

    @property
    def interventions(self) -> tuple[Intervention, ...]:
        """Every intervention, once."""
        return tuple(dict.fromkeys(one.intervention for one in self.asked))


@dataclass(frozen=True, eq=False)
class Ablated:
    """What changing heads of one pair did: see `headpatch.questions.ablate.question.Ablation`."""

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
    """Work out what changing each of some heads alone, then all of them together, takes.

    Vision heads change at the positions of the study's ``vision``, those of the language model at
    those of its ``ablate``; a scope that the vision tower lacks is refused.
    """
    options, vlm = session.study.ablate, session.vlm
    seen_at, vision = session.study.vision.positions, None
    if has("vision", heads):
        vision = vlm.stack("vision").grid
        check_scope(vlm, seen_at, "--vision-positions")
    asked: list[Asked] = []

    check_toward(session, options.kinds, options.toward)

    def ask(named: HeadSet, role: Role, changed: HeadSet, kind: str) -> None:
        doses = alphas_of(options.alpha)
        for direction, alpha in product(
            options.directions, doses if KINDS[kind].alpha else (None,)
        ):
            where = options.positions, seen_at, alpha, options.toward
            asked.append(Asked(named, role, Intervention(changed, kind, direction, *where)))

    for members, role in _sets(heads):
        controls = random_sets(members, options.controls, session.study.seed, vlm.lm.grid, vision)
        for kind in options.kinds:
            ask(members, role, members, kind)
            for control in controls:
                ask(members, "control", control, kind)
        ask(members, "noise floor", members, "self")
    unique = dict.fromkeys(one.intervention for one in asked)
    seen = [one for one in unique if has("vision", one.heads)]
    others = [one for one in unique if not has("vision", one.heads)]
    passes = cost(session, seen, tower="vision") + cost(session, others)
    beside = Beside.of(session, options.kinds, options.reference, widened=bool(others))
    return Plan(tuple(asked), len(seen), passes, beside)


def _sets(heads: Sequence[Head]) -> list[tuple[HeadSet, Role]]:
    """Return each head alone, and all of them together."""
    sets: list[tuple[HeadSet, Role]] = [(HeadSet.of(head), "head") for head in heads]
    return [*sets, (HeadSet(tuple(heads)), "joint")] if len(heads) > 1 else sets


def run(
    session: Session,
    job: Plan,
    means: ZMeans | None = None,
    on_progress: OnProgress | None = None,
) -> Ablated:
    """Do what is planned; `means` are needed if the study's kinds hold ``mean``."""
    unique = job.interventions
    outcomes = dict(zip(unique, change(session, unique, means, on_progress), strict=True))
    shares = {one: _normalized(session, outcome) for one, outcome in outcomes.items()}
    nulls: dict[tuple[HeadSet, str, Direction, float | None], list[float]] = {}
    for members, role, one in job.asked:
        if role == "control":
            way = members, one.kind, one.direction, one.alpha
            nulls.setdefault(way, []).append(shares[one])
    rows = []
    for members, role, one in job.asked:
        named = role in ("head", "joint")
        null = nulls.get((members, one.kind, one.direction, one.alpha), []) if named else []
        row = _row(session, role, outcomes[one], shares[one])
        rows.append(row | _beside(shares[one], null))
    donor, doses = session.base.donor, [one.alpha for *_, one in job.asked]
    table = with_donor(pd.DataFrame(rows), donor.name if donor else None)
    table = with_alpha(table, doses, session.study.ablate.toward)
    keys = ["heads", "kind", "alpha", "direction", "role"]
    table = table.drop_duplicates([key for key in keys if key in table], ignore_index=True)
    table = with_head_columns(table)
    floor = floor_of(session, outcomes.values(), means)
    return Ablated(table, floor, unread(session, outcomes.values()))


def beside_means(
    means: pd.DataFrame, measured: Sequence[Ablated], pairs: Pairs, heads: Sequence[Head]
) -> dict[str, list[float]]:
    """Return how mean effects stand to the means that each of their random sets has over pairs.

    Random sets hang on the seed and the named set alone, so that all pairs have the same.
    """
    scenes = pairs.survey.scenes.tolist()
    tables = [one.table.assign(_scene=scene) for one, scene in zip(measured, scenes, strict=True)]
    rows = _known(pd.concat(tables))
    by_scene = rows[rows["role"] == "control"].groupby([*_WAY, "_scene"])["normalized"].mean()
    chance = by_scene.groupby(_WAY).mean().to_dict()
    vision = pairs.vlm.stack("vision").grid if has("vision", heads) else None
    options, seed, grid = pairs.study.ablate, pairs.study.seed, pairs.vlm.lm.grid
    drawn = {
        str(one): [str(random) for random in random_sets(one, options.controls, seed, grid, vision)]
        for one, _ in _sets(heads)
    }
    found = []
    for row in _known(means).to_dict("records"):
        way = tuple(row[name] for name in _WAY[1:])
        null = [chance[one, *way] for one in drawn[row["heads"]]]
        found.append(_beside(row["normalized"], null))
    return {name: [one[name] for one in found] for name in ("control_sd", "control_n", "control_p")}


_WAY = ["heads", "kind", "alpha", "direction"]


def _known(rows: pd.DataFrame) -> pd.DataFrame:
    """Return rows with a number for every alpha: of a kind without, one that none has."""
    alpha = rows["alpha"].fillna(-np.inf) if "alpha" in rows else -np.inf
    return rows.assign(alpha=alpha)


def _normalized(session: Session, outcome: Outcome) -> float:
    base, direction = session.base, outcome.intervention.direction
    return normalized_effect(outcome.ld, base.ld_with, base.ld_without, direction)


def _row(session: Session, role: Role, outcome: Outcome, share: float) -> dict[str, Any]:
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
        "normalized": share,
        "role": role,
        "answer_before": decode(session.vlm, [outcome.token_before]),
        "answer_after": decode(session.vlm, [outcome.token]),
    }


def _beside(share: float, null: Sequence[float]) -> dict[str, float]:
    """How a normalized effect stands to those of the random sets, where it is defined."""
    mean = sd = p = np.nan
    if null and not np.isnan(share):
        summary = spread(null)
        mean, sd, p = summary.mean, summary.sd, rank_of(share, null)
    return {"control_mean": mean, "control_sd": sd, "control_n": len(null), "control_p": p}
