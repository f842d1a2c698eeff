"""What a verdict measures of one pair, as plain values that can be kept."""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

import numpy as np
import torch
from jaxtyping import Float

from headpatch.engine.interventions import Direction
from headpatch.heads import HeadSet

PerHead = Float[np.ndarray, "layers heads"]
KINDS: tuple[str, ...] = ("resample", "mean")
DIRECTIONS: tuple[Direction, ...] = ("noising", "denoising")


@dataclass(frozen=True)
class Task:
    """What to measure of a pair, beside the sweeps of every head.

    Attributes
    ----------
    sets
        Noised as they are, by resampling.
    attribution
        Whether gradients estimate the effect of every head.
    nulls
        Whether it is asked about a wrong place and mirrored.
    vision
        Whether all heads of each vision layer are resampled.
    """

    sets: tuple[HeadSet, ...] = ()
    attribution: bool = False
    nulls: bool = False
    vision: bool = False

    def words(self) -> dict[str, Any]:
        """Return what names the task in a key."""
        return {
            "sets": [str(members) for members in self.sets],
            "attribution": self.attribution,
            "nulls": self.nulls,
            "vision": self.vision,
        }


@dataclass(frozen=True, eq=False)
class Other:
    """The pair asked otherwise.

    Attributes
    ----------
    ld_with, ld_without
        Untouched.
    attention
        Attention difference of the place that is asked about.
    noising, denoising
        Shift of LD in logits when each head is resampled.
    """

    ld_with: float
    ld_without: float
    attention: PerHead
    noising: PerHead
    denoising: PerHead


@dataclass(frozen=True, eq=False)
class PairRecord:
    """What was measured of one pair.

    Attributes
    ----------
    ld_with, ld_without
        Untouched, in logits.
    effects
        Normalized, by ``kind_direction``.
    floor
        Noise floor, in logits; see `headpatch.core.noise_floor.floor_of`.
    nothing
        Largest effect, in logits, of patching a head with its own z, or how far widening passes
        were off in their self-check: what should be nothing, which a null tests.
    sets
        Normalized effect of noising each of the task's sets, in order.
    attribution
        Estimated normalized effect of resampling, by direction.
    vision
        Normalized effect of noising all heads of each vision layer, at all its tokens; empty if it
        was not asked, or they cannot be changed.
    unread
        Largest effect, in logits, of those layers that do not reach the language model; NaN if
        there are none.
    wrong_place, mirrored
        None if not asked, or the question cannot be turned.
    widened
        Whether heads were changed by widening passes, which are exact for the model.
    """

    name: str
    ld_with: float
    ld_without: float
    effects: Mapping[str, PerHead]
    floor: float
    nothing: float
    sets: Float[np.ndarray, " sets"]
    attribution: Mapping[str, PerHead] = field(default_factory=dict)
    vision: Float[np.ndarray, " vision_layers"] = field(default_factory=lambda: np.zeros(0))
    unread: float = float("nan")
    wrong_place: Other | None = None
    mirrored: Other | None = None
    widened: bool = True

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
