"""The one loop over pairs: what is kept is read, what is not is measured here or by others."""

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Literal, TypeAlias, TypeVar

from headpatch.core.plain import from_plain, to_plain
from headpatch.core.session import Session
from headpatch.core.share import ALONE, Loop, Share
from headpatch.core.store import Store, Unit, key_of
from headpatch.core.study.study import Study
from headpatch.engine.patching import OnProgress
from headpatch.models.vlm import VLM

Found = TypeVar("Found")


Entry = TypeVar("Entry", bound=Unit)
_OF_ALL = {"answers", "prompt", "system", "context_images", "seed", "quantize", "sum_variants"}
Open = TypeVar("Open")
Measure: TypeAlias = Callable[[Session, OnProgress], Found]
"""Measures an open pair; within it, progress is told in what the pair takes: rows, say."""


def each_unit(
    entries: Sequence[Entry],
    opened: Callable[[Entry], Open],
    name: str,
    keys: Callable[[], Sequence[str]],
    measure: Callable[[Open, OnProgress], Found],
    on_progress: OnProgress | None = None,
    *,
    store: Store | None = None,
    share: Share = ALONE,
    near: Mapping[str, object] | None = None,
    count: Literal[0, 1] = 1,
    counted: Callable[[Found], int] | None = None,
) -> Iterator[Found]:
    """Yield what was measured of each pair, in order.

    A unit that is in the store is taken from there, another is measured and put there, by whichever
    process the `share` gives it to. `keys` (asked for if there is a store) hash all that a unit
    hangs on (`headpatch.core.store.unit_key`), and `opened` opens a pair. `near` are pairs that are
    open already, by name; a unit counts as `count` in messages (`Loop`), or as it is `counted`.
    """
    told = _Told(len(entries), on_progress)
    assert store is not None or share.alone  # others find what they need in a store alone
    names = tuple(entry.name for entry in entries)
    loop = Loop(name, ("",) * len(entries), count, pairs=names)
    if store is not None:
        loop = Loop(name, tuple(keys()), count, store.folder, names)

    def measured(place: int) -> Found:
        session = opened(entries[place])
        found = measure(session, told.within)
        del session  # its caches go before the next pair's are made
        if store is not None:
            unit = loop.keys[place], {"unit": to_plain(found)}
            if count == 0:
                store.put_aside(*unit)
            elif counted is None:
                store.put(*unit)
            else:
                store.put(*unit, counted(found))
            share.finished(loop, place)
        return found

    if store is not None and not share.alone:
        first = [place for place, entry in enumerate(entries) if entry.name in (near or {})]
        _finish(loop, store, share, first, measured, told)
    for place in range(len(entries)):
        unit = None if store is None else store.get(loop.keys[place])
        found: Found = measured(place) if unit is None else from_plain(unit["unit"])
        told.one_more()
        yield found
        del found


def _finish(
    loop: Loop,
    store: Store,
    share: Share,
    near: Sequence[int],
    measured: Callable[[int], Any],
    told: "_Told",
) -> None:
    """Measure this process's units, and wait for the others'."""
    while True:
        for place in share.places(loop, near):
            if not store.holds(loop.keys[place]):
                measured(place)
                told.one_more()
        if share.wait(loop, told.units):
            told.again()
            return


class Keys:
    """Names of units: of the pair and the model, which are hashed once, and of what is done."""

    def __init__(self, vlm: VLM) -> None:
        self._vlm, self._pairs = vlm, dict[str, str]()

    def of(
        self,
        study: Study,
        entries: Sequence[Unit],
        asked: Mapping[str, Any],
        each: Sequence[Any] | None = None,
    ) -> list[str]:
        """Name what is done to each of some pairs.

        `asked` is all else that numbers hang on; what is not the same for all comes in `each`.
        """
        made = []
        for place, entry in enumerate(entries):
            if entry.name not in self._pairs:
                self._pairs[entry.name] = key_of(study, self._vlm, entry, {})
            own = study.model_dump(include=_OF_ALL, mode="json")
            what = [self._pairs[entry.name], own, asked, each[place] if each else None]
            text = json.dumps(what, sort_keys=True, default=str)
            made.append(hashlib.sha256(text.encode()).hexdigest())
        return made


class _Told:
    """Tells progress over all pairs, in whatever a pair's own progress is told."""

    def __init__(self, pairs: int, on_progress: OnProgress | None) -> None:
        self._pairs, self._on_progress = pairs, on_progress
        self._done, self._rows = 0, 1

    def within(self, done: int, total: int) -> None:
        """Take a pair's own progress."""
        self._rows = total
        self._tell(self._done * total + done)

    def one_more(self) -> None:
        """Take note of a pair that is done."""
        self._done += 1
        self._tell(self._done * self._rows)

    def units(self, done: int, total: int) -> None:
        """Take a loop's progress, which others make."""
        if self._on_progress:
            self._on_progress(done * self._rows, total * self._rows)

    def again(self) -> None:
        """Begin anew: all units are there to be read."""
        self._done = 0

    def _tell(self, done: int) -> None:
        if self._on_progress:
            self._on_progress(done, self._pairs * self._rows)
