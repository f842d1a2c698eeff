"""One slot of the answers of many pairs: means over the pairs that have a token there."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float

from headpatch.core.baseline_runs import LEAST
from headpatch.core.ranking import MASSES
from headpatch.core.study import Study
from headpatch.engine.patching import WITH, WITHOUT
from headpatch.questions.trace.answer_token import (
    MEASURES,
    RUN,
    Maps,
    Token,
    Way,
    largest,
    looks_and_moves,
)
from headpatch.questions.trace.slots import Slot, listed
from headpatch.stats.intervals import Interval, mean_interval


@dataclass(frozen=True, eq=False)
class SlotMean:
    """Means over the pairs that have a token in a slot.

    Attributes
    ----------
    rivals
        How many pairs have which rival (see `headpatch.questions.trace.answer_token.Token`), the
        most common first; pairs without one are not counted.
    measure
        What heads are sorted by: the contrast where most pairs have a rival, else the logit.
    counts
        By the names of `MEASURES`: pairs that are averaged. A contrast takes a rival.
    measured
        Means ``[runs]`` of the untouched runs, by the same names; NaN over no pair.
    attention
        Means of the figures of `headpatch.core.ranking.MASSES`.
    looks
        The mean attention difference, with its interval over pairs.
    effects
        Means by kind and direction, then by the names of `MEASURES`.
    moves
        By kind and direction: the mean effect on `measure`, with its interval.
    totals
        By kind and direction: sum over heads of a pair's |effect| on `measure`, mean and interval.
    each
        By kind and direction: every pair's effects on `measure`, in the order of `Slot.answers`;
        NaN for a pair that is not averaged.
    floor
        Largest effect on `measure`, of any pair, of patching a head with its own z.
    said
        A row for each pair: its token, rival and untouched measures.
    """

    slot: Slot
    rivals: Mapping[str, int]
    measure: str
    counts: Mapping[str, int]
    measured: Mapping[str, Float[np.ndarray, " runs"]]
    attention: Maps
    looks: Interval
    effects: Mapping[Way, Maps]
    moves: Mapping[Way, Interval]
    totals: Mapping[Way, Interval]
    each: Mapping[Way, Float[np.ndarray, "pairs layers heads"]]
    floor: float
    said: pd.DataFrame

    @property
    def pairs(self) -> int:
        """Pairs that have a token here."""
        return len(self.slot.answers)

    @property
    def text(self) -> str:
        """The tokens as a label."""
        return listed(self.slot.texts)

    @property
    def rival(self) -> str:
        """The rivals as a label; empty where the logit leads."""
        return listed(self.rivals) if self.measure == "contrast" else ""


def mean_of(study: Study, slot: Slot, tokens: Sequence[Token], pairs: Sequence[str]) -> SlotMean:
    """Average the tokens of a slot.

    An interval takes `headpatch.core.baseline_runs.LEAST` pairs; with fewer its ends are NaN.

    Parameters
    ----------
    tokens
        Those of the slot's answers, in their order.
    pairs
        Names of their pairs.
    """
    contested = np.array([bool(one.rival) for one in tokens])
    measure = "contrast" if 2 * contested.sum() > len(tokens) else "logit"
    averaged = {name: np.ones_like(contested) for name in MEASURES} | {"contrast": contested}
    attention = {name: np.stack([one.attention[name] for one in tokens]) for name in MASSES}
    effects, moves, totals, each = {}, {}, {}, {}
    for way in tokens[0].effects:
        found = {name: np.stack([one.effects[way][name] for one in tokens]) for name in MEASURES}
        effects[way] = {name: _mean(found[name], averaged[name]) for name in MEASURES}
        each[way] = np.where(averaged[measure][:, None, None], found[measure], np.nan)
        own = found[measure][averaged[measure]]
        moves[way] = _interval(study, own)
        totals[way] = _interval(study, np.abs(own).sum((1, 2)))
    return SlotMean(
        slot,
        dict(Counter(one.rival for one in tokens if one.rival).most_common()),
        measure,
        {name: int(which.sum()) for name, which in averaged.items()},
        {
            name: _mean(np.stack([one.measured[name] for one in tokens]), averaged[name])
            for name in MEASURES
        },
        {name: values.mean(0) for name, values in attention.items()},
        _interval(study, attention["diff"]),
        effects,
        moves,
        totals,
        each,
        max(one.floors[measure] for one in tokens),
        _said(slot, tokens, pairs, measure),
    )


def _mean(
    values: Float[np.ndarray, "pairs *rest"], which: Bool[np.ndarray, " pairs"]
) -> Float[np.ndarray, "*rest"]:
    """Mean over some pairs; NaN over none."""
    return values[which].mean(0) if which.any() else np.full(values.shape[1:], np.nan)


def _interval(study: Study, values: Float[np.ndarray, "pairs *rest"]) -> Interval:
    """Mean over pairs with its interval, where there are enough pairs and all figures."""
    if len(values) < LEAST or not np.isfinite(values).all():
        none = np.full(values.shape[1:], np.nan)
        return Interval(np.asarray(values.mean(0)), none, none)
    rng = np.random.default_rng(study.seed % 2**64)  # numpy takes no negative seed
    return mean_interval(values, study.pairs.level, study.pairs.resamples, rng)


def _said(slot: Slot, tokens: Sequence[Token], pairs: Sequence[str], measure: str) -> pd.DataFrame:
    rows = []
    for pair, one in zip(pairs, tokens, strict=True):
        row: dict[str, Any] = {
            "pair": pair,
            "forced": slot.source,
            "slot": slot.index,
            "index": one.index,
            "token": one.text,
            "rival": one.rival,
            "says_with": one.says[WITH],
            "says_without": one.says[WITHOUT],
            "averaged": measure != "contrast" or bool(one.rival),
        }
        for name in MEASURES:
            row |= {f"{name}_{run}": float(one.measured[name][place]) for place, run in _RUNS}
        rows.append(row)
    return pd.DataFrame(rows)


_RUNS = ((WITH, "with"), (WITHOUT, "without"))


def rows(one: SlotMean, way: Way) -> pd.DataFrame:
    """Return the rows of ``trace_mean.csv`` of one slot, kind and direction."""
    kind, direction = way
    layers, heads = one.attention["diff"].shape
    moves = one.moves[way]
    columns: dict[str, Any] = {
        "forced": one.slot.source,
        "slot": one.slot.index,
        "tokens": counted(one.slot.texts),
        "rivals": counted(one.rivals),
        "pairs": one.pairs,
        "kind": kind,
        "direction": direction,
        "run": RUN[direction],
        "layer": np.repeat(np.arange(layers), heads),
        "head": np.tile(np.arange(heads), layers),
        "diff": one.looks.mean.ravel(),
        "diff_low": one.looks.low.ravel(),
        "diff_high": one.looks.high.ravel(),
        **{name: one.attention[name].ravel() for name in MASSES if name != "diff"},
        "measure": one.measure,
        "measure_pairs": one.counts[one.measure],
        "base_with": one.measured[one.measure][WITH],
        "base_without": one.measured[one.measure][WITHOUT],
        "effect": moves.mean.ravel(),
        "effect_low": moves.low.ravel(),
        "effect_high": moves.high.ravel(),
        "effect_logit": one.effects[way]["logit"].ravel(),
        "effect_logprob": one.effects[way]["logprob"].ravel(),
        "below_floor": (np.abs(moves.mean) <= one.floor).ravel(),
    }
    return pd.DataFrame(columns)


def counted(texts: Mapping[str, int]) -> str:
    """Write tokens with how many pairs have them: ``ring (3), square (2)``."""
    return ", ".join(f"{text} ({count})" for text, count in texts.items())


def summary(one: SlotMean, top: int) -> dict[str, Any]:
    """Return a few figures of a slot: its logits, first heads and correlations."""
    found: dict[str, Any] = {
        "forced": one.slot.source,
        "slot": one.slot.index,
        "token": one.text,
        "rival": one.rival,
        "tokens": dict(one.slot.texts),
        "rivals": dict(one.rivals),
        "pairs": one.pairs,
        "measure": one.measure,
        "measure_pairs": one.counts[one.measure],
        **{
            f"{name}_{run}": float(one.measured[name][place])
            for name in MEASURES
            for place, run in _RUNS
        },
        "noise_floor": one.floor,
        "attention": [
            {"head": f"{layer}.{head}", **_ends(one.looks, "value", (layer, head))}
            for layer, head in largest(one.looks.mean, top)
        ],
    }
    for way, moves in one.moves.items():
        found["_".join(way)] = {
            **_ends(one.totals[way], "total"),
            "top": [
                {
                    "head": f"{layer}.{head}",
                    **_ends(moves, "effect", (layer, head)),
                    **{name: float(one.effects[way][name][layer, head]) for name in MEASURES},
                    "below_floor": bool(abs(moves.mean[layer, head]) <= one.floor),
                }
                for layer, head in largest(np.abs(moves.mean), top)
            ],
            "spearman": looks_and_moves(one.looks.mean, moves.mean),
        }
    return found


def _ends(found: Interval, name: str, place: tuple[int, ...] = ()) -> dict[str, float]:
    """Return a mean and its interval."""
    return {
        name: float(found.mean[place]),
        f"{name}_low": float(found.low[place]),
        f"{name}_high": float(found.high[place]),
    }
