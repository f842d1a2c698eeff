"""Finished rows of a sweep, on disk while it runs so that it can go on later."""

import hashlib
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Final

import torch

from headpatch.core.measures import hangs_on
from headpatch.core.store import Store, dataset_digest, key_of, unit_key
from headpatch.core.study.study import Study
from headpatch.engine.interventions import Intervention
from headpatch.engine.patching import OnOutcome, Outcome
from headpatch.heads import HeadSet
from headpatch.kinds import averages, donated
from headpatch.models.vlm import VLM
from headpatch.pairs.manifest import Entry
from headpatch.pairs.pair import Pair

# Of the sweep's options: no number hangs on them.
_SHOWN_ONLY = {"sets", "top", "rows", "budget", "approx", "ig"}
_SHARE = 0.05  # of the time that may go into writing
_WAY: Final = ("kind", "direction", "positions", "vision_positions", "alpha", "toward")
_FIGURES: Final = {"ld": torch.float64, "effect": torch.float64} | dict.fromkeys(
    ("token", "token_before"), torch.int64
)


def keys_of(
    study: Study, vlm: VLM, pairs: Pair | Sequence[Entry], sets: Sequence[HeadSet] | None
) -> dict[str, str]:
    """Name what a sweep of sets, or of every head, measures of each pair, by the pair's name.

    Over a dataset, kind ``mean`` takes the dataset's own mean, and others z of another pair: a key
    then hangs on all pairs.
    """
    means, kinds = "", study.sweep.kinds
    if not isinstance(pairs, Pair) and (averages(kinds) or donated(kinds)):
        means = f"{study.pairs.margin} {study.force} {dataset_digest(pairs)}"
    asked = {
        **study.model_dump(include={"sweep", "vision"}, exclude={"sweep": _SHOWN_ONLY}),
        "sets": None if sets is None else [str(members) for members in sets],
        "means": means,
    }
    if isinstance(pairs, Pair):
        return {pairs.name: unit_key(study, vlm, pairs, asked)}
    return {entry.name: key_of(study, vlm, entry, asked) for entry in pairs}


def whole(study: Study) -> str:
    """Say how the key of a pair ends that is kept as a whole: its tables, ranks and estimates."""
    options, rank = study.sweep, study.rank
    ends = ["-whole", "-approx" * options.approx, f"-ig{options.ig}" * (options.ig is not None)]
    for one in hangs_on((rank.by,), rank.tau):
        ends.append(f"-{hashlib.sha256(one.encode()).hexdigest()[:16]}")
    return "".join(ends)


class FinishedRows:
    """The finished rows of each pair that has a key: one unit of a store a pair, which grows."""

    def __init__(self, store: Store | None, keys: Mapping[str, str]) -> None:
        self._store, self._keys = store, keys

    def finished(self, pair: str) -> dict[Intervention, Outcome]:
        """Return what is finished of a pair."""
        if self._store is None or pair not in self._keys:
            return {}
        saved = self._store.get(self._keys[pair])
        return {} if saved is None else {one.intervention: one for one in outcomes_in(saved)}

    def forget(self, pair: str) -> None:
        """Delete the rows of a pair."""
        if self._store is not None and pair in self._keys:
            self._store.discard(self._keys[pair])

    @contextmanager
    def writing(self, pair: str) -> Iterator[OnOutcome | None]:
        """Give a function that adds an outcome; None where nothing is kept.

        A killed run loses what a twentieth of its time did not suffice to write; one that is
        interrupted or fails, nothing.
        """
        store, key = self._store, self._keys.get(pair)
        if store is None or key is None:
            yield None
            return
        rows = list(self.finished(pair).values())
        written, start, spent = len(rows), time.monotonic(), 0.0

        def write() -> None:
            nonlocal written, spent
            before = time.monotonic()
            store.put(key, _saved(rows), len(rows))
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
        **{name: [getattr(one, name) for one in changes] for name in _WAY},
        **{
            name: torch.tensor([getattr(one, name) for one in rows], dtype=dtype)
            for name, dtype in _FIGURES.items()
        },
    }


def outcomes_in(saved: Mapping[str, Any]) -> Iterator[Outcome]:
    """Read back the rows of a unit, bit for bit."""
    figures = (saved[name].tolist() for name in _FIGURES)
    for heads, *way, ld, effect, token, before in zip(
        saved["heads"], *(saved[name] for name in _WAY), *figures, strict=True
    ):
        yield Outcome(Intervention(HeadSet.parse(heads), *way), ld, effect, token, before)
