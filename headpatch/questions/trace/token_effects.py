"""One token of a forced answer, and what every head does to it: its rows and figures."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor

from headpatch.core.ranking import MASSES
from headpatch.core.teacher_forcing import Answer
from headpatch.engine.interventions import Direction
from headpatch.engine.patching import WITH, WITHOUT
from headpatch.questions.trace.records import MEASURES, RUNS
from headpatch.stats.effects import normalized_effect

Maps: TypeAlias = dict[str, Float[np.ndarray, "layers heads"]]
Way: TypeAlias = tuple[str, Direction]

CHANGED = {"noising": "with", "denoising": "without"}
"""The run that a direction changes."""


@dataclass(frozen=True, eq=False)
class Token:
    """One token of a forced answer, and what every head does to it.

    Attributes
    ----------
    index
        Its place in the answer, from 0.
    rival
        What a run would say in its place, see `headpatch.engine.answers.TokenRuns`; empty if none.
    says
        What each run would say: with, without.
    measured
        Of the untouched runs, ``[runs]``, by the names of `MEASURES`.
    attention
        The figures of `headpatch.core.ranking.MASSES`; NaN where the image is not among the
        prompt's tokens.
    effects
        By kind and direction, then by the names of `MEASURES`; the contrast is NaN without a
        rival.
    floors
        By the names of `MEASURES`: the largest effect of patching a head with its own z.
    """

    answer: Answer
    index: int
    rival: str
    says: tuple[str, str]
    measured: dict[str, Float[np.ndarray, " runs"]]
    attention: Maps
    effects: dict[Way, Maps]
    floors: dict[str, float]

    @property
    def text(self) -> str:
        """The token as text."""
        return self.answer.words[self.index]

    @property
    def measure(self) -> str:
        """What its heads are sorted by: the contrast, or the logit where there is no rival.

        A logit by itself also moves where all logits move together, which changes no answer.
        """
        return "contrast" if self.rival else "logit"

    def to_saved(self) -> dict[str, Any]:
        """Return what was measured, as plain tensors, numbers and texts."""
        return {
            "rival": self.rival,
            "says": self.says,
            "measured": _tensors(self.measured),
            "attention": _tensors(self.attention),
            "effects": {way: _tensors(maps) for way, maps in self.effects.items()},
            "floors": self.floors,
        }

    @classmethod
    def from_saved(cls, answer: Answer, index: int, saved: Mapping[str, Any]) -> "Token":
        """Read back, bit for bit, what `to_saved` gave of a token of this answer."""
        return cls(
            answer,
            index,
            saved["rival"],
            saved["says"],
            _arrays(saved["measured"]),
            _arrays(saved["attention"]),
            {way: _arrays(maps) for way, maps in saved["effects"].items()},
            saved["floors"],
        )


def _tensors(arrays: Mapping[str, Float[np.ndarray, "..."]]) -> dict[str, Tensor]:
    return {name: torch.from_numpy(values.copy()) for name, values in arrays.items()}


def _arrays(tensors: Mapping[str, Tensor]) -> dict[str, Float[np.ndarray, "..."]]:
    return {name: values.numpy() for name, values in tensors.items()}


def rows(pair: str, token: Token, way: Way) -> pd.DataFrame:
    """Return the rows of ``trace.csv`` of one token, kind and direction."""
    kind, direction = way
    effects = token.effects[way]
    layers, heads = effects["logit"].shape
    mean, sd = _others(effects[token.measure])
    run = WITH if direction == "noising" else WITHOUT
    contrast = token.measured["contrast"]
    normalized = normalized_effect(
        contrast[run] + effects["contrast"], contrast[WITH], contrast[WITHOUT], direction
    )
    columns: dict[str, Any] = {
        "pair": pair,
        "forced": token.answer.source,
        "index": token.index,
        "token": token.text,
        "rival": token.rival,
        "kind": kind,
        "direction": direction,
        "run": CHANGED[direction],
        "layer": np.repeat(np.arange(layers), heads),
        "head": np.tile(np.arange(heads), layers),
        **{name: token.attention[name].ravel() for name in MASSES},
        "measure": token.measure,
        "base_with": token.measured[token.measure][WITH],
        "base_without": token.measured[token.measure][WITHOUT],
        "effect": effects[token.measure].ravel(),
        "effect_logit": effects["logit"].ravel(),
        "effect_logprob": effects["logprob"].ravel(),
        "normalized": np.asarray(normalized).ravel(),
        "layer_mean": mean.ravel(),
        "layer_sd": sd.ravel(),
        "below_floor": (np.abs(effects[token.measure]) <= token.floors[token.measure]).ravel(),
    }
    return pd.DataFrame(columns)


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


def arrays(tokens: Sequence[Token]) -> dict[str, Any]:
    """Return what ``trace.pt`` holds of tokens, in float64; the first axis is the tokens."""
    held: dict[str, Any] = {
        "tokens": [token.text for token in tokens],
        "token_ids": np.array([token.answer.ids[token.index] for token in tokens]),
        "index": np.array([token.index for token in tokens]),
        "forced": [token.answer.source for token in tokens],
        "rivals": [token.rival for token in tokens],
        "measures": [token.measure for token in tokens],
        "says_with": [token.says[WITH] for token in tokens],
        "says_without": [token.says[WITHOUT] for token in tokens],
    }
    for name in MEASURES:
        for place, run in enumerate(RUNS):
            held[f"{name}_{run}"] = np.array([token.measured[name][place] for token in tokens])
        held[f"{name}_floor"] = np.array([token.floors[name] for token in tokens])
        held[f"effect_{name}"] = {
            "_".join(way): np.stack([token.effects[way][name] for token in tokens])
            for way in tokens[0].effects
        }
    return held | {name: np.stack([token.attention[name] for token in tokens]) for name in MASSES}


def tensors(held: Mapping[str, Any]) -> dict[str, Any]:
    """Return arrays as a ``.pt`` file holds them, in float32; all else stays as it is."""
    made: dict[str, Any] = {}
    for key, value in held.items():
        if isinstance(value, dict):
            made[key] = tensors(value)
        elif isinstance(value, np.ndarray):
            tensor = torch.from_numpy(value)
            made[key] = tensor.float() if tensor.is_floating_point() else tensor
        else:
            made[key] = value
    return made
