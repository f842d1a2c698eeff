"""Batches that are halved where memory runs out, so that a long run goes on."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TypeVar

import torch

from headpatch.errors import InputError

Item = TypeVar("Item")
Found = TypeVar("Found")


def split(items: Sequence[Item], size: int) -> list[list[Item]]:
    """Cut items into batches of `size`, one at least; the last may be smaller."""
    size = max(size, 1)
    return [list(items[start : start + size]) for start in range(0, len(items), size)]


def halving(
    batches: Sequence[list[Item]], run: Callable[[list[Item]], Found], device: torch.device
) -> Iterator[tuple[list[Item], Found]]:
    """Run batches one after the other; yield each with what it gave.

    Out of memory halves the batch, and those to come with it; each carries an untouched row, so
    that the numbers stay the same to rounding. An `InputError` if a batch of one does not fit.
    """
    pending = list(batches)
    while pending:
        batch = pending[0]
        try:
            found = run(batch)
        except torch.OutOfMemoryError:
            if len(batch) == 1:
                raise too_little(device, "two rows", "the untouched row and one more") from None
        else:
            pending = pending[1:]
            yield batch, found
            continue
        release()  # only here are the failed pass's tensors gone
        pending = [part for one in pending for part in split(one, (len(batch) + 1) // 2)]


_releases: list[Callable[[], None]] = []


@contextmanager
def released_if_short(release_more: Callable[[], None]) -> Iterator[None]:
    """Call `release_more` when memory runs out: it gives back what can be done without."""
    _releases.append(release_more)
    try:
        yield
    finally:
        _releases.remove(release_more)


def release() -> None:
    """Give back what a GPU's memory holds and can be done without."""
    for one in _releases:
        one()
    torch.cuda.empty_cache()


def too_little(device: torch.device, rows: str, room: str) -> InputError:
    """Return the error for not even the fewest `rows` fitting; there must be `room` for it."""
    hint = "Use --device cpu or a smaller --dtype."
    found = f"{device} has too little memory for {rows}"
    return InputError("--device", found, f"room for {room}", hint)
