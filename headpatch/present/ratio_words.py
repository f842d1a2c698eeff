"""Where a mean of ratios over pairs may mislead, in one sentence."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from math import isfinite
from typing import Any, Final, TypeAlias

from headpatch.present.column import RATIO_ENDS
from headpatch.stats.ratio import dominates

_Row: TypeAlias = Mapping[Any, Any]  # of a table
_LEAST: Final = 0.01  # share of the difference in LD: smaller means are not looked into


def ratio_words(rows: Sequence[_Row], named: Callable[[Any], str], floor: float) -> str:
    """Say in which rows of means the ratio of means differs, or one pair carries the mean.

    ``""`` if in none, or the table is of an earlier version. `named` names a row; rows within the
    noise floor (logits), or whose mean is below 1%, are left out.
    """
    told = [row for row in rows if _told(row, floor)]
    return " ".join(_sentence(told, named))


def _told(row: _Row, floor: float) -> bool:
    figures = [row.get(f"normalized{end}") for end in ("", "_low", "_high", *RATIO_ENDS[:3])]
    known = all(isinstance(value, float) and isfinite(value) for value in figures)
    effect = row.get("effect", floor)
    return known and abs(row["normalized"]) >= _LEAST and not abs(effect) < floor


def _sentence(rows: Sequence[_Row], named: Callable[[Any], str]) -> Iterator[str]:
    apart = [row for row in rows if _differ(row)]
    if apart:
        row = max(apart, key=lambda row: abs(row["normalized"] - row["normalized_ratio"]))
        yield (
            f"In {_count(apart, rows)} the mean of ratios and the ratio of means (sum of effects "
            f"over sum of LD differences) lie outside each other's interval, most for {named(row)}:"
            f" {row['normalized']:+.4f} against {_interval(row)}."
        )
    carried = [row for row in rows if dominates(row["normalized_top_share"], int(row["pairs"]))]
    if carried:
        row = max(carried, key=lambda row: float(row["normalized_top_share"]))
        yield (
            f"In {_count(carried, rows)} one pair carries much of the mean, most for {named(row)}: "
            f"pair {row['normalized_top_pair']}, {row['normalized_top_share']:.0%} of the sum of "
            f"sizes (ratio of means {_interval(row)})."
        )


def _differ(row: _Row) -> bool:
    mean, ratio = row["normalized"], row["normalized_ratio"]
    within = row["normalized_low"] <= ratio <= row["normalized_high"]
    return not within and not row["normalized_ratio_low"] <= mean <= row["normalized_ratio_high"]


def _count(some: Sequence[_Row], rows: Sequence[_Row]) -> str:
    return f"{len(some):,} of {len(rows):,} {'row' if len(rows) == 1 else 'rows'}"


def _interval(row: _Row) -> str:
    low, high = row["normalized_ratio_low"], row["normalized_ratio_high"]
    return f"{row['normalized_ratio']:+.4f} [{low:+.4f} to {high:+.4f}]"
