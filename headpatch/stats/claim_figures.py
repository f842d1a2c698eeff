"""Figures behind what is said of a claim: intervals over pairs, in numbers and words."""

from collections.abc import Mapping
from typing import Any, Literal, TypeAlias

import numpy as np
from jaxtyping import Float

from headpatch.stats.intervals import mean_interval
from headpatch.stats.rule import Rule

Outcome = Literal["supported", "contradicted", "not testable"]
Found: TypeAlias = tuple[Outcome | None, str]
"""An outcome and the figure behind it; None if intervals leave it open."""


def interval(values: Float[np.ndarray, " pairs"], rule: Rule) -> tuple[float, float, str]:
    """Return the ends of the interval of a mean over pairs, and both in words."""
    rng = np.random.default_rng([rule.seed % 2**64, 0])
    found = mean_interval(values[:, None], rule.level, rule.resamples, rng)
    mean, low, high = (float(ends[0]) for ends in (found.mean, found.low, found.high))
    return low, high, f"{mean:+.3f} ({low:+.3f} to {high:+.3f})"


def either(supported: bool, contradicted: bool) -> Outcome | None:
    """Name what is shown; None if neither is."""
    return "supported" if supported else "contradicted" if contradicted else None


def figure(row: Mapping[str, Any], name: str) -> str:
    """Say a table's figure in words, with its interval and its q."""
    return (
        f"{name.replace('_diff', ' difference')} {between(row, name)}, q = {row[f'{name}_q']:.1g}"
    )


def between(row: Mapping[str, Any], name: str) -> str:
    """Say a table's figure in words, with its interval."""
    return f"{row[name]:+.3f} ({row[f'{name}_low']:+.3f} to {row[f'{name}_high']:+.3f})"


def needed(row: Mapping[str, Any], rule: Rule) -> bool:
    """Say whether a table's row shows that what it is about is necessary."""
    return bool(row["necessity_low"] > rule.delta and row["necessity_q"] < rule.alpha)
