"""Names of attention heads: `Head`, `HeadSet`, and the text that selects them.

A head is written ``layer.head`` (``24.17``); a head of the vision tower carries a ``v``
(``v8.3``). Heads that are changed together are joined by ``+`` (``24.17+23.20``).
"""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import pairwise
from operator import attrgetter
from typing import Literal

import numpy as np
from jaxtyping import Float, Int

from headpatch.errors import InputError

Tower = Literal["lm", "vision"]

_TOWERS: Mapping[Tower, str] = {"lm": "language-model", "vision": "vision"}
# ASCII digits: \d also takes those of other scripts; and no more than Python turns into a number.
_NUMBER = "[0-9]{1,99}"
_HEAD = re.compile(rf"(v?)({_NUMBER})\.({_NUMBER})")
_RANGE = re.compile(rf"(v?{_NUMBER}\.{_NUMBER})-(v?{_NUMBER}\.{_NUMBER})")
_NAMED = 40  # heads of a set that are all named
_LAYER = re.compile(rf"layer:(v?)({_NUMBER})(?:-({_NUMBER}))?")
_TOP = re.compile(rf"top:({_NUMBER})")
_SWAPPED = re.compile(rf"L?({_NUMBER})(?:[-:/ ]H?|H)({_NUMBER})", re.IGNORECASE)
_EXAMPLES = "24.17 or 24.17,23.20 or 24.0-24.31 or layer:24 or top:5"


@dataclass(frozen=True, order=True)
class Head:
    """One attention head. Layers and heads count from 0.

    Examples
    --------
    >>> str(Head(24, 17)), Head.parse("v8.3")
    ('24.17', Head(layer=8, head=3, tower='vision'))
    """

    layer: int
    head: int
    tower: Tower = "lm"

    def __str__(self) -> str:
        return f"{'v' if self.tower == 'vision' else ''}{self.layer}.{self.head}"

    @classmethod
    def parse(cls, text: str) -> "Head":
        """Read ``24.17`` or ``v8.3``; an `InputError` if `text` is not of that form."""
        match = _HEAD.fullmatch(text.strip())
        if match is None:
            raise InputError("heads", f"{text!r} is not a head", "layer.head, such as 24.17")
        vision, layer, head = match.groups()
        return cls(int(layer), int(head), "vision" if vision else "lm")


_ORDER = attrgetter("layer", "head", "tower")  # that of heads, many times faster than theirs


@dataclass(frozen=True)
class HeadSet:
    """Heads that are changed together, in a fixed order and each once.

    Examples
    --------
    >>> str(HeadSet.of(Head(24, 17), Head(23, 20)))
    '23.20+24.17'
    """

    heads: tuple[Head, ...]

    def __post_init__(self) -> None:
        if len(self.heads) == 1:
            return
        ordered = sorted(self.heads, key=_ORDER)
        names = list(map(_ORDER, ordered))
        if len(set(names)) < len(names):
            head = next(one for one, after in pairwise(names) if one == after)
            found = f"{Head(*head)} is named twice in one set"
            raise InputError("heads", found, "each head of a set once")
        object.__setattr__(self, "heads", tuple(ordered))

    def __str__(self) -> str:
        return "+".join(map(str, self.heads))

    def __len__(self) -> int:
        return len(self.heads)

    def __iter__(self) -> Iterator[Head]:
        return iter(self.heads)

    def __hash__(self) -> int:
        return self._hash

    @cached_property
    def _hash(self) -> int:  # of many heads, and asked for often
        return hash(self.heads)

    @cached_property
    def towers(self) -> frozenset[Tower]:
        """The towers that have one of them."""
        return frozenset(one.tower for one in self.heads)

    @cached_property
    def places(self) -> Int[np.ndarray, "heads 2"]:
        """Layer and head of each, in order; the tower is left out."""
        return np.array([(one.layer, one.head) for one in self.heads], dtype=np.int64)

    @classmethod
    def of(cls, *heads: Head) -> "HeadSet":
        """Return the set of these heads."""
        return cls(heads)

    @classmethod
    def parse(cls, text: str) -> "HeadSet":
        """Read ``24.17`` or ``24.17+23.20``."""
        return cls(tuple(Head.parse(part) for part in text.split("+")))


@dataclass(frozen=True)
class Grid:
    """How many layers a tower has, and how many heads each layer; some layers may have none.

    An array of figures of heads has a row for every layer, NaN in layers without heads (`spread`);
    tables list heads that are there, and statistics over all heads are of those (`there`).
    """

    layers: int
    heads: int
    tower: Tower = "lm"
    without: tuple[int, ...] = field(default=(), repr=False)  # layers without heads

    def __iter__(self) -> Iterator[Head]:
        return (head for layer in self.whole_layers() for head in layer)

    def __len__(self) -> int:
        return len(self.with_heads) * self.heads

    def whole_layers(self) -> tuple[HeadSet, ...]:
        """Return, for each layer that has heads, the set of all of them."""
        return tuple(
            HeadSet(tuple(Head(layer, head, self.tower) for head in range(self.heads)))
            for layer in self.with_heads
        )

    @property
    def with_heads(self) -> tuple[int, ...]:
        """Layers that have heads."""
        return tuple(layer for layer in range(self.layers) if layer not in self.without)

    def there(
        self, values: Float[np.ndarray, "*first layers each"]
    ) -> Float[np.ndarray, "*first layers_with_heads each"]:
        """Return an array by layer without the rows of layers that have no heads."""
        return values[..., list(self.with_heads), :] if self.without else values

    def spread(
        self, values: Float[np.ndarray, "*first layers_with_heads each"]
    ) -> Float[np.ndarray, "*first layers each"]:
        """Return the opposite of `there`: with NaN for layers without heads."""
        if not self.without:
            return values
        whole = np.full((*values.shape[:-2], self.layers, values.shape[-1]), np.nan)
        whole[..., list(self.with_heads), :] = values
        return whole

    @property
    def flat(self) -> Int[np.ndarray, " ranked"]:
        """Where each head stands in such an array that is flat."""
        return (
            np.arange(self.layers * self.heads).reshape(self.layers, -1)[[*self.with_heads]].ravel()
        )

    def among(self, order: Int[np.ndarray, " ranked"]) -> Int[np.ndarray, " ranked"]:
        """Renumber places of a flat array: where each head stands in `list(grid)`."""
        return np.searchsorted(self.flat, order)

    def need_heads(self, first: int, last: int, argument: str) -> None:
        """Raise `InputError` if none of these layers, which the tower has, has heads."""
        if not any(first <= layer <= last for layer in self.with_heads):
            found = f"layers {first}-{last}: no layer of this model with attention heads"
            some = f"a layer of {', '.join(map(str, self.with_heads))} among them"
            raise InputError(argument, found, some)

    def check(self, head: Head, argument: str = "--heads") -> Head:
        """Return `head`, or raise `InputError` if the tower has no such head."""
        if head.tower != self.tower:
            found, expected = (f"a {_TOWERS[one]} head" for one in (head.tower, self.tower))
            raise InputError(argument, f"{head} is {found}", expected)
        if head.layer >= self.layers or head.head >= self.heads:
            where = "this model" if self.tower == "lm" else "this model's vision tower"
            there = f"layers 0-{self.layers - 1} and heads 0-{self.heads - 1} in {where}"
            raise InputError(argument, f"{head} is out of range", there)
        if head.layer in self.without:
            some = ", ".join(map(str, self.with_heads))
            found = f"{head}: layer {head.layer} of this model has no attention heads"
            raise InputError(argument, found, f"a layer of {some}")
        return head


@dataclass(frozen=True)
class Selection:
    """What ``--heads`` says, read before any model is loaded and resolved when one is."""

    # each one of ``24.17``, ``24.0-24.31``, ``layer:24``, ``layer:20-24`` or ``top:5``
    parts: tuple[str, ...]

    def __str__(self) -> str:
        return ",".join(self.parts)

    @classmethod
    def parse(cls, text: str, argument: str = "--heads") -> "Selection":
        """Check the form of a comma-separated selection."""
        parts = tuple(part.strip() for part in text.split(","))
        for part in parts:
            if not any(form.fullmatch(part) for form in (_HEAD, _RANGE, _LAYER, _TOP)):
                swapped = _SWAPPED.fullmatch(part)
                hint = f"Did you mean {swapped[1]}.{swapped[2]}?" if swapped else ""
                found = f"{part!r} is not a head" if part else "an empty entry"
                raise InputError(argument, found, _EXAMPLES, hint)
            if (top := _TOP.fullmatch(part)) and int(top[1]) == 0:
                raise InputError(argument, "'top:0' selects nothing", "top:1 or more")
        _refuse_repeats([Head.parse(part) for part in parts if _HEAD.fullmatch(part)], argument)
        return cls(parts)

    @property
    def needs_ranking(self) -> bool:
        """Whether a part is ``top:N``, so that heads must be ranked first."""
        return any(_TOP.fullmatch(part) for part in self.parts)

    @property
    def names_vision(self) -> bool:
        """Whether a part names heads of the vision tower: ``v8.3``, ``layer:v8``."""
        return any(part.removeprefix("layer:").startswith("v") for part in self.parts)

    def resolve(
        self,
        grid: Grid,
        ranking: Sequence[Head] = (),
        vision: Grid | None = None,
        argument: str = "--heads",
    ) -> tuple[Head, ...]:
        """Return the heads meant, in the order given.

        `vision` is the vision tower's grid if it can be changed; `ranking`, all heads, the most
        attention-sensitive first, is read for ``top:N``.
        """
        heads: list[Head] = []
        for part in self.parts:
            if top := _TOP.fullmatch(part):
                if int(top[1]) > len(ranking):
                    raise InputError(argument, part, f"at most top:{len(ranking)} in this model")
                heads.extend(ranking[: int(top[1])])
            else:
                heads.extend(_named(part, grid, vision, argument))
        _refuse_repeats(heads, argument)
        return tuple(heads)


def _named(part: str, grid: Grid, vision: Grid | None, argument: str) -> Iterable[Head]:
    """Yield the heads that a part names: one, a range, or those of whole layers."""

    def checked(head: Head) -> Head:
        if head.tower == "vision" and vision is None:
            hint = "headpatch ablate changes heads of both towers."
            found = f"{head} is a vision head"
            raise InputError(argument, found, "a language-model head here", hint)
        return (vision if head.tower == "vision" and vision else grid).check(head, argument)

    if layer := _LAYER.fullmatch(part):
        tower: Tower = "vision" if layer[1] else "lm"
        first, last = int(layer[2]), int(layer[3] or layer[2])
        if first > last:
            raise InputError(argument, f"{part!r} runs backwards", "the lower layer first")
        heads = range(((vision or grid) if layer[1] else grid).heads)
        there = (vision or grid) if layer[1] else grid
        layers = [one for one in range(first, last + 1) if one not in there.without] or [first]
        return [checked(Head(one, head, tower)) for one in layers for head in heads]
    if ends := _RANGE.fullmatch(part):
        start, end = (checked(Head.parse(one)) for one in ends.groups())
        if (start.layer, start.tower) != (end.layer, end.tower):
            hint = f"Use layer:{start.layer}-{end.layer} for whole layers."
            found = f"{part!r} crosses layers"
            raise InputError(argument, found, "a range inside one layer", hint)
        if start > end:
            raise InputError(argument, f"{part!r} runs backwards", "the lower head first")
        return [replace(start, head=head) for head in range(start.head, end.head + 1)]
    return [checked(Head.parse(part))]


def abridged(names: str) -> str:
    """Write a set for people: heads joined by `+`, of many the first two and how many they are.

    Examples
    --------
    >>> abridged("24.17+23.20")
    '24.17+23.20'
    >>> abridged("+".join(f"3.{head}" for head in range(64)))
    '3.0+3.1+… (64 heads)'
    """
    heads = names.split("+")
    return names if len(heads) <= _NAMED else f"{heads[0]}+{heads[1]}+… ({len(heads)} heads)"


def _refuse_repeats(heads: Sequence[Head], argument: str) -> None:
    seen: set[Head] = set()
    for head in heads:
        if head in seen:
            raise InputError(argument, f"{head} is named twice", "each head once")
        seen.add(head)
