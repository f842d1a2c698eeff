"""Spearman's rho of looking and deciding in words: of measured means, and of true values."""

from collections.abc import Mapping
from math import isnan
from typing import Any


def measured_words(rho: Mapping[str, float], level: float) -> str:
    """Say the rho of the means that were measured, a `headpatch.stats.rankings.Correlation`."""
    if isnan(rho["rho"]):
        return "undefined, one of them does not vary"
    return (
        f"{rho['rho']:+.2f} ({level:.0%} interval over pairs {_ends(rho)}; errors scramble ranks, "
        "which mostly pulls it to 0)"
    )


def true_words(rho: Mapping[str, Any], level: float) -> str:
    """Say the rho of true values, or why it cannot be told, and how reliable the rankings are.

    `rho`: the fields of `headpatch.stats.disattenuated_rank_correlation.TrueCorrelation`.
    """
    # with scipy: a ranking's figures do without
    from headpatch.stats.disattenuated_rank_correlation import LEAST

    words = f"{rho['rho']:+.2f} ({level:.0%} interval {_ends(rho)})"
    if rho["untold"]:
        words = f"cannot be told, {rho['untold']}"
    if isnan(rho["looks_reliability"]):
        return words
    needed = f"; {LEAST:g} is needed" if rho["untold"] else ""
    return (
        f"{words}; reliability of the rankings: {rho['looks_reliability']:.2f} (attention) and "
        f"{rho['effects_reliability']:.2f} (effect){needed}"
    )


def _ends(rho: Mapping[str, Any]) -> str:
    return f"{rho['low']:+.2f} to {rho['high']:+.2f}"
