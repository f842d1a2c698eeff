"""What becomes of a claim, and the intervals that say it."""

from typing import Literal, NamedTuple, TypeAlias

import numpy as np
from jaxtyping import Float

from headpatch.stats.intervals import interval_by
from headpatch.stats.verdict_labels import Rule
from headpatch.text import signed

Outcome = Literal["supported", "contradicted", "undecided", "not testable"]
Shown: TypeAlias = tuple[Outcome | None, str]
"""An outcome and the figure behind it; None if intervals leave it undecided."""


def either(supported: bool, contradicted: bool) -> Outcome | None:
    """Name what is shown; None if neither is."""
    return "supported" if supported else "contradicted" if contradicted else None


class Ends(NamedTuple):
    """The interval of a mean over pairs, and both in words."""

    low: float
    high: float
    words: str

    def sign(self, delta: float) -> int:
        """1 or -1 if it lies beyond ±δ; else 0."""
        return int(self.low > delta) - int(self.high < -delta)


def interval(values: Float[np.ndarray, " pairs"], rule: Rule) -> Ends:
    """Return the interval of the mean of values, one a scene."""
    mean, low, high = (float(end[0]) for end in interval_by(values[:, None], rule).ends)
    return Ends(low, high, f"{signed(mean)} ({signed(low)} to {signed(high)})")
