"""What a verdict measures of one pair, as plain values that can be kept."""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

import numpy as np
import torch
from jaxtyping import Float

from headpatch.core.study.study import Study
from headpatch.engine.interventions import Direction
from headpatch.heads import Grid, HeadSet

PerHead = Float[np.ndarray, "layers heads"]
PerPair = Float[np.ndarray, "pairs layers heads"]
DIRECTIONS: tuple[Direction, ...] = ("noising", "denoising")
SWEEPS = tuple((kind, direction) for kind in ("resample", "mean") for direction in DIRECTIONS)
"""How every head is changed; resampled from where the study says, see `resample_kind`."""


def resample_kind(study: Study) -> str:
    """Return the kind that resamples from where a study's verdict takes z."""
    return {"twin": "resample", "other": "resample-other"}[study.verdict.source]


@dataclass(frozen=True)
class Task:
    """What to measure of a pair, beside the sweeps of every head."""

    sets: tuple[HeadSet, ...] = ()  # noised by resampling
    drawn: tuple[int, int, int] | None = None
    """Random sets, noised likewise: how many, seed and place, see `redundant_sets.random_members`.

    They are made when the pair is measured: those of ten thousand pairs take gigabytes."""
    attribution: bool = False  # gradients estimate the effect of every head
    nulls: bool = False  # it is asked about a wrong place and mirrored
    vision: bool = False  # all heads of each vision layer are resampled

    def words(self) -> dict[str, Any]:
        """Return what names the task in a key."""
        return {**vars(self), "sets": list(map(str, self.sets))}

    def rows(self, grid: Grid) -> int:
        """Return how many rows it takes; what is no row counts as about as many."""
        sweeps = len(SWEEPS) + self.attribution + 4 * self.nulls + 3 * self.vision
        return sweeps * len(grid) + len(self.sets) + (self.drawn or (0,))[0]


@dataclass(frozen=True, eq=False)
class Other:
    """The pair asked otherwise: LDs untouched, and their shifts when each head is resampled."""

    ld_with: float
    ld_without: float
    attention: PerHead  # difference, of the place that is asked about
    noising: PerHead  # in logits
    denoising: PerHead


@dataclass(frozen=True, eq=False)
class PairRecord:
    """What was measured of one pair: LDs untouched, in logits; effects of change, normalized."""

    name: str
    ld_with: float
    ld_without: float
    effects: Mapping[str, PerHead]  # by ``kind_direction``
    floor: float  # in logits, see `headpatch.core.effects.floor_of`
    nothing: float
    """What should be nothing, in logits, which a null tests: the largest effect of patching a head
    with its own z, or how far widening passes were off in their self-check."""
    sets: Float[np.ndarray, " sets"]  # noised, in the task's order
    attribution: Mapping[str, PerHead] = field(default_factory=dict)
    """Estimated effect of resampling, by direction."""
    vision: Float[np.ndarray, " vision_layers"] = field(default_factory=lambda: np.zeros(0))
    """Of noising all heads of each layer, at all its tokens; empty if it was not or cannot be."""
    unread: float = float("nan")
    """Largest effect, in logits, of layers that do not reach the language model; NaN: of none."""
    wrong_place: Other | None = None  # not asked, or the question cannot be turned
    mirrored: Other | None = None

    @property
    def gap(self) -> float:
        """LD_with - LD_without."""
        return self.ld_with - self.ld_without

    def to_saved(self) -> dict[str, Any]:
        """Return plain tensors, numbers and texts."""
        saved: dict[str, Any] = _plain(self)
        return saved

    @classmethod
    def from_saved(cls, saved: Mapping[str, Any]) -> "PairRecord":
        """Read back what `to_saved` gave, bit for bit."""
        values = {name: _arrays(value) for name, value in saved.items()}
        for name in ("wrong_place", "mirrored"):
            if values[name] is not None:
                values[name] = Other(**values[name])
        return cls(**values)


def _plain(value: Any) -> Any:
    if isinstance(value, PairRecord | Other):
        return {one.name: _plain(getattr(value, one.name)) for one in fields(value)}
    if isinstance(value, Mapping):
        return {key: _plain(one) for key, one in value.items()}
    return torch.from_numpy(value.copy()) if isinstance(value, np.ndarray) else value


def _arrays(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _arrays(one) for key, one in value.items()}
    return value.numpy() if torch.is_tensor(value) else value
