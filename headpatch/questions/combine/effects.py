"""Heads changed two by two: which sets, what each does in a pair, and what is shown of them.

What an interaction's sign means, and which words it gets: `headpatch.stats.interactions`.

On one pair nothing is estimated: an interaction is known up to rounding, three times the noise
floor, and says nothing of other pairs. Over many pairs the scene is the unit: intervals over pairs,
and q-values over all combinations that were tried. δ is the study's smallest effect of interest.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations, product
from typing import Any, TypeAlias

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float, Int, Shaped

from headpatch.core.effects import floor_of, intervene
from headpatch.core.ratio_columns import ratio_columns
from headpatch.core.saved_verdict import rule
from headpatch.core.session import Session
from headpatch.core.study.study import Study
from headpatch.engine.interventions import Direction, Intervention
from headpatch.engine.patching import OnProgress, ZMeans
from headpatch.errors import InputError
from headpatch.heads import Head, HeadSet
from headpatch.present.head_columns import with_alpha, with_head_columns
from headpatch.questions.combine.view import DIFFERENT, largest_interactions
from headpatch.stats.effects import normalized_effect
from headpatch.stats.interactions import Word, interaction_label, joint_reading
from headpatch.stats.intervals import mean_interval
from headpatch.stats.scenes import Scenes, by_scene
from headpatch.stats.significance import adjusted, equivalence_test
from headpatch.stats.verdicts import effect_q, significant_sign

Table: TypeAlias = Float[np.ndarray, "ways sets"]
Tables: TypeAlias = Float[np.ndarray, "pairs ways sets"]


@dataclass(frozen=True, eq=False)
class Plan:
    """Which sets are changed, and in which ways (kind and direction)."""

    heads: tuple[Head, ...]
    sets: tuple[HeadSet, ...]  # each head alone, every two, and all if they are more than two
    ways: tuple[tuple[str, Direction], ...]

    @classmethod
    def of(cls, study: Study, heads: Sequence[Head]) -> "Plan":
        """Make the plan of a study; fewer than two heads are refused."""
        if len(heads) < 2:
            raise InputError(
                "--heads", f"one head ({heads[0]})" if heads else "none", "two heads or more"
            )
        sets = [HeadSet.of(head) for head in heads]
        sets += [HeadSet.of(*two) for two in combinations(heads, 2)]
        if len(heads) > 2:
            sets.append(HeadSet(tuple(heads)))
        return cls(tuple(heads), tuple(sets), _ways(study))

    @property
    def members(self) -> Int[np.ndarray, "sets heads"]:
        """Which heads belong to which set."""
        return np.array([[head in one.heads for head in self.heads] for one in self.sets], int)


def _ways(study: Study) -> tuple[tuple[str, Direction], ...]:
    options = study.combine
    return tuple(product(dict.fromkeys(options.kinds), dict.fromkeys(options.directions)))


def changes(study: Study, sets: Sequence[HeadSet]) -> tuple[Intervention, ...]:
    """Return every set changed in every way that the study's ``combine`` names."""
    where, alpha = study.combine.positions, study.combine.alpha
    ways = _ways(study)
    return tuple(Intervention(one, *way, where, alpha=alpha) for way in ways for one in sets)


@dataclass(frozen=True, eq=False)
class Effects:
    """What every set of a plan does to LD in one pair."""

    logits: Table
    normalized: Table
    floor: float  # noise floor, in logits
    gap: float  # LD_with - LD_without
    pair: str = ""  # its name


def measure(
    session: Session,
    plan: Plan,
    means: ZMeans | None = None,
    on_progress: OnProgress | None = None,
) -> Effects:
    """Change every set of a plan, exactly, at the positions of the study's ``combine``."""
    base, asked = session.base, changes(session.study, plan.sets)
    nothing = [
        Intervention(one, "self", direction, session.study.combine.positions)
        for direction in dict.fromkeys(direction for _, direction in plan.ways)
        for one in plan.sets
        if len(one) in (1, len(plan.heads))
    ]
    outcomes = intervene(session, [*asked, *nothing], means, on_progress, answers_only=True)
    shape = len(plan.ways), len(plan.sets)
    normalized = [
        normalized_effect(one.ld, base.ld_with, base.ld_without, one.intervention.direction)
        for one in outcomes[: len(asked)]
    ]
    return Effects(
        np.array([one.effect for one in outcomes[: len(asked)]]).reshape(shape),
        np.array(normalized).reshape(shape),
        floor_of(session, outcomes, means),
        base.ld_with - base.ld_without,
        session.pair.name,
    )


@dataclass(frozen=True, eq=False)
class Combinations:
    """What `judge` found."""

    table: pd.DataFrame  # columns of combinations.csv, a row a set × kind × direction
    noise_floor: float  # in logits, the largest over all pairs
    pairs: int  # over which effects are averaged

    def largest(self, count: int) -> pd.DataFrame:
        """Return, for each way, the pairs of heads with the largest interactions."""
        return largest_interactions(self.table, count)

    @property
    def repaired(self) -> tuple[HeadSet, ...]:
        """The sets whose self-repair is of interest: heads alone, each way's first pair, all."""
        heads, roles = self.table["heads"], self.table["role"]
        names = [*heads[roles == "head"], *self.largest(1)["heads"], *heads[roles == "all"]]
        return tuple(HeadSet.parse(name) for name in dict.fromkeys(map(str, names)))


def judge(study: Study, plan: Plan, measured: Sequence[Effects], scenes: Scenes) -> Combinations:
    """Say what is shown of every set, over one pair or over the scenes of many.

    Pairs without a difference in LD are left out, where others have one: nothing is normalized.
    """
    finite = np.array([np.isfinite(one.normalized).all() for one in measured])
    places = np.flatnonzero(finite if finite.any() else ~finite)
    kept = [measured[pair] for pair in places.tolist()]
    effects = by_scene(np.stack([one.normalized for one in kept]), scenes[places])
    logits = by_scene(np.stack([one.logits for one in kept]), scenes[places])
    singles, members = slice(len(plan.heads)), plan.members.T
    interactions = effects - effects[..., singles] @ members
    in_logits = logits - logits[..., singles] @ members
    if len(effects) == 1:
        shown = _one_pair(study, plan, effects[0], interactions[0], kept[0])
    else:
        shown = _many(study, plan, effects, interactions)
    ratios = _ratios(study, kept, scenes[places])
    rows: list[dict[str, Any]] = []
    for way, (kind, direction) in enumerate(plan.ways):
        effect, interaction = effects[:, way].mean(0), interactions[:, way].mean(0)
        for index, heads in enumerate(plan.sets):
            role = {1: "head", 2: "pair"}.get(len(heads), "all")
            row = {
                "heads": str(heads),
                "role": role,
                "kind": kind,
                "direction": direction,
                "positions": study.combine.positions,
                "effect": logits[:, way, index].mean(),
                "normalized": effect[index],
                "low": shown.effect_low[way, index],
                "high": shown.effect_high[way, index],
                **{name: values[way, index] for name, values in ratios.items()},
                "sum": effect[index] - interaction[index],
            }
            rows.append(row)
            if role == "head":
                continue
            signs = shown.effect_sign[way, [plan.heads.index(head) for head in heads]]
            row |= {
                "interaction": interaction[index],
                "interaction_low": shown.low[way, index],
                "interaction_high": shown.high[way, index],
                "interaction_logits": in_logits[:, way, index].mean(),
                "q": shown.q[way, index],
                "word": interaction_label(
                    direction,
                    int(shown.sign[way, index]),
                    bool(shown.small[way, index]),
                    against=bool(2 * effect[index] < interaction[index]),
                    opposed=role == "pair" and bool(signs.min() * signs.max() < 0),
                ),
            }
    table = _read_together(pd.DataFrame(rows)).assign(pairs=len(kept))
    table = with_alpha(table, study.combine.alpha)
    return Combinations(with_head_columns(table), max(one.floor for one in measured), len(kept))


def _ratios(
    study: Study, pairs: Sequence[Effects], scenes: Scenes
) -> dict[str, Shaped[np.ndarray, "ways sets"]]:
    """Return what stands beside the mean of the effects; nothing of one pair."""
    gaps, names = np.array([one.gap for one in pairs]), [one.pair for one in pairs]
    effects = np.stack([one.normalized for one in pairs])
    flat = effects.reshape(len(pairs), -1)
    beside = ratio_columns(study, flat, gaps, names, whole=True, scenes=scenes)
    return {f"normalized{end}": row.reshape(effects.shape[1:]) for end, row in beside.items()}


def _read_together(table: pd.DataFrame) -> pd.DataFrame:
    """Name each two heads by both directions: one alone does not tell a threshold from either-or.

    The name is empty where only one direction was run.
    """
    two = table[table["role"] == "pair"]
    ways = two.pivot(index=["heads", "kind"], columns="direction", values="word")
    if len(ways.columns) < 2:
        return table.assign(both="")
    name = {
        pair: _name(words["noising"], words["denoising"])
        for pair, words in ways.to_dict("index").items()
    }
    pairs = zip(table["heads"], table["kind"], strict=True)
    return table.assign(both=[name.get(pair, "") for pair in pairs])


def _name(noising: Word, denoising: Word) -> str:
    """Name two heads by what both directions show."""
    words: tuple[Word, ...] = noising, denoising
    shown = next((word for word in ("undecided", "opposed") if word in words), DIFFERENT)
    return joint_reading(noising, denoising) or shown


@dataclass(frozen=True, eq=False)
class _Shown:
    """What is shown of effects, and then of interactions: intervals, and signs."""

    effect_low: Table
    effect_high: Table
    effect_sign: Int[np.ndarray, "ways sets"]  # of one that is shown to lie beyond ±δ
    low: Table
    high: Table
    sign: Int[np.ndarray, "ways sets"]  # of one that is shown to lie beyond ±δ
    small: Bool[np.ndarray, "ways sets"]  # whether it is shown to lie within ±δ
    q: Table  # of its difference from 0; NaN on one pair


def _one_pair(study: Study, plan: Plan, effect: Table, interaction: Table, one: Effects) -> _Shown:
    """On one pair everything is known up to rounding."""
    delta, size = study.verdict.delta, plan.members.sum(1)
    rounding = one.floor / abs(one.gap) if one.gap else np.inf
    slack = np.where(size > 1, rounding * (1 + size), 0.0)  # n heads make n + 1 effects
    own = effect - rounding, effect + rounding
    low, high = interaction - slack, interaction + slack
    small = np.maximum(-low, high) < delta
    nothing = np.full_like(effect, np.nan)
    return _Shown(*own, _side(*own, delta), low, high, _side(low, high, delta), small, q=nothing)


def _side(low: Table, high: Table, delta: float) -> Int[np.ndarray, "ways sets"]:
    return np.asarray((low > delta).astype(int) - (high < -delta).astype(int))


def _many(study: Study, plan: Plan, effects: Tables, interactions: Tables) -> _Shown:
    """Over pairs: intervals, and tests that are corrected over all sets and ways together."""
    options, by = study.pairs, rule(study)
    effect, interaction = (
        mean_interval(
            values, options.level, options.resamples, np.random.default_rng(study.seed % 2**64)
        )  # numpy takes no negative seed
        for values in (effects, interactions)
    )
    several = slice(len(plan.heads), None)  # a head alone does not interact
    together = interactions[..., several]
    sign, small, q = np.zeros((3, len(plan.ways), len(plan.sets)))
    sign[:, several] = significant_sign(together, by)
    small[:, several] = adjusted(equivalence_test(together, by.delta)) < by.alpha
    q[:, several] = effect_q(together, by)
    return _Shown(
        effect.low,
        effect.high,
        significant_sign(effects, by),
        interaction.low,
        interaction.high,
        sign.astype(int),
        small.astype(bool),
        q,
    )
