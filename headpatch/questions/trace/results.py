"""What a trace found, its tables and its tensors: of one pair by token, over pairs by slot."""

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float, Shaped
from torch import Tensor

from headpatch.core.baseline_runs import Survey
from headpatch.core.question import Files, Result
from headpatch.core.ranking import MASSES
from headpatch.core.session import Session
from headpatch.core.study.options import alpha_of
from headpatch.core.study.study import Study
from headpatch.core.teacher_forcing import Answer
from headpatch.engine.patching import WITH, WITHOUT
from headpatch.present.column import Schema
from headpatch.present.head_columns import with_alpha
from headpatch.questions.trace.aligned_mean import SlotMean
from headpatch.questions.trace.columns import MEANS, TOKENS, TRACE
from headpatch.questions.trace.records import MEASURES, RUNS, records
from headpatch.questions.trace.token_runner import Token, Way, deep
from headpatch.questions.trace.view import summary
from headpatch.stats.effects import normalized_effect


@dataclass(frozen=True, eq=False, repr=False)
class _Traced(Result):
    @property
    def study(self) -> Study:
        """The study that was asked."""
        return self.origin.study

    @property
    def summary(self) -> str:
        """Which heads move which token most, in a sentence."""
        return summary(self.summaries(), self.origin.context)

    def summaries(self) -> list[dict[str, Any]]:
        """Return a few figures of each token or slot: logits, first heads and correlations."""
        return records(self._arrays(), self.study.trace.top)

    def json(self) -> Mapping[str, Any]:
        """Return what ``--json`` prints of the tokens, or slots."""
        return {"tokens": self.summaries(), "summary": self.summary}

    @abstractmethod
    def _arrays(self) -> dict[str, Any]:
        """Return what ``trace.pt`` holds of tokens or slots, its first axis, in float64."""

    def _saved(self, **facts: Any) -> dict[str, Any]:
        context = self.origin.context
        return {
            **deep(self._arrays(), np.ndarray, _tensor),
            **facts,
            "noise_floor": self.noise_floor,
            "valid": self.valid,
            "question": context.question,
            "region_name": context.region,
            **alpha_of(self.study.trace),
        }

    def _table(self, schema: Schema, rows: Sequence[pd.DataFrame]) -> pd.DataFrame:
        table = pd.concat(rows, ignore_index=True)
        there = table[table["effect_logit"].notna()]  # not in layers without heads
        table = with_alpha(there.reset_index(drop=True), self.study.trace.alpha)
        return pd.DataFrame(schema.ordered(table))


@dataclass(frozen=True, eq=False, repr=False)
class Traced(_Traced):
    """What `headpatch.trace` found of one pair.

    Attributes
    ----------
    tokens
        Of every forced answer, in order.
    own
        What each run says by itself: with, without.
    """

    session: Session
    tokens: tuple[Token, ...]
    own: tuple[Answer, Answer]

    def table(self) -> pd.DataFrame:
        """One row for each token × kind × direction × head: the columns of ``trace.csv``."""
        name = self.session.pair.name
        rows = [_of_token(name, one, way) for one in self.tokens for way in one.effects]
        return self._table(TRACE, rows)

    def _arrays(self) -> dict[str, Any]:
        return _arrays(self.tokens) | {
            "token_ids": np.array([token.answer.ids[token.index] for token in self.tokens]),
            "says_with": [token.says[WITH] for token in self.tokens],
            "says_without": [token.says[WITHOUT] for token in self.tokens],
            **{
                f"{name}_floor": np.array([token.floors[name] for token in self.tokens])
                for name in MEASURES
            },
        }

    def saved(self) -> dict[str, Any]:
        """Return what ``trace.pt`` holds; a tensor's first dimension is the tokens."""
        with_answer, without_answer = (answer.text for answer in self.own)
        return self._saved(answer_with=with_answer, answer_without=without_answer)

    def files(self) -> Files:
        """Return the table and the tensors."""
        return {TRACE.file: self.table(), "trace.pt": self.saved()}

    def json(self) -> Mapping[str, Any]:
        """Return what ``--json`` prints of the tokens."""
        answers = {answer.source: answer.text for answer in self.own}
        return {"noise_floor": self.noise_floor, "answers": answers, **super().json()}


@dataclass(frozen=True, eq=False, repr=False)
class TracedPairs(_Traced):
    """What `headpatch.trace` found over pairs; `slots` are of every forced answer, in order."""

    survey: Survey
    slots: tuple[SlotMean, ...]

    def table(self) -> pd.DataFrame:
        """One row for each slot × kind × direction × head: the columns of ``trace_mean.csv``."""
        return self._table(MEANS, [_of_slot(one, way) for one in self.slots for way in one.moves])

    def said(self) -> pd.DataFrame:
        """One row for each pair × token: the columns of ``trace_tokens.csv``."""
        tokens = pd.concat([slot.said for slot in self.slots], ignore_index=True)
        places = {entry.name: place for place, entry in enumerate(self.survey.entries)}
        order = tokens["pair"].map(places)
        return tokens.loc[order.sort_values(kind="stable").index].reset_index(drop=True)

    def summaries(self) -> list[dict[str, Any]]:
        """Return likewise figures of each slot, with how many pairs have which rival."""
        made = super().summaries()
        for record, slot in zip(made, self.slots, strict=True):
            record["rivals"] = dict(slot.rivals)
        return made

    def _arrays(self) -> dict[str, Any]:
        slots, names = self.slots, [entry.name for entry in self.survey.entries]
        held: dict[str, Any] = _arrays(slots) | {
            "pair_names": names,
            "texts": [dict(slot.slot.texts) for slot in slots],
            "pairs": np.array([slot.pairs for slot in slots]),
            "measure_pairs": np.array([slot.counts[slot.measure] for slot in slots]),
            "floor": np.array([slot.floor for slot in slots]),
            "total": _by_way(slots, "totals", "mean"),
        }
        for end in ("low", "high"):
            held[f"diff_{end}"] = np.stack([getattr(slot.looks, end) for slot in slots])
            held[f"total_{end}"] = _by_way(slots, "totals", end)
            held[f"effect_{end}"] = _by_way(slots, "moves", end)
        held["effect_by_pair"] = {"_".join(way): self._by_pair(way) for way in slots[0].moves}
        return held

    def _by_pair(self, way: Way) -> Float[np.ndarray, "pairs slots layers heads"]:
        """Return every pair's effects; NaN where a pair is not averaged."""
        shape = len(self.survey.entries), len(self.slots), *self.slots[0].looks.mean.shape
        effects = np.full(shape, np.nan)
        for place, slot in enumerate(self.slots):
            effects[slot.slot.answers, place] = slot.each[way]
        return effects

    def saved(self) -> dict[str, Any]:
        """Return what ``trace.pt`` holds: what it holds of one pair, a slot in a token's place."""
        return self._saved(level=self.study.pairs.level)

    def files(self) -> Files:
        """Return the tables and the tensors."""
        return {MEANS.file: self.table(), TOKENS.file: self.said(), "trace.pt": self.saved()}

    def json(self) -> Mapping[str, Any]:
        """Return what ``--json`` prints of the slots."""
        level = self.study.pairs.level
        return {"level": level, "noise_floor": self.noise_floor, **super().json()}


def _columns(
    one: Token | SlotMean, way: Way, effect: Float[np.ndarray, "layers heads"]
) -> dict[str, Any]:
    """Return the columns that both tables have, of one token or slot, kind and direction."""
    (kind, direction), (layers, heads) = way, effect.shape
    base = one.measured[one.measure]
    return {
        "forced": one.source,
        "kind": kind,
        "direction": direction,
        "run": {"noising": "with", "denoising": "without"}[direction],
        "layer": np.repeat(np.arange(layers), heads),
        "head": np.tile(np.arange(heads), layers),
        **{name: one.attention[name].ravel() for name in MASSES},
        "measure": one.measure,
        "base_with": base[WITH],
        "base_without": base[WITHOUT],
        "effect": effect.ravel(),
        "effect_logit": one.effects[way]["logit"].ravel(),
        "effect_logprob": one.effects[way]["logprob"].ravel(),
        "below_floor": (np.abs(effect) <= one.floor).ravel(),
    }


def _of_token(pair: str, token: Token, way: Way) -> pd.DataFrame:
    direction, effects, contrast = way[1], token.effects[way], token.measured["contrast"]
    mean, sd = _others(effects[token.measure])
    after = contrast[WITH if direction == "noising" else WITHOUT] + effects["contrast"]
    shares = normalized_effect(after, contrast[WITH], contrast[WITHOUT], direction)
    return pd.DataFrame(
        {
            **_columns(token, way, effects[token.measure]),
            "pair": pair,
            "index": token.index,
            "token": token.text,
            "rival": token.rival,
            "normalized": shares.ravel(),
            "layer_mean": mean.ravel(),
            "layer_sd": sd.ravel(),
        }
    )


def _others(
    effects: Float[np.ndarray, "layers heads"],
) -> tuple[Float[np.ndarray, "layers heads"], Float[np.ndarray, "layers heads"]]:
    """Mean and sample deviation of the layer's other heads; NaN where there are too few."""
    count = effects.shape[1] - 1
    if count < 2:
        none = np.full(effects.shape, np.nan)
        return none, none
    mean = (effects.sum(1, keepdims=True) - effects) / count
    away = effects[:, None, :] - mean[:, :, None]  # [layers, heads, others and itself]
    own = np.eye(count + 1, dtype=bool)
    return mean, np.sqrt(np.where(own, 0.0, away**2).sum(2) / (count - 1))


def _of_slot(slot: SlotMean, way: Way) -> pd.DataFrame:
    looks, moves = slot.looks, slot.moves[way]
    return pd.DataFrame(
        {
            **_columns(slot, way, moves.mean),
            "slot": slot.index,
            "tokens": _counted(slot.slot.texts),
            "rivals": _counted(slot.rivals),
            "pairs": slot.pairs,
            "measure_pairs": slot.counts[slot.measure],
            "diff": looks.mean.ravel(),
            "diff_low": looks.low.ravel(),
            "diff_high": looks.high.ravel(),
            "effect_low": moves.low.ravel(),
            "effect_high": moves.high.ravel(),
        }
    )


def _counted(texts: Mapping[str, int]) -> str:
    """Write tokens with how many pairs have them: ``ring (3), square (2)``."""
    return ", ".join(f"{text} ({count})" for text, count in texts.items())


def _arrays(many: Sequence[Token] | Sequence[SlotMean]) -> dict[str, Any]:
    """Return what ``trace.pt`` holds of tokens and of slots alike."""
    held: dict[str, Any] = {
        "tokens": [one.text for one in many],
        "index": np.array([one.index for one in many]),
        "forced": [one.source for one in many],
        "rivals": [one.rival for one in many],
        "measures": [one.measure for one in many],
        **{name: np.stack([one.attention[name] for one in many]) for name in MASSES},
    }
    for name in MEASURES:
        for place, run in enumerate(RUNS):
            held[f"{name}_{run}"] = np.array([one.measured[name][place] for one in many])
        held[f"effect_{name}"] = {
            "_".join(way): np.stack([one.effects[way][name] for one in many])
            for way in many[0].effects
        }
    return held


def _by_way(slots: Sequence[SlotMean], name: str, end: str) -> dict[str, Any]:
    """Return means over pairs, or an end of their intervals, of moves or totals."""
    return {
        "_".join(way): np.stack([getattr(getattr(slot, name)[way], end) for slot in slots])
        for way in slots[0].effects
    }


def _tensor(values: Shaped[np.ndarray, "..."]) -> Tensor:
    """Return an array as a ``.pt`` file holds it: figures in float32."""
    tensor = torch.from_numpy(values)
    return tensor.float() if tensor.is_floating_point() else tensor
