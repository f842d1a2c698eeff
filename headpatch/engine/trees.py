"""Trees of tensors: what they are like, and others put in their places.

The tensors stand in dataclasses, mappings, tuples and lists. Whatever else stands there does not
change from one such tree to the next.
"""

from collections import deque
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass
from typing import Any, NamedTuple, TypeAlias
from weakref import WeakValueDictionary

import torch
from torch import Tensor, nn

Tree: TypeAlias = Any
_ALIGNED = 512  # bytes, as the allocator's: kernels are chosen by it


class Layout:
    """Where the tensors of a tree stand in one piece of memory.

    Trees of one form have one layout, so that two of them are compared by it.
    """

    def __init__(self, tree: Tree, tensors: Sequence[Tensor]) -> None:
        self._shapes = [one.shape for one in tensors]
        self._parts: dict[torch.dtype, _Part] = {}
        self.bytes = 0
        for dtype in dict.fromkeys(one.dtype for one in tensors):
            there = [place for place, one in enumerate(tensors) if one.dtype == dtype]
            counts, whole = [tensors[place].numel() for place in there], _ALIGNED // dtype.itemsize
            sizes = [-(-count // whole) * whole for count in counts]
            self._parts[dtype] = _Part(there, counts, sizes, self.bytes)
            self.bytes += sum(sizes) * dtype.itemsize
        self._places = [one.to("meta") for one in tensors]
        places = {id(one): place for one, place in zip(tensors, self._places, strict=True)}
        self._tree = put(tree, places)

    def views(self, memory: Tensor) -> list[Tensor]:
        """Return the tensors that stand in such a piece of memory."""
        found = [memory] * len(self._shapes)
        for dtype, part in self._parts.items():
            size = sum(part.sizes) * dtype.itemsize
            pieces = memory[part.start : part.start + size].view(dtype).split(part.sizes)
            for place, piece, count in zip(part.places, pieces, part.counts, strict=True):
                own = piece if len(piece) == count else piece[:count]
                found[place] = own.view(self._shapes[place])
        return found

    def tree(self, memory: Tensor) -> Tree:
        """Return the tree whose tensors stand there."""
        views = zip(self._places, self.views(memory), strict=True)
        return put(self._tree, {id(place): view for place, view in views})


class _Part(NamedTuple):
    """The tensors of one dtype in a `Layout`: their places in the tree, and how many numbers."""

    places: list[int]
    counts: list[int]
    sizes: list[int]  # with what stands between them
    start: int  # in bytes


@dataclass(frozen=True, eq=False)
class Packed:
    """A tree of tensors in one piece of memory: copied in one launch, and one to be compared."""

    layout: Layout
    memory: Tensor

    def tree(self) -> Tree:
        """Return the tree."""
        return self.layout.tree(self.memory)


_layouts: "WeakValueDictionary[Hashable, Layout]" = WeakValueDictionary()
"""By the form of a tree: of those that are in one piece now."""
_PLAIN = (
    *(bool, int, float, str, torch.dtype, torch.device, torch.Size, nn.Module, type(None)),
    Layout,
)


def tensors_in(value: Tree) -> Iterator[Tensor]:
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


class Foreign(Exception):
    """Something in a tree that could not be told from another of its kind."""


def form(tree: Tree, tensors: list[Tensor], places: dict[int, int]) -> Hashable:
    """Say what a tree is like, but for the numbers in it; add its tensors to a list, each once.

    `places` are theirs in the list, by `id`. A `Foreign` for what is no such tree.
    """
    if isinstance(tree, Tensor):
        place = places.setdefault(id(tree), len(tensors))
        if place < len(tensors):
            return place
        tensors.append(tree)
        return tree.shape, tree.dtype, tree.device
    if isinstance(tree, _PLAIN):
        return tree
    if isinstance(tree, tuple | list | deque):
        return type(tree), *[form(one, tensors, places) for one in tree]
    if isinstance(tree, Mapping):
        return dict, *[(name, form(one, tensors, places)) for name, one in tree.items()]
    if is_dataclass(tree):
        return type(tree), *[form(getattr(tree, name), tensors, places) for name in _names(tree)]
    raise Foreign


def put(tree: Tree, others: Mapping[int, Tensor]) -> Tree:
    """Return a tree with other tensors, by the `id` of those that are in it."""
    if isinstance(tree, Tensor):
        return others[id(tree)]
    if isinstance(tree, tuple) and hasattr(tree, "_fields"):
        return type(tree)(*[put(one, others) for one in tree])
    if isinstance(tree, tuple | list | deque):
        return type(tree)([put(one, others) for one in tree])
    if isinstance(tree, Mapping):
        return {name: put(one, others) for name, one in tree.items()}
    if is_dataclass(tree):
        made = object.__new__(type(tree))
        for name in _names(tree):  # as they are: nothing is made anew from them
            object.__setattr__(made, name, put(getattr(tree, name), others))
        return made
    return tree


def changed(tree: Tree, change: Callable[[Tensor], Tensor]) -> Tree:
    """Return a tree whose tensors are changed, each once."""
    tensors: list[Tensor] = []
    form(tree, tensors, {})
    return put(tree, {id(one): change(one) for one in tensors})


def packed(tree: Tree) -> Packed | None:
    """Copy a tree into one piece of memory.

    None if they are not all on one device, or something else stands in the tree.
    """
    tensors: list[Tensor] = []
    try:
        key = form(tree, tensors, {})
    except Foreign:
        return None
    if len({one.device for one in tensors}) != 1:
        return None
    if (layout := _layouts.get(key)) is None:
        layout = _layouts[key] = Layout(tree, tensors)
    memory = torch.empty(layout.bytes, dtype=torch.uint8, device=tensors[0].device)
    copy(layout.views(memory), tensors)
    return Packed(layout, memory)


def same(one: Tree, other: Tree) -> bool:
    """Whether two trees hold the very same tensors, in the same places."""
    if isinstance(one, tuple | list) and isinstance(other, tuple | list):
        return len(one) == len(other) and all(map(same, one, other))
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(same(one[name], other[name]) for name in one)
    return one is other or (isinstance(one, _PLAIN) and one == other)


def copy(to: Sequence[Tensor], tensors: Sequence[Tensor]) -> None:
    """Copy many tensors in a few launches."""
    by_kind: dict[tuple[torch.dtype, bool], tuple[list[Tensor], list[Tensor]]] = {}
    for place, one in zip(to, tensors, strict=True):
        if one.numel():  # one that is not dense would have all be copied one by one
            places, ones = by_kind.setdefault((one.dtype, one.is_contiguous()), ([], []))
            places.append(place)
            ones.append(one)
    for places, ones in by_kind.values():
        torch._foreach_copy_(places, ones)


_fields: dict[type, tuple[str, ...]] = {}


def _names(tree: Any) -> tuple[str, ...]:
    kind = type(tree)
    if kind not in _fields:
        _fields[kind] = tuple(one.name for one in fields(kind))
    return _fields[kind]
