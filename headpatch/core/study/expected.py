"""Published figures, to set beside what is measured."""

from typing import Annotated, Literal

from pydantic import BeforeValidator, Field

from headpatch.core.study.strict import Quadrant, Strict, sequence


class Published(Strict):
    """A head's figures as published."""

    layer: int
    head: int
    diff: float
    with_: Annotated[float, Field(alias="with")]
    without: float


class Expected(Strict):
    """Published figures, printed beside what is measured."""

    source: str
    heads: Annotated[tuple[Published, ...], BeforeValidator(sequence)] = ()
    quadrants: dict[Quadrant, Annotated[tuple[float, float], BeforeValidator(sequence)]] = Field(
        default_factory=dict
    )
    """Quadrant: (with, without)."""
    divergence: dict[Literal["kl", "js", "js_distance"], float] = Field(default_factory=dict)
    vision_diff: dict[int, float] = Field(default_factory=dict)
    """Vision layer: difference."""
    vision_divergence: dict[int, dict[Literal["kl", "js", "js_distance"], float]] = Field(
        default_factory=dict
    )
