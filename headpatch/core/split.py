"""Which pairs of a verdict choose heads, and which judge them."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from headpatch.core.study import Study
from headpatch.errors import InputError
from headpatch.pairs.manifest import Entry

LEAST = 20
"""Pairs to judge heads on: with fewer, intervals no longer cover what they say (see the tests)."""


@dataclass(frozen=True)
class Halves:
    """Which pairs choose heads, and which judge them."""

    discovery: tuple[Entry, ...]
    confirmation: tuple[Entry, ...]


def need_pairs(study: Study, count: int, argument: str) -> None:
    """Refuse a study of too few pairs, whatever the gate says, to choose on and to judge on."""
    split = study.verdict.split
    kept = round(split * count)
    if count >= 2 and kept in (0, count):
        half = "discovery" if kept == 0 else "confirmation"
        found = f"{split:g} of {count} pairs leaves the {half} half empty"
        raise InputError("--split", found, "a share that leaves pairs in both halves")
    if count - kept < LEAST:
        least = next(n for n in range(LEAST, 10**7) if n - round(split * n) >= LEAST)
        raise InputError(
            argument,
            f"{count} pairs, of which {max(count - kept, 0)} would judge heads",
            f"at least {least} pairs that pass the gate, so that {LEAST} judge (--split {split:g})",
        )


def halve(study: Study, entries: Sequence[Entry]) -> Halves:
    """Split the pairs by the seed, so that each region and question is in both parts alike."""
    need_pairs(study, len(entries), "--pairs")
    total, count = len(entries), round(study.verdict.split * len(entries))
    rng = np.random.default_rng([study.seed % 2**64, total])
    alike = sorted(  # at random among those that are
        rng.permutation(total).tolist(), key=lambda i: (entries[i].region.name, entries[i].question)
    )
    every = np.floor((np.arange(count) + rng.random()) * total / count).astype(int)
    first = {alike[place] for place in every.tolist()}
    return Halves(
        tuple(one for i, one in enumerate(entries) if i in first),
        tuple(one for i, one in enumerate(entries) if i not in first),
    )
