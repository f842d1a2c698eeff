"""What named heads do to the Yes/No logits of one pair, beside random heads of their layers."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pandas as pd

from headpatch.analyses.noise import floor_of
from headpatch.analyses.session import Session, intervene
from headpatch.engine.generate import decode
from headpatch.engine.interventions import Direction, Intervention, Kind
from headpatch.engine.patching import OnProgress, Outcome, ZMeans
from headpatch.heads import Grid, Head, HeadSet
from headpatch.measures.logits import normalized_effect
from headpatch.measures.stats import rank_of, spread

Role = Literal["head", "joint", "control", "noise floor"]


@dataclass(frozen=True, eq=False)
class Ablation:
    """What `ablate` found.

    Attributes
    ----------
    effects
        One row for each set × kind × direction; the columns of ``effects.csv``. Rows of role
        ``control`` are the random sets, those of role ``noise floor`` patch a set with its own z.
    noise_floor
        The largest effect, in logits, of patching a named set with its own z.
    summary
        One line of plain words.
    """

    effects: pd.DataFrame
    noise_floor: float
    summary: str

    @property
    def named(self) -> pd.DataFrame:
        """The named heads and their joint set, without controls."""
        return self.effects[self.effects["role"].isin(["head", "joint"])].reset_index(drop=True)


def ablate(
    session: Session,
    heads: Sequence[Head],
    means: ZMeans | None = None,
    on_progress: OnProgress | None = None,
) -> Ablation:
    """Change each head alone, then all of them together.

    Parameters
    ----------
    session
        Opened with z of the language model.
    heads
        The heads to change, each once.
    means
        Needed if the study's kinds hold ``mean``.
    """
    options = session.study.ablate
    sets = [(HeadSet.of(head), "head") for head in heads]
    if len(heads) > 1:
        sets.append((HeadSet(tuple(heads)), "joint"))
    controls = {
        members: random_sets(session, members, options.controls, session.study.seed)
        for members, _ in sets
    }

    def interventions(members: HeadSet, kind: Kind) -> list[Intervention]:
        return [
            Intervention(members, kind, direction, options.positions)
            for direction in options.directions
        ]

    asked: list[tuple[HeadSet, Role, Intervention]] = []
    for members, role in sets:
        for kind in options.kinds:
            for one in interventions(members, kind):
                asked.append((members, role, one))  # type: ignore[arg-type]
            for control in controls[members]:
                asked.extend((members, "control", one) for one in interventions(control, kind))
        asked.extend((members, "noise floor", one) for one in interventions(members, "self"))
    unique = list(dict.fromkeys(one for _, _, one in asked))
    outcomes = dict(zip(unique, intervene(session, unique, means, on_progress), strict=True))
    nulls: dict[tuple[HeadSet, Kind, Direction], list[float]] = {}
    for members, role, one in asked:
        if role == "control":
            key = (members, one.kind, one.direction)
            nulls.setdefault(key, []).append(_normalized(session, outcomes[one]))
    rows = []
    for members, role, one in asked:
        row = _row(session, role, outcomes[one])
        named = role in ("head", "joint")
        null = nulls.get((members, one.kind, one.direction), []) if named else []
        rows.append(row | _beside(row["normalized"], null))
    floor = floor_of(session, outcomes.values())
    table = pd.DataFrame(rows).drop_duplicates(
        subset=["heads", "kind", "direction", "role"], ignore_index=True
    )
    return Ablation(table, floor, _summary(session, table, floor))


def random_sets(session: Session, members: HeadSet, count: int, seed: int) -> list[HeadSet]:
    """Draw sets with as many heads of each layer as `members` has, none of them a member.

    A layer with too few other heads gives fewer sets; each is different. The draw depends on the
    seed and the set alone, not on what else was asked.
    """
    return random_sets_of(session.vlm.lm.grid, members, count, seed)


def random_sets_of(grid: Grid, members: HeadSet, count: int, seed: int) -> list[HeadSet]:
    """Draw the sets of `random_sets` among the heads of a grid."""
    wanted: dict[int, int] = {}
    for head in members:
        wanted[head.layer] = wanted.get(head.layer, 0) + 1
    others = {
        layer: [head for head in range(grid.heads) if Head(layer, head) not in members.heads]
        for layer in wanted
    }
    if count and any(len(others[layer]) < number for layer, number in wanted.items()):
        return []
    digits = [number for head in members for number in (head.layer, head.head)]
    rng = np.random.default_rng([seed % 2**64, *digits])  # numpy takes no negative seed
    found: dict[HeadSet, None] = {}
    for _ in range(20 * count):  # enough tries to exhaust a small layer almost surely
        if len(found) == count:
            break
        drawn = [
            Head(layer, int(head))
            for layer, number in wanted.items()
            for head in rng.choice(others[layer], size=number, replace=False)
        ]
        found[HeadSet(tuple(drawn))] = None
    return list(found)


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
        "positions": one.positions,
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


def _summary(session: Session, table: pd.DataFrame, floor: float) -> str:
    """Say what was found in one line, and no more than one pair can show."""
    named = table[table["role"].isin(["head", "joint"])]
    last = named[named["heads"] == named["heads"].iloc[-1]]
    for kind in ("resample", "mean", "zero"):
        if (last["kind"] == kind).any():
            last = last[last["kind"] == kind]
            break
    parts = []
    for row in last.to_dict("records"):
        words = f"{row['normalized']:+.1%} of the difference between the runs"
        if np.isnan(row["normalized"]):
            words = "the two runs have the same LD, so it is no share of a difference"
        part = f"{row['direction']} moves LD by {row['effect']:+.3f} logits ({words}"
        if row["control_n"] > 1 and not np.isnan(row["normalized"]):
            mean, sd = row["control_mean"], row["control_sd"]
            part += f"; random heads of the same layers {mean:+.1%} ± {sd:.1%}"
        part += ")"
        if abs(row["effect"]) <= floor:
            part = f"{row['direction']} does not move LD beyond the noise floor"
        flips = row["answer_before"] != row["answer_after"]
        part += f"; the answer {'becomes' if flips else 'stays'} {row['answer_after']!r}"
        parts.append(part)
    heads, kind = last["heads"].iloc[0], last["kind"].iloc[0]
    positions = session.study.ablate.positions
    verb = {"zero": "Zeroing", "mean": "Mean-ablating", "resample": "Resampling"}[kind]
    caveat = "One pair shows one case, not a rule."
    if not session.valid:
        caveat = "The study is INVALID (the answers do not flip): these figures say nothing."
    return f"{verb} {heads} ({positions}): {'; '.join(parts)}. {caveat}"
