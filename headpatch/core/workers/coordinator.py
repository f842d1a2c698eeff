"""Who measures which unit, of the workers of one run: plain Python, which Ray runs as an actor."""

import asyncio
from collections import Counter
from collections.abc import Collection, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from time import monotonic
from typing import Final

TRIES: Final = 2
"""Workers that may die of a unit, after which its pair is left out."""
AGAIN: Final = -1
"""In place of a unit's: a pair was left out, or the question is over."""


@dataclass
class _Units:
    """The units of a loop: which are open, who has which, and how many are in the store."""

    name: str
    pairs: Sequence[str]  # by place
    open: dict[int, None]  # in the order in which they are handed out
    taken: dict[int, str] = field(default_factory=dict)  # worker by place
    done: set[int] = field(default_factory=set)

    @property
    def over(self) -> bool:
        return len(self.done) == len(self.pairs)

    def next(self, near: Collection[int]) -> int | None:
        """Return an open unit: of a pair that is near, else the first; the last, if others are."""
        if not self.open:
            return None
        ends = reversed(self.open) if near else iter(self.open)
        place = min((one for one in near if one in self.open), default=next(ends))
        del self.open[place]
        return place


@dataclass
class Work:
    """What a worker has done so far."""

    measured: int = 0  # units
    began: float = 0.0  # seconds, by a clock that all share
    waited: float = 0.0  # seconds, for units of others
    peak: int = 0  # bytes of its GPU


@dataclass(frozen=True)
class Standing:
    """How far a run is, for whoever watches."""

    stage: str  # the last that a worker has begun
    done: int  # units in the store, of the loops of this stage
    total: int
    said: dict[str, bool]  # messages of all workers, each once: whether it is a warning
    left_out: dict[str, str]
    workers: dict[str, Work]
    time: float  # seconds, by the clock of `Work.began`


class Coordinator:
    """Hands out units one at a time; what a dead worker had is handed out again.

    Each question is a run, whose number workers name. A unit that `TRIES` workers die of has its
    pair left out: a new `epoch` begins, in which every worker asks the question again without that
    pair; what is in the store and fits is not measured again.
    """

    def __init__(self) -> None:
        self._changed = asyncio.Condition()
        self._left_out: dict[str, str] = {}
        self._deaths: Counter[tuple[str, str]] = Counter()  # by loop and pair
        self._said: dict[str, bool] = {}
        self._work: dict[str, Work] = {}
        self._run = self._epoch = 0
        self._forget()

    def _forget(self) -> None:
        self._epoch += 1
        self._loops: dict[str, _Units] = {}
        self._stages = [""]

    async def start(self, opens: bool) -> int:
        """Begin a question, or the opening of pairs, of which none is left out; return a number."""
        self._run += 1
        if opens:
            self._left_out, self._deaths, self._work = {}, Counter(), {}
        self._said = {}
        self._forget()
        return self._run

    async def epoch(self, run: int) -> tuple[int, dict[str, str]] | None:
        """Return the epoch, and which pairs are left out of it and why; None: the run is over."""
        return (self._epoch, dict(self._left_out)) if run == self._run else None

    async def loop(self, epoch: int, loop: str, name: str, pairs: Sequence[str]) -> None:
        """Learn of a loop, by its key, and of its units."""
        if epoch == self._epoch and loop not in self._loops:
            self._loops[loop] = _Units(name, pairs, dict.fromkeys(range(len(pairs))))
            await self.stage(name)

    async def take(
        self,
        epoch: int,
        worker: str,
        loop: str,
        near: Collection[int],
        finished: int | None,
        peak: int,
    ) -> int | None:
        """Take note of the unit that a worker has finished, and give it the next; None: no more.

        `peak`: bytes that its GPU has held at most.
        """
        if epoch != self._epoch:
            return AGAIN
        units, work = self._loops[loop], self._work.setdefault(worker, Work(began=monotonic()))
        work.peak = max(work.peak, peak)
        if finished is not None:
            units.taken.pop(finished, None)
            units.done.add(finished)
            work.measured += 1
            await self._tell()
        place = units.next(near)
        if place is not None:
            units.taken[place] = worker
        return place

    async def wait(
        self, epoch: int, worker: str, loop: str, patience: float
    ) -> tuple[int, int, bool]:
        """Wait, so many seconds at most, until a loop is over, has open units, or is no more.

        Returns (done, total) of its units, and whether there is anything to wait for.
        """
        units = self._loops.get(loop) if epoch == self._epoch else None
        if units is None:
            return 0, AGAIN, False

        def due() -> bool:
            return epoch != self._epoch or units.over or bool(units.open)

        began = monotonic()
        async with self._changed:
            with suppress(TimeoutError):
                await asyncio.wait_for(self._changed.wait_for(due), patience)
        if worker in self._work:
            self._work[worker].waited += monotonic() - began
        if epoch != self._epoch:
            return 0, AGAIN, False
        return len(units.done), len(units.pairs), not due()

    async def died(self, worker: str) -> str:
        """Take back what a dead worker had; return the pair that it was at, empty if none."""
        held = [
            (loop, units, place)
            for loop, units in self._loops.items()
            for place, by in units.taken.items()
            if by == worker
        ]
        at = ""
        for loop, units, place in held:  # one, if any
            at = units.pairs[place]
            del units.taken[place]
            units.open = {place: None, **units.open}
            self._deaths[loop, at] += 1
            if self._deaths[loop, at] >= TRIES:
                self._left_out[at] = f"{TRIES} workers died while they measured it"
                self._forget()
        await self._tell()
        return at

    async def _tell(self) -> None:
        async with self._changed:
            self._changed.notify_all()

    async def say(self, text: str, warns: bool) -> None:
        """Take note of a message, which is shown once."""
        self._said.setdefault(text, warns)

    async def stage(self, name: str) -> None:
        """Take note of a stage that a worker has begun."""
        if name not in self._stages:  # a worker that begins anew goes through the first ones again
            self._stages.append(name)

    async def standing(self) -> Standing:
        """Return how far the run is."""
        loops = [one for one in self._loops.values() if one.name == self._stages[-1]]
        return Standing(
            self._stages[-1],
            sum(len(one.done) for one in loops),
            sum(len(one.pairs) for one in loops),
            dict(self._said),
            dict(self._left_out),
            dict(self._work),
            monotonic(),
        )
