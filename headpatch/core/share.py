"""Which units of a run this process measures, where several run the same program over one store.

Every process asks the same question of the same pairs. A loop's units, one a pair, are files of the
store; a process measures those that its `Share` gives it, then reads all of them, in the dataset's
order, and goes on. So all compute the same numbers from the same bytes, and any of them could have
run alone.
"""

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar
from weakref import finalize

from headpatch.core.output.shards import Number, alive
from headpatch.errors import Unfinished


@dataclass(frozen=True)
class Loop:
    """One thing that is done to each of some pairs; the same in every process."""

    name: str  # what is done, for whoever watches; loops of a run may have the same
    keys: tuple[str, ...]  # of the store, by the pair's place
    count: int = 1  # as what a unit counts in messages; 0: it is cheap, and what follows needs all
    folder: Path = Path()  # of the store
    pairs: tuple[str, ...] = ()  # their names, by place

    def missing(self) -> list[int]:
        """Return the places of units that are not in the store."""
        there = {file.stem for file in self.folder.glob("*.unit")}
        return [place for place, key in enumerate(self.keys) if key not in there]


class Share(ABC):
    """Gives a process the units that it measures."""

    alone: ClassVar[bool] = False
    """Whether no other process measures any: units are used as they come, none is waited for."""

    @property
    def left_out(self) -> Mapping[str, str]:
        """Pairs (by name) that no process measures, and why: for that they fail the gate."""
        return {}

    @abstractmethod
    def places(self, loop: Loop, near: Collection[int]) -> Iterator[int]:
        """Yield places of units to measure here, one at a time, until none is left for now.

        `near`: those of pairs that are still open here, which come first. A unit that is in the
        store by the time is skipped.
        """

    def finished(self, loop: Loop, place: int) -> None:  # noqa: B027 - others need not know
        """Take note that a unit is in the store."""

    @abstractmethod
    def wait(self, loop: Loop, on_progress: Callable[[int, int], None]) -> bool:
        """Wait until every unit of a loop is in the store; False: `places` has more to give.

        `on_progress` is called with (done, total), in units. `Unfinished` where others will not
        finish them now.
        """


class Alone(Share):
    """All units, in order."""

    alone = True

    def places(self, loop: Loop, near: Collection[int]) -> Iterator[int]:
        """Yield every place."""
        yield from range(len(loop.keys))

    def wait(self, loop: Loop, on_progress: Callable[[int, int], None]) -> bool:
        """Wait for nothing."""
        return True


ALONE = Alone()


class Shard(Share):
    """Every n-th unit; the shards of a run know each other by files (`core.output.shards`).

    Those that run at the same time wait for each other wherever what follows hangs on all pairs.
    What is cheap is done for shards that do not run, so that one can go on to its share of the
    rest; the rest of theirs is left to them.
    """

    def __init__(
        self, which: Number, kept: Path, joined: AbstractContextManager[None] | None = None
    ) -> None:
        """Take part, in `kept`, with the others; `joined` lasts as long as this object."""
        self._which, self._kept = which, kept
        self._measured = 0
        held = ExitStack()
        if joined is not None:
            held.enter_context(joined)
        finalize(self, held.close)

    def places(self, loop: Loop, near: Collection[int]) -> Iterator[int]:
        """Yield this shard's places; of cheap units then those of shards that do not run."""
        number, count = self._which
        own = range(number - 1, len(loop.keys), count)
        yield from sorted(own, key=lambda place: place not in near)
        while loop.count == 0:
            left = [one for one in loop.missing() if not self._runs(one)]
            if not left:
                return
            yield left[number * len(left) // (count + 1)]  # not where others begin

    def finished(self, loop: Loop, place: int) -> None:
        """Count what is measured here."""
        self._measured += loop.count > 0

    def wait(self, loop: Loop, on_progress: Callable[[int, int], None]) -> bool:
        """Wait for shards that run."""
        pause = 0.05
        while missing := loop.missing():
            total = len(loop.keys)
            on_progress(total - len(missing), total)
            runs = [self._runs(place) for place in missing]
            if loop.count == 0 and not all(runs):
                return False
            if not any(runs):
                raise Unfinished(
                    f"shard {self._which}: {self._measured:,} pairs measured; {len(missing):,} are "
                    "left to the other shards. The same command without --shard gathers"
                )
            time.sleep(pause)
            pause = min(2 * pause, 5.0)
        return True

    def _runs(self, place: int) -> bool:
        """Whether the shard to which a place belongs runs, and is not this one."""
        other = Number(place % self._which.of + 1, self._which.of)
        return other != self._which and alive(self._kept / other.folder) is not None
