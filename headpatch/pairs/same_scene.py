"""Which pairs of a dataset show one scene: they share a picture, or nearly.

A scene is what a pair's own name for it says (column `scene` of the table). Where the table has no
such column, two pairs show one scene if a picture of the one, with or without the object, is

- *identical* to a picture of the other, pixel by pixel, or
- *nearly identical*: another size or compression of it.

This goes on from pair to pair: if the first shares a picture with the second and the second with
the third, all three show one scene. A picture of one colour shows nothing that pairs could share.

**Nearly identical.** Both pictures are reduced to 24 × 24 cells of mean RGB. They are nearly
identical if no cell differs, in any channel, by more than

.. math:: 8 + r / 4

levels of 255, where r is the range of levels among the cells up to 2 away, in the picture where it
is less. Resizing and compression move levels next to edges, by a share of the edge, and little
elsewhere. An object that is there in one picture only makes no edge in the other, so that it shows
even if it is small: from about a hundredth of the picture's width on, in full contrast; it may move
by as much before that shows. Pictures whose cells differ by no more than 8 levels in all are
compared pixel by pixel only.

In 200 drawn pairs JPEG copies (quality 20 to 95) and copies of half to twice the size are found,
and no two scenes are taken for one. Crops, mirror images and changed colours are not found: name
the scene in the table's column.
"""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

import numpy as np
from jaxtyping import Float, Int, Shaped, UInt8
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from headpatch.errors import InputError
from headpatch.pairs.difference import CELLS, LEVELS, Pixels, cells_of, slack_of
from headpatch.pairs.manifest import Entry
from headpatch.pairs.pair import read_image
from headpatch.stats.scenes import Scenes, shared_words

_BLOCK = 6  # cells a side of the blocks by which pictures are sifted
_ROUNDING = 1e-3  # levels, of means in float32
_OWN = "Add pairs of other pictures; a column scene names the scenes, if you know them better."
_KEPT = 1 << 15  # pictures, of 2 kB each
_CHUNK = 1 << 10  # pictures whose edges are worked out at a time


@dataclass(frozen=True, eq=False)
class _Seen:
    """What is kept of a picture; `cells` is None if it is of one colour."""

    digest: bytes
    cells: UInt8[np.ndarray, "cells cells rgb"] | None


def with_scenes(entries: Sequence[Entry]) -> tuple[Entry, ...]:
    """Return pairs with their scenes: their own, or found by their pictures.

    A scene that is found is called by the first pair that shows it. Every picture is read once, and
    what was seen of it kept as long as Python runs and the file does not change. A picture that
    cannot be read is like no other: whoever runs it says what is wrong.
    """
    unknown = [place for place, entry in enumerate(entries) if not entry.scene]
    if not unknown:
        return tuple(entries)
    numbers = _found([entries[place] for place in unknown])
    names: dict[int, str] = {}
    found = list(entries)
    for place, number in zip(unknown, numbers.tolist(), strict=True):
        found[place] = replace(entries[place], scene=names.setdefault(number, entries[place].name))
    return tuple(found)


def scenes_of(entries: Sequence[Entry]) -> Scenes:
    """Number the pairs' scenes from 0 in the order in which they come; see `with_scenes`."""
    names = [entry.scene for entry in with_scenes(entries)]
    numbers = {name: number for number, name in enumerate(dict.fromkeys(names))}
    return np.array([numbers[name] for name in names], dtype=np.int64)


def need_scenes(entries: Sequence[Entry], need: Callable[[int], None]) -> None:
    """Ask of pairs, and of the scenes that they show, whether there are enough.

    `need` refuses too small a number of pairs with an `InputError`.
    """
    need(len(entries))
    scenes = int(scenes_of(entries).max()) + 1
    try:
        need(scenes)
    except InputError as error:
        found = shared_words(len(entries), scenes)
        expected = f"{error.expected}, each of another scene"
        raise InputError(error.argument, found, expected, _OWN) from None


def _found(entries: Sequence[Entry]) -> Scenes:
    """Number scenes by the pairs' pictures."""
    seen = [_seen(path) for one in entries for path in (one.with_path, one.without_path)]
    digests: dict[bytes, int] = {}
    cells: list[UInt8[np.ndarray, "cells cells rgb"]] = []
    links: list[tuple[int, int]] = []
    for place, one in enumerate(seen):
        if one is not None and one.cells is not None:
            links.append((place // 2, digests.setdefault(one.digest, len(digests))))
            if len(digests) > len(cells):
                cells.append(one.cells)
    if not links:
        return np.arange(len(entries))
    pair, picture = np.array(links).T
    group = _alike(np.stack(cells))[picture] + len(entries)
    size = len(entries) + len(cells)
    graph = coo_array((np.ones(len(links)), (pair, group)), shape=(size, size))
    labels: Int[np.ndarray, " nodes"] = connected_components(graph, directed=False)[1]
    return labels[: len(entries)]


def _seen(path: Path) -> _Seen | None:
    try:
        state = path.stat()
    except OSError:
        return None
    return _look(str(path), state.st_mtime_ns, state.st_size)


@lru_cache(maxsize=_KEPT)
def _look(path: str, _changed: int, _size: int) -> _Seen | None:
    """Look at a picture; None if it cannot be read. Of a file that changes, again."""
    try:
        image = read_image(path, "--pairs")
    except InputError:
        return None
    digest = hashlib.sha256(f"{image.size}".encode() + image.tobytes()).digest()
    pixels = np.asarray(image)
    if (pixels == pixels[0, 0]).all():
        return _Seen(digest, None)
    return _Seen(digest, cells_of(image))


Grid = Shaped[np.ndarray, "pictures rows columns channels"]


def _alike(cells: Pixels) -> Int[np.ndarray, " pictures"]:
    """Label pictures, those that are nearly identical alike.

    Cells that differ by no more than is allowed have means over blocks of cells, and over all, that
    differ by no more than is allowed in the mean: so only pictures of nearly one brightness, and
    then of nearly the same blocks, are compared cell by cell.
    """
    parts = np.array_split(cells, -(-len(cells) // _CHUNK))
    slack = np.concatenate([slack_of(part) for part in parts])
    grids = ((_blocks(cells), _blocks(slack)), (cells, slack))  # the coarse ones sift
    brightness, reach = (grid.mean((1, 2, 3)) for grid in grids[0])
    shown = np.ptp(cells, axis=(1, 2)).max(1) > LEVELS
    order = np.argsort(brightness, kind="stable")
    order = order[shown[order]]
    last = np.searchsorted(brightness[order], brightness + reach + _ROUNDING, side="right")
    labels = np.arange(len(cells))
    for place, one in enumerate(order.tolist(), start=1):
        others = order[place : last[one]]
        others = others[labels[others] != labels[one]]
        for values, slacks in grids:
            apart = np.abs(values[others].astype(np.float32) - values[one])
            allowed = np.minimum(slacks[others], slacks[one]) + _ROUNDING
            others = others[(apart <= allowed).all((1, 2, 3))]
        if len(others):
            labels[np.isin(labels, labels[others])] = labels[one]
    return labels


def _blocks(cells: Grid) -> Float[np.ndarray, "pictures blocks blocks channels"]:
    """Average blocks of cells."""
    count, side = len(cells), CELLS // _BLOCK
    parts = cells.reshape(count, side, _BLOCK, side, _BLOCK, -1)
    return np.asarray(parts.mean((2, 4), dtype=np.float32))
