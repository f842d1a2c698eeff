"""Which units of a run this process measures, where several run the same program over one store.

Every process asks the same question of the same pairs. A loop's units, one a pair, are files of the
store; a process measures those that its `Share` gives it, then reads all of them, in the dataset's
order, and goes on. So all compute the same numbers from the same bytes, and any of them could have
run alone.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import ClassVar

from headpatch.errors import HeadpatchError


@dataclass(frozen=True)
class Loop:
    """One thing that is done to each of some pairs; the same in every process."""

    name: str  # what is done, for whoever watches; loops of a run may have the same
    keys: tuple[str, ...]  # of the store, by the pair's place
    count: int = 1  # as what a unit counts in messages; 0: it is cheap, and what follows needs all


class Unfinished(HeadpatchError):
    """A share is done, and nobody will finish the rest now; nothing went wrong."""

    exit_code = 0


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
