"""One slot of the answers of many pairs: means over the pairs that have a token there."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float

from headpatch.core.baseline_runs import LEAST
from headpatch.core.ranking import MASSES
from headpatch.core.study.study import Study
from headpatch.core.teacher_forcing import Source
from headpatch.engine.patching import WITH, WITHOUT
from headpatch.questions.trace.records import MEASURES, RUNS
from headpatch.questions.trace.token_alignment import Slot, listed
from headpatch.questions.trace.token_runner import Maps, Token, Way
from headpatch.stats.intervals import Interval, mean_interval
from headpatch.stats.scenes import Scenes, by_scene


@dataclass(frozen=True, eq=False)
class SlotMean:
    """Means over the pairs that have a token in a slot.

    By kind and direction: `effects`, then by the names of `MEASURES`; `moves`, those on `measure`
    with their interval; `totals`, of a pair's sum over heads of |effect|; `each`, every pair's, in
    the order of `Slot.answers`, NaN for a pair that is not averaged.
    """

    slot: Slot
    rivals: Mapping[str, int]  # how many pairs have which, the most common first
    measure: str  # what heads are sorted by: contrast where most pairs have a rival, else logit
    counts: Mapping[str, int]  # pairs that are averaged, by measure; a contrast takes a rival
    measured: Mapping[str, Float[np.ndarray, " runs"]]  # untouched, by measure; NaN over no pair
    attention: Maps
    looks: Interval  # the attention difference
    effects: Mapping[Way, Maps]
    moves: Mapping[Way, Interval]
    totals: Mapping[Way, Interval]
    each: Mapping[Way, Float[np.ndarray, "pairs layers heads"]]
    floor: float  # largest effect on measure, of any pair, of patching a head with its own z
    said: pd.DataFrame  # a row for each pair: its token, rival and untouched measures

    @property
    def pairs(self) -> int:
        """Pairs that have a token here."""
        return len(self.slot.answers)

    @property
    def source(self) -> Source:
        """Whose answers they are."""
        return self.slot.source

    @property
    def index(self) -> int:
        """Its place among the slots of these answers."""
        return self.slot.index

    @property
    def text(self) -> str:
        """The tokens as a label."""
        return listed(self.slot.texts)

    @property
    def rival(self) -> str:
        """The rivals as a label; empty where the logit leads."""
        return listed(self.rivals) if self.measure == "contrast" else ""


def mean_of(
    study: Study, slot: Slot, tokens: Sequence[Token], pairs: Sequence[str], scenes: Scenes
) -> SlotMean:
    """Average the tokens of a slot's answers, given their pairs' names and scenes.

    An interval takes `headpatch.core.baseline_runs.LEAST` scenes; with fewer its ends are NaN.
    """
    contested = np.array([bool(token.rival) for token in tokens])
    measure = "contrast" if 2 * contested.sum() > len(tokens) else "logit"
    averaged = {name: np.ones_like(contested) for name in MEASURES} | {"contrast": contested}
    measured = {name: np.stack([token.measured[name] for token in tokens]) for name in MEASURES}
    attention = {name: np.stack([token.attention[name] for token in tokens]) for name in MASSES}
    effects, moves, totals, each = {}, {}, {}, {}
    for way in tokens[0].effects:
        by_pair = {
            name: np.stack([token.effects[way][name] for token in tokens]) for name in MEASURES
        }
        effects[way] = {name: _mean(by_pair[name], averaged[name], scenes) for name in MEASURES}
        each[way] = np.where(averaged[measure][:, None, None], by_pair[measure], np.nan)
        own, shown = by_pair[measure][averaged[measure]], scenes[averaged[measure]]
        moves[way] = _interval(study, own, shown)
        totals[way] = _interval(study, np.nansum(np.abs(own), (1, 2)), shown)
    return SlotMean(
        slot,
        dict(Counter(token.rival for token in tokens if token.rival).most_common()),
        measure,
        {name: int(which.sum()) for name, which in averaged.items()},
        {name: _mean(measured[name], averaged[name], scenes) for name in MEASURES},
        {name: by_scene(values, scenes).mean(0) for name, values in attention.items()},
        _interval(study, attention["diff"], scenes),
        effects,
        moves,
        totals,
        each,
        max(token.floors[measure] for token in tokens),
        _said(slot, tokens, pairs, averaged[measure]),
    )


def _mean(
    values: Float[np.ndarray, "pairs *rest"], which: Bool[np.ndarray, " pairs"], scenes: Scenes
) -> Float[np.ndarray, "*rest"]:
    """Mean over the scenes of some pairs; NaN over none."""
    if not which.any():
        return np.full(values.shape[1:], np.nan)
    return np.asarray(by_scene(values[which], scenes[which]).mean(0))


def _interval(study: Study, by_pair: Float[np.ndarray, "pairs *rest"], scenes: Scenes) -> Interval:
    """Mean over scenes with its interval, where all of enough scenes have the figure."""
    values = by_scene(by_pair, scenes)
    there = np.isfinite(values).all(0)
    none = np.full(values.shape[1:], np.nan)
    if len(values) < LEAST or not there.any():
        return Interval(np.asarray(values.mean(0)), none, none)
    rng = np.random.default_rng(study.seed % 2**64)  # numpy takes no negative seed
    known = values if there.all() else values[:, there]
    found = mean_interval(known, study.pairs.level, study.pairs.resamples, rng)
    if there.all():
        return found
    low, high = none.copy(), none
    low[there], high[there] = found.low, found.high
    return Interval(np.asarray(values.mean(0)), low, high)


def _said(
    slot: Slot, tokens: Sequence[Token], pairs: Sequence[str], averaged: Bool[np.ndarray, " pairs"]
) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "pair": pairs,
            "forced": slot.source,
            "slot": slot.index,
            "index": [token.index for token in tokens],
            "token": [token.text for token in tokens],
            "rival": [token.rival for token in tokens],
            "says_with": [token.says[WITH] for token in tokens],
            "says_without": [token.says[WITHOUT] for token in tokens],
            "averaged": averaged,
            **{
                f"{name}_{run}": [float(token.measured[name][place]) for token in tokens]
                for name in MEASURES
                for place, run in enumerate(RUNS)
            },
        }
    )
