"""The share of a worker: the units that a coordinator hands to it."""

import hashlib
from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Any, Final

import torch

from headpatch.core.share import Loop, Share
from headpatch.core.workers.coordinator import AGAIN

_PATIENCE: Final = 0.5  # seconds between two words of progress


class Again(Exception):
    """A pair was left out since the question was asked, or the question is over."""


class Handed(Share):
    """Units that a coordinator hands to a worker, one at a time.

    `ask` calls a method of a `Coordinator` by its name. A pair that is left out meanwhile, or the
    end of the question, is `Again`.
    """

    def __init__(
        self,
        ask: Callable[..., Any],
        worker: str,
        epoch: int,
        left_out: Mapping[str, str],
    ) -> None:
        self._ask, self._worker, self._epoch = ask, worker, epoch
        self._left_out = dict(left_out)
        self._last: tuple[Loop, str] | None = None

    @property
    def left_out(self) -> Mapping[str, str]:
        """Pairs that ended workers."""
        return self._left_out

    def places(self, loop: Loop, near: Collection[int]) -> Iterator[int]:
        """Yield units until none is open; whoever comes back for the next has put the last away."""
        key, finished = self._key(loop), None
        self._ask("loop", self._epoch, key, loop.name, loop.pairs)
        near = set(near)
        while (place := self._take(key, near, finished)) is not None:
            near.discard(place)
            yield place
            finished = place

    def _take(self, key: str, near: Collection[int], finished: int | None) -> int | None:
        asked = "take", self._epoch, self._worker, key, near, finished, _peak()
        place: int | None = self._ask(*asked)
        if place == AGAIN:
            raise Again
        return place

    def wait(self, loop: Loop, on_progress: Callable[[int, int], None]) -> bool:
        """Wait until the loop is over, or units of a dead worker are open again."""
        waiting = True
        while waiting:
            asked = "wait", self._epoch, self._worker, self._key(loop), _PATIENCE
            done, total, waiting = self._ask(*asked)
            if total == AGAIN:
                raise Again
            on_progress(done, total)
        return bool(done == total)

    def _key(self, loop: Loop) -> str:
        """Name a loop by all its units: several loops may have one name."""
        if self._last is None or self._last[0] is not loop:  # hashing it takes a while
            text = "\n".join((loop.name, *loop.keys))
            self._last = loop, hashlib.sha256(text.encode()).hexdigest()
        return self._last[1]


def _peak() -> int:
    """Return how many bytes of its GPU this process has held at most; 0 without one."""
    return torch.cuda.max_memory_allocated() if torch.cuda.is_initialized() else 0
