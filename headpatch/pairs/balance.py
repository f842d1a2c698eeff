"""Designs: levels of several factors over n rows, balanced alone and in pairs."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Int

_STEPS = 60  # swaps tried for each cell of a column's cross tables
_SAMPLE = 512  # rows that a swap may choose its partner from


def balanced(
    levels: Sequence[int], rows: int, rng: np.random.Generator
) -> Int[np.ndarray, "factors rows"]:
    """Give each row a level of each factor, so that no factor tells of another.

    Every level of a factor comes up ``rows / levels`` times, rounded up or down. Columns are made
    one after the other: a random one first, of which rows are then swapped in pairs until every
    cell of its cross table with each earlier factor holds ``rows / (levels × levels)`` rows,
    rounded up or down, or no swap helps. Swaps leave each factor's own counts as they are.

    Parameters
    ----------
    levels
        How many levels each factor has.
    """
    columns: list[Int[np.ndarray, " rows"]] = []
    for count in levels:
        column = rng.permutation(count)[np.arange(rows) % count]
        column = rng.permutation(column)
        tables = [_cross(earlier, column, size, count) for earlier, size in zip(columns, levels)]  # noqa: B905  the columns so far
        _even_out(column, columns, tables, rng)
        columns.append(column)
    return np.stack(columns)


def _cross(
    first: Int[np.ndarray, " rows"], second: Int[np.ndarray, " rows"], rows: int, columns: int
) -> Int[np.ndarray, "levels others"]:
    return np.bincount(first * columns + second, minlength=rows * columns).reshape(rows, columns)


def _even_out(
    column: Int[np.ndarray, " rows"],
    earlier: Sequence[Int[np.ndarray, " rows"]],
    tables: Sequence[Int[np.ndarray, "_ levels"]],
    rng: np.random.Generator,
) -> None:
    """Swap levels of `column` in place, and keep `tables` up to date.

    A swap is taken if the sum of the squared cells does not grow; the one that lowers it most.
    """
    shares = [table.sum() / table.size for table in tables]  # which no swap changes
    bounds = [(np.floor(share), np.ceil(share)) for share in shares]
    for _ in range(_STEPS * sum(table.size for table in tables)):
        if all(
            t.min() >= low and t.max() <= high
            for t, (low, high) in zip(tables, bounds, strict=True)
        ):
            return
        row = int(rng.integers(len(column)))
        others = np.flatnonzero(column != column[row])
        if len(others) == 0:
            return
        others = rng.permutation(others)[:_SAMPLE]  # in random order, so that ties are too
        change = _change(column, earlier, tables, row, others)
        best = int(np.argmin(change))
        if change[best] <= 0:
            other = int(others[best])
            for table, known in zip(tables, earlier, strict=True):
                table[known[row], column[row]] -= 1
                table[known[other], column[other]] -= 1
                table[known[row], column[other]] += 1
                table[known[other], column[row]] += 1
            column[[row, other]] = column[[other, row]]


def _change(
    column: Int[np.ndarray, " rows"],
    earlier: Sequence[Int[np.ndarray, " rows"]],
    tables: Sequence[Int[np.ndarray, "_ levels"]],
    row: int,
    others: Int[np.ndarray, " others"],
) -> Int[np.ndarray, " others"]:
    """By how much half the sum of squared cells changes if a row swaps levels with each other."""
    level, others_level = column[row], column[others]
    total = np.zeros(len(others), dtype=np.int64)
    for table, known in zip(tables, earlier, strict=True):
        at, others_at = known[row], known[others]
        change = (
            table[at, others_level] - table[at, level]
            + table[others_at, level] - table[others_at, others_level]
            + 2
        )  # fmt: skip
        total += np.where(others_at == at, 0, change)
    return total
