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
from headpatch.questions.trace.records import MEASURES, RUNS
from headpatch.questions.trace.token_alignment import Slot, listed
from headpatch.questions.trace.token_effects import CHANGED, Maps, Token, Way
from headpatch.stats.intervals import Interval, mean_interval


@dataclass(frozen=True, eq=False)
class SlotMean:
    """Means over the pairs that have a token in a slot.

    Attributes
    ----------
    rivals
        How many pairs have which rival (see `headpatch.questions.trace.token_effects.Token`), the
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
    contested = np.array([bool(token.rival) for token in tokens])
    measure = "contrast" if 2 * contested.sum() > len(tokens) else "logit"
    averaged = {name: np.ones_like(contested) for name in MEASURES} | {"contrast": contested}
    attention = {name: np.stack([token.attention[name] for token in tokens]) for name in MASSES}
    effects, moves, totals, each = {}, {}, {}, {}
    for way in tokens[0].effects:
        by_pair = {
            name: np.stack([token.effects[way][name] for token in tokens]) for name in MEASURES
        }
        effects[way] = {name: _mean(by_pair[name], averaged[name]) for name in MEASURES}
        each[way] = np.where(averaged[measure][:, None, None], by_pair[measure], np.nan)
        own = by_pair[measure][averaged[measure]]
        moves[way] = _interval(study, own)
        totals[way] = _interval(study, np.abs(own).sum((1, 2)))
    return SlotMean(
        slot,
        dict(Counter(token.rival for token in tokens if token.rival).most_common()),
        measure,
        {name: int(which.sum()) for name, which in averaged.items()},
        {
            name: _mean(np.stack([token.measured[name] for token in tokens]), averaged[name])
            for name in MEASURES
        },
        {name: values.mean(0) for name, values in attention.items()},
        _interval(study, attention["diff"]),
        effects,
        moves,
        totals,
        each,
        max(token.floors[measure] for token in tokens),
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
    for pair, token in zip(pairs, tokens, strict=True):
        row: dict[str, Any] = {
            "pair": pair,
            "forced": slot.source,
            "slot": slot.index,
            "index": token.index,
            "token": token.text,
            "rival": token.rival,
            "says_with": token.says[WITH],
            "says_without": token.says[WITHOUT],
            "averaged": measure != "contrast" or bool(token.rival),
        }
        for name in MEASURES:
            for place, run in enumerate(RUNS):
                row[f"{name}_{run}"] = float(token.measured[name][place])
        rows.append(row)
    return pd.DataFrame(rows)


def rows(mean: SlotMean, way: Way) -> pd.DataFrame:
    """Return the rows of ``trace_mean.csv`` of one slot, kind and direction."""
    kind, direction = way
    layers, heads = mean.attention["diff"].shape
    moves = mean.moves[way]
    columns: dict[str, Any] = {
        "forced": mean.slot.source,
        "slot": mean.slot.index,
        "tokens": counted(mean.slot.texts),
        "rivals": counted(mean.rivals),
        "pairs": mean.pairs,
        "kind": kind,
        "direction": direction,
        "run": CHANGED[direction],
        "layer": np.repeat(np.arange(layers), heads),
        "head": np.tile(np.arange(heads), layers),
        "diff": mean.looks.mean.ravel(),
        "diff_low": mean.looks.low.ravel(),
        "diff_high": mean.looks.high.ravel(),
        **{name: mean.attention[name].ravel() for name in MASSES if name != "diff"},
        "measure": mean.measure,
        "measure_pairs": mean.counts[mean.measure],
        "base_with": mean.measured[mean.measure][WITH],
        "base_without": mean.measured[mean.measure][WITHOUT],
        "effect": moves.mean.ravel(),
        "effect_low": moves.low.ravel(),
        "effect_high": moves.high.ravel(),
        "effect_logit": mean.effects[way]["logit"].ravel(),
        "effect_logprob": mean.effects[way]["logprob"].ravel(),
        "below_floor": (np.abs(moves.mean) <= mean.floor).ravel(),
    }
    return pd.DataFrame(columns)


def counted(texts: Mapping[str, int]) -> str:
    """Write tokens with how many pairs have them: ``ring (3), square (2)``."""
    return ", ".join(f"{text} ({count})" for text, count in texts.items())


def arrays(means: Sequence[SlotMean], pairs: Sequence[str]) -> dict[str, Any]:
    """Return what ``trace.pt`` holds of slots, in float64; the first axis is the slots.

    Parameters
    ----------
    pairs
        Names of all.
    """
    ways = {"_".join(way): way for way in means[0].moves}
    held: dict[str, Any] = {
        "pair_names": list(pairs),
        "tokens": [mean.text for mean in means],
        "texts": [dict(mean.slot.texts) for mean in means],
        "index": np.array([mean.slot.index for mean in means]),
        "forced": [mean.slot.source for mean in means],
        "rivals": [mean.rival for mean in means],
        "measures": [mean.measure for mean in means],
        "pairs": np.array([mean.pairs for mean in means]),
        "measure_pairs": np.array([mean.counts[mean.measure] for mean in means]),
        "floor": np.array([mean.floor for mean in means]),
        **{name: np.stack([mean.attention[name] for mean in means]) for name in MASSES},
        "diff_low": np.stack([mean.looks.low for mean in means]),
        "diff_high": np.stack([mean.looks.high for mean in means]),
    }
    for name in MEASURES:
        for place, run in enumerate(RUNS):
            held[f"{name}_{run}"] = np.array([mean.measured[name][place] for mean in means])
        held[f"effect_{name}"] = {
            word: np.stack([mean.effects[way][name] for mean in means])
            for word, way in ways.items()
        }
    for name, end in (("total", "mean"), ("total_low", "low"), ("total_high", "high")):
        held[name] = {
            word: np.array([float(getattr(mean.totals[way], end)) for mean in means])
            for word, way in ways.items()
        }
    for end in ("low", "high"):
        held[f"effect_{end}"] = {
            word: np.stack([getattr(mean.moves[way], end) for mean in means])
            for word, way in ways.items()
        }
    held["effect_by_pair"] = {word: _by_pair(means, way, len(pairs)) for word, way in ways.items()}
    return held


def _by_pair(
    means: Sequence[SlotMean], way: Way, pairs: int
) -> Float[np.ndarray, "pairs slots layers heads"]:
    """Return every pair's effects; NaN where a pair is not averaged."""
    effects = np.full((pairs, len(means), *means[0].looks.mean.shape), np.nan)
    for place, mean in enumerate(means):
        effects[mean.slot.answers, place] = mean.each[way]
    return effects
