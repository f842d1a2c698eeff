"""One token of a forced answer, and what every head does to it: its rows and figures."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor

from headpatch.core.ranking import MASSES
from headpatch.engine.interventions import Direction
from headpatch.engine.patching import WITH, WITHOUT
from headpatch.questions.trace.forced import Answer
from headpatch.stats.effects import normalized_effect
from headpatch.stats.rankings import descending, spearman

Maps: TypeAlias = dict[str, Float[np.ndarray, "layers heads"]]
Way: TypeAlias = tuple[str, Direction]

MEASURES = ("contrast", "logit", "logprob")
"""Of a token: logit(token) - logit(rival), logit(token), and its log-probability in nats."""
RUN = {"noising": "with", "denoising": "without"}
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


def largest(values: Float[np.ndarray, "layers heads"], count: int) -> list[tuple[int, int]]:
    """Return layer and head of the largest values; none if no value is known."""
    if np.isnan(values).all():
        return []
    heads = values.shape[1]
    return [divmod(flat, heads) for flat in descending(values)[:count].tolist()]


def rows(pair: str, one: Token, way: Way) -> pd.DataFrame:
    """Return the rows of ``trace.csv`` of one token, kind and direction."""
    kind, direction = way
    effects = one.effects[way]
    layers, heads = effects["logit"].shape
    mean, sd = _others(effects[one.measure])
    run = WITH if direction == "noising" else WITHOUT
    contrast = one.measured["contrast"]
    normalized = normalized_effect(
        contrast[run] + effects["contrast"], contrast[WITH], contrast[WITHOUT], direction
    )
    columns: dict[str, Any] = {
        "pair": pair,
        "forced": one.answer.source,
        "index": one.index,
        "token": one.text,
        "rival": one.rival,
        "kind": kind,
        "direction": direction,
        "run": RUN[direction],
        "layer": np.repeat(np.arange(layers), heads),
        "head": np.tile(np.arange(heads), layers),
        **{name: one.attention[name].ravel() for name in MASSES},
        "measure": one.measure,
        "base_with": one.measured[one.measure][WITH],
        "base_without": one.measured[one.measure][WITHOUT],
        "effect": effects[one.measure].ravel(),
        "effect_logit": effects["logit"].ravel(),
        "effect_logprob": effects["logprob"].ravel(),
        "normalized": np.asarray(normalized).ravel(),
        "layer_mean": mean.ravel(),
        "layer_sd": sd.ravel(),
        "below_floor": (np.abs(effects[one.measure]) <= one.floors[one.measure]).ravel(),
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


def summary(one: Token, top: int) -> dict[str, Any]:
    """Return a few figures of a token: its logits, first heads and correlations."""
    found: dict[str, Any] = {
        "forced": one.answer.source,
        "index": one.index,
        "token": one.text,
        "rival": one.rival,
        "says_with": one.says[WITH],
        "says_without": one.says[WITHOUT],
        **{
            f"{name}_{run}": float(one.measured[name][place])
            for name in MEASURES
            for place, run in ((WITH, "with"), (WITHOUT, "without"))
        },
        "measure": one.measure,
        "noise_floor": one.floors[one.measure],
        "attention": [
            {"head": f"{layer}.{head}", "value": float(one.attention["diff"][layer, head])}
            for layer, head in largest(one.attention["diff"], top)
        ],
    }
    for way, effects in one.effects.items():
        found["_".join(way)] = {
            "total": float(np.abs(effects[one.measure]).sum()),
            "top": list(_by_size(one, effects, top)),
            "spearman": looks_and_moves(one.attention["diff"], effects[one.measure]),
        }
    return found


def _by_size(one: Token, effects: Maps, top: int) -> Iterator[dict[str, Any]]:
    """The heads with the largest effects on the token's measure."""
    for layer, head in largest(np.abs(effects[one.measure]), top):
        figures = {name: float(effects[name][layer, head]) for name in MEASURES}
        own = figures[one.measure]
        below = bool(abs(own) <= one.floors[one.measure])
        yield {"head": f"{layer}.{head}", "effect": own, **figures, "below_floor": below}


def looks_and_moves(
    looks: Float[np.ndarray, "layers heads"], effects: Float[np.ndarray, "layers heads"]
) -> float:
    """Spearman's rho, over heads, of attention difference and size of effect; NaN if unknown."""
    if np.isnan(looks).any():
        return float("nan")
    return spearman(looks.ravel(), np.abs(effects).ravel())
