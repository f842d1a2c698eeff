"""By what heads are judged, and the labels that they get: `headpatch.stats.verdicts` says how."""

from dataclasses import dataclass
from typing import Literal, get_args

Verdict = Literal[
    "necessary+sufficient",
    "necessary",
    "sufficient",
    "redundant",
    "inhibitory",
    "watches",
    "inert",
    "undecided",
]
CAUSAL: tuple[Verdict, ...] = get_args(Verdict)[:5]  # labels of a head that is shown to act


@dataclass(frozen=True)
class Rule:
    """By what a verdict is reached."""

    delta: float  # smallest effect of interest, in normalized units; above 0
    level: float  # of intervals; 1 - level bounds the q-values
    resamples: int  # bootstrap draws
    seed: int  # of them

    @property
    def alpha(self) -> float:
        """The bound of q-values: 1 - level."""
        return 1 - self.level
