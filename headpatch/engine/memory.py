"""Batches that are halved where memory runs out, so that a long run goes on."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass, replace
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor

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
        # Only here are the failed pass's tensors gone.
        torch.cuda.empty_cache()
        pending = [part for one in pending for part in split(one, (len(batch) + 1) // 2)]


def too_little(device: torch.device, rows: str, room: str) -> InputError:
    """Return the error for not even the fewest `rows` fitting; there must be `room` for it."""
    hint = "Use --device cpu or a smaller --dtype."
    found = f"{device} has too little memory for {rows}"
    return InputError("--device", found, f"room for {room}", hint)


def tensors_in(value: Any) -> Iterator[Tensor]:
    """Yield every tensor, always in the same order; one that stands in two places comes twice."""
    if isinstance(value, Tensor):
        yield value
    elif is_dataclass(value):
        for one in fields(value):
            yield from tensors_in(getattr(value, one.name))
    elif isinstance(value, Mapping):
        for one in value.values():
            yield from tensors_in(one)
    elif isinstance(value, list | tuple):
        for one in value:
            yield from tensors_in(one)


@dataclass(frozen=True, eq=False)
class Parked(Generic[Item]):
    """A value whose tensors wait in the host's memory, and the device that each came from."""

    value: Item
    homes: Mapping[int, torch.device]  # by the tensor's id

    def back(self) -> Item:
        """Return the value with every tensor where it was, bit for bit."""
        found: Item = _placed(self.value, lambda one: one.to(self.homes.get(id(one), one.device)))
        return found


def parked(value: Item) -> Parked[Item]:
    """Copy the tensors of a value that are on an accelerator to the host's memory.

    Dataclasses, dicts, lists and tuples are made anew around them; modules and the like are shared.
    """
    homes: dict[int, torch.device] = {}

    def away(tensor: Tensor) -> Tensor:
        copied = tensor.cpu()
        if copied is not tensor:
            homes[id(copied)] = tensor.device
        return copied

    return Parked(_placed(value, away), homes)


def _placed(value: Any, place: Callable[[Tensor], Tensor]) -> Any:
    """Return a value with each tensor's `place` in its stead, asked once of each."""
    known: dict[int, Tensor] = {}

    def walked(one: Any) -> Any:
        if isinstance(one, Tensor):
            if id(one) not in known:
                known[id(one)] = place(one)
            return known[id(one)]
        if is_dataclass(one) and not isinstance(one, type):
            parts = {part.name: getattr(one, part.name) for part in fields(one)}
            new = {name: walked(part) for name, part in parts.items()}
            return replace(one, **{name: new[name] for name in new if new[name] is not parts[name]})
        if isinstance(one, dict):
            return {key: walked(part) for key, part in one.items()}
        if isinstance(one, list | tuple):
            return type(one)([walked(part) for part in one])
        return one

    return walked(value)
