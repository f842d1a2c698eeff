"""By what heads are judged, and the labels that they get: `headpatch.stats.verdicts` says how."""

from dataclasses import dataclass
from typing import Final, Literal, get_args

Verdict = Literal[
    "necessary+sufficient",
    "necessary",
    "sufficient",
    "redundant",
    "inhibitory",
    "mixed",
    "watches",
    "looks away",
    "inert",
    "undecided",
]
CAUSAL: tuple[Verdict, ...] = get_args(Verdict)[:5]
"""Labels of a head whose effect is shown to be beyond δ in the mean, alone or in a named set."""
SMALL: tuple[Verdict, ...] = ("watches", "looks away", "inert")
"""Labels of a head whose effect is shown to be small, in the mean and on pairs."""
RAW_FLOOR: Final = 0.001
"""Smallest difference in a region's share of *all* attention that is of interest."""


@dataclass(frozen=True)
class Rule:
    """By what a verdict is reached."""

    delta: float  # smallest effect of interest, in normalized units; above 0
    level: float  # of intervals; 1 - level bounds the q-values
    resamples: int  # bootstrap draws
    seed: int  # of them
    attention_delta: float = 0.05  # smallest attention difference of interest, of image attention

    @property
    def alpha(self) -> float:
        """The bound of q-values: 1 - level."""
        return 1 - self.level
