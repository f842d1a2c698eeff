"""By what a study judges: its smallest effect of interest, its level, its draws."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Rule:
    """By what a verdict is reached.

    Attributes
    ----------
    delta
        Smallest effect of interest, in normalized units; above 0.
    level
        Of intervals; 1 - level bounds the q-values.
    resamples
        Bootstrap draws, and draws of the layer-matched null.
    seed
        Of both.
    """

    delta: float
    level: float
    resamples: int
    seed: int

    @property
    def alpha(self) -> float:
        """The bound of q-values: 1 - level."""
        return 1 - self.level
