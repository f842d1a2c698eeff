"""Finished rows of a sweep, on disk while it runs so that it can go on later."""

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch

from headpatch.core.store import Store, dataset_digest, unit_key
from headpatch.core.study import Study
from headpatch.engine.interventions import Intervention
from headpatch.engine.patching import OnOutcome, Outcome
from headpatch.heads import HeadSet
from headpatch.kinds import averages
from headpatch.models.vlm import VLM
from headpatch.pairs.manifest import Entry
from headpatch.pairs.pair import Pair

NAME = ".sweep-rows"
"""The folder below the output folder."""

# Of the sweep's options: no number hangs on them.
_SHOWN_ONLY = {"sets", "top", "rows", "budget", "approx"}
_SHARE = 0.05  # of the time that may go into writing


def keys_of(
    study: Study, vlm: VLM, pairs: Iterable[Pair], sets: Sequence[HeadSet] | None, means: str = ""
) -> dict[str, str]:
    """Name what a sweep measures of each pair, by the pair's name.

    Parameters
    ----------
    sets
        None is every head alone.
    means
        Names the pairs over which kind ``mean`` averages, if they are not drawn.
    """
    asked = {
        **study.model_dump(include={"sweep", "vision"}, exclude={"sweep": _SHOWN_ONLY}),
        "sets": None if sets is None else [str(members) for members in sets],
        "means": means if averages(study.sweep.kinds) else "",
    }
    return {pair.name: unit_key(study, vlm, pair, asked) for pair in pairs}


def keys_of_pairs(
    study: Study, vlm: VLM, entries: Sequence[Entry], sets: Sequence[HeadSet] | None
) -> dict[str, str]:
    """Name likewise what a sweep measures over a dataset, whose own mean kind ``mean`` takes."""
    means = f"{study.pairs.margin} {study.force} {dataset_digest(entries)}"
    return keys_of(study, vlm, (entry.pair() for entry in entries), sets, means)


class FinishedRows:
    """The finished rows of each pair of a sweep: one unit of a store a pair, which grows.

    Parameters
    ----------
    keys
        By the pair's name.
    """

    def __init__(self, store: Store, keys: Mapping[str, str]) -> None:
        self._store, self._keys = store, keys

    def finished(self, pair: str) -> dict[Intervention, Outcome]:
        """Return what is finished of a pair."""
        saved = self._store.get(self._keys[pair])
        return {} if saved is None else {one.intervention: one for one in outcomes_in(saved)}

    @contextmanager
    def writing(self, pair: str) -> Iterator[OnOutcome]:
        """Give a function that adds an outcome.

        A killed run loses what a twentieth of its time did not suffice to write; one that is
        interrupted or fails, nothing.

        Raises
        ------
        RunError
            If rows cannot be written.
        """
        key, rows = self._keys[pair], list(self.finished(pair).values())
        written, start, spent = len(rows), time.monotonic(), 0.0

        def write() -> None:
            nonlocal written, spent
            before = time.monotonic()
            self._store.put(key, _saved(rows), len(rows))
            written, spent = len(rows), spent + time.monotonic() - before

        def add(outcome: Outcome) -> None:
            rows.append(outcome)
            if spent <= _SHARE * (time.monotonic() - start):
                write()

        try:
            yield add
        finally:
            if len(rows) > written:
                write()


def _saved(rows: Sequence[Outcome]) -> dict[str, Any]:
    changes = [one.intervention for one in rows]
    return {
        "heads": [str(one.heads) for one in changes],
        "kind": [one.kind for one in changes],
        "direction": [one.direction for one in changes],
        "positions": [one.positions for one in changes],
        "vision_positions": [one.vision_positions for one in changes],
        "alpha": [one.alpha for one in changes],
        "ld": torch.tensor([one.ld for one in rows], dtype=torch.float64),
        "effect": torch.tensor([one.effect for one in rows], dtype=torch.float64),
        "token": torch.tensor([one.token for one in rows]),
        "token_before": torch.tensor([one.token_before for one in rows]),
    }


def outcomes_in(saved: Mapping[str, Any]) -> Iterator[Outcome]:
    """Read back the rows of a unit, bit for bit."""
    names = ("heads", "kind", "direction", "positions", "vision_positions", "alpha")
    figures = (saved[name].tolist() for name in ("ld", "effect", "token", "token_before"))
    for heads, *way, ld, effect, token, before in zip(
        *(saved[name] for name in names), *figures, strict=True
    ):
        yield Outcome(Intervention(HeadSet.parse(heads), *way), ld, effect, token, before)
