"""Draw a dataset of counterbalanced pairs.

The design. Each pair asks about one place. Its *with* picture holds an object there and its
*without* picture is the same picture without that object, so that the right answer is Yes once and
No once: whoever always says Yes, or No, scores 50%. Each pair has a level of each factor:

=============  ====================================================================
region         the place that is asked about and changed: a ninth of the picture, or more
shape, colour  of the object there
size           of the object: small, medium or large, a third of the range each
distractors    how many other objects stand elsewhere, in *both* pictures: 0 to 4, or as many as
               there are ninths outside of every region that is asked about
background     black, dark, light or coloured
wording        how the question is put
=============  ====================================================================

Every level of a factor comes up equally often, and every two levels of two factors meet equally
often (rounded up or down where the number of pairs does not divide; `balanced`), so that no factor
stands in for another. What is left is drawn at random: where in its place an object
stands, and the places, shapes, colours and sizes of the distractors.

The region is the whole place that the question names, and nothing more: things stand at most one a
place and wholly inside it, so that the object lies inside the region and every other thing outside
it. A quadrant would not do: it reaches over parts of the neighbouring places, where distractors
stand in a picture whose right answer is No.

What can be had without looking at the place. *Is there anything at all* is right in every *with*
picture and in those *without* pictures that hold no distractor: 60%. Counting objects does no
better: a *with* picture holds 1 to 5 and a *without* picture 0 to 4, evenly, so that the best rule
on the count is right in half of the cases and a fifth of the other half: 60%. With fewer places to
stand at, both rules do better: of the whole picture, *anything at all* is the question itself.
"""

import string
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Literal

import numpy as np
from jaxtyping import Int

from headpatch.errors import InputError
from headpatch.pairs.region import REGIONS, UNNAMED, Region
from headpatch.pairs.scene import (
    BACKGROUNDS,
    COLOURS,
    CORNERS,
    RANGES,
    SHAPES,
    Box,
    Scene,
    Style,
    draw,
    outside,
    sample_pair,
)


@dataclass(frozen=True)
class _Asked:
    """A region that is asked about."""

    name: str  # as the manifest has it
    box: Box
    place: str  # of a scene, to the edge; empty if it is no single place
    at: str  # what ``{at}`` becomes; empty if no words name it

    @classmethod
    def of(cls, name: str, size: int) -> "_Asked":
        """Read a region of pictures of so many pixels; ``top-left`` is the corner."""
        name = f"{name}-corner" if f"{name}-corner" in PLACES else name
        if name == UNNAMED.name:
            raise InputError("--regions", "none", "a place that an object is drawn at")
        region = Region.parse(name, "--regions").within(size, size, "--regions")
        least = RANGES.size[1] + 2 * RANGES.margin
        if min(np.subtract(region.box[2:], region.box[:2])) < least:
            found = f"{name}, in which not every object has room"
            expected = f"a box at least {least:.2f} of the picture wide and high"
            raise InputError("--regions", found, expected)
        place, at = PLACES.get(name, ""), ""
        if place:
            at = f"in the {place}" if place == "center" else f"in the {place} corner"
        elif name in REGIONS:
            at = "in the picture" if region.whole else f"in the {name.replace('-', ' ')}"
        return cls(name, region.box, place, at)

    @property
    def where(self) -> str | Box:
        """Where a scene has it, as `sample_pair` takes it."""
        return self.place or self.box


PLACES: Mapping[str, str] = {f"{corner.replace(' ', '-')}-corner": corner for corner in CORNERS} | {
    "center": "center"
}
"""The place of a scene that a region's name asks about: the region is the place, to the edge. In
another region, a half or a box, the object stands anywhere."""
SIZES = ("small", "medium", "large")
DISTRACTORS = tuple(map(str, range(RANGES.things[1])))  # with the object: as many as a scene holds
FIELDS = ("at", "shape", "colour")
"""What a wording may hold in braces."""

_JPEG_QUALITY = 95
_STEPS = 60  # swaps tried for each cell of a column's cross tables
_SAMPLE = 512  # rows that a swap may choose its partner from


@dataclass(frozen=True)
class Drawn:
    """A pair that is to be drawn."""

    name: str
    with_scene: Scene
    without_scene: Scene
    question: str
    region: str  # the place, as `headpatch.pairs.region.REGIONS` names it
    factors: Mapping[str, str]  # its level of each factor

    def files(self, kind: str) -> tuple[str, str]:
        """Return the names of the two pictures."""
        return f"{self.name}-with.{kind}", f"{self.name}-without.{kind}"

    def row(self, kind: str) -> dict[str, str]:
        """Return the pair's row of the manifest, by column."""
        present, absent = self.files(kind)
        row = {"name": self.name, "with": present, "without": absent}
        return row | {"question": self.question, "region": self.region} | dict(self.factors)


def plan(
    n: int, seed: int, regions: Sequence[str], wordings: Sequence[str], size: int = 336
) -> tuple[Drawn, ...]:
    """Say which pairs are drawn, of `size` pixels; the same arguments give the same pairs.

    Regions are asked about in turn, as `headpatch.pairs.region.Region.parse` reads them, but that
    ``top-left`` stands for ``top-left-corner``. Wordings hold ``{at}`` ("in the top left corner",
    "in the left half"), and perhaps ``{shape}`` and ``{colour}`` of the object. Where one region is
    asked about, a wording may name it itself; of a box, which has no name, it must.
    """
    asked = [_Asked.of(name, size) for name in regions]
    for flag, values in (("--regions", [one.box for one in asked]), ("--wording", wordings)):
        if len(set(values)) < len(values):
            raise InputError(flag, "one of them is named twice", "each once")
    for wording in wordings:
        _check_wording(wording, asked)
    free = min(len(outside(one.where)) for one in asked)
    factors: dict[str, Sequence[str]] = {
        "region": [one.name for one in asked],
        "shape": SHAPES,
        "colour": tuple(COLOURS),
        "size": SIZES,
        "distractors": DISTRACTORS[: free + 1],
        "background": tuple(BACKGROUNDS),
        "wording": wordings,
    }
    seeds = np.random.SeedSequence([seed % 2**64, n])  # numpy takes no negative seed
    first, *others = seeds.spawn(n + 1)
    design = balanced([len(levels) for levels in factors.values()], n, np.random.default_rng(first))
    width = max(4, len(str(n)))
    places = {one.name: one for one in asked}
    pairs = []
    for index, own in enumerate(others):
        chosen = {
            name: levels[column[index]]
            for (name, levels), column in zip(factors.items(), design, strict=True)
        }
        at = places[chosen["region"]]
        pairs.append(_drawn(f"{index + 1:0{width}d}", at, chosen, np.random.default_rng(own)))
    return tuple(pairs)


def _drawn(name: str, asked: _Asked, level: Mapping[str, str], rng: np.random.Generator) -> Drawn:
    low, high = RANGES.size
    third = (high - low) / len(SIZES)
    start = low + SIZES.index(level["size"]) * third
    present, absent = sample_pair(
        rng,
        asked.where,
        shape=level["shape"],
        colour=level["colour"],
        size=float(rng.uniform(start, start + third)),
        distractors=int(level["distractors"]),
        background=level["background"],
    )
    more = {"shape": level["shape"], "colour": level["colour"]}
    question = level["wording"].format(at=asked.at, **more)
    factors = {key: value for key, value in level.items() if key != "region"}
    return Drawn(name, present, absent, question, level["region"], factors)


def write_pictures(
    folder: Path,
    pairs: Sequence[Drawn],
    size: int,
    kind: Literal["png", "jpg"],
    on_progress: Callable[[int, int], None] | None = None,
) -> None:
    """Draw the pairs into a folder: square pictures of `size` pixels, with smooth edges."""
    style = Style(size, size, antialias=True)
    for done, pair in enumerate(pairs, start=1):
        scenes = (pair.with_scene, pair.without_scene)
        for scene, file in zip(scenes, pair.files(kind), strict=True):
            drawn = BytesIO()  # Pillow, given a file, hides why it cannot be written
            options = {} if kind == "png" else {"quality": _JPEG_QUALITY, "subsampling": 0}
            draw(scene, style).save(drawn, "png" if kind == "png" else "jpeg", **options)
            (folder / file).write_bytes(drawn.getvalue())
        if on_progress:
            on_progress(done, len(pairs))


def _check_wording(wording: str, asked: Sequence[_Asked]) -> None:
    expected = f"a question with {{at}}, and no more in braces than {', '.join(FIELDS)}"
    try:
        parts = list(string.Formatter().parse(wording))
    except ValueError as error:
        raise InputError("--wording", f"{wording!r} ({error})", expected) from None
    fields = [name for _, name, _, _ in parts if name is not None]
    if "at" not in fields and len(asked) > 1:
        raise InputError("--wording", f"no {{at}} in {wording!r}, and several regions", expected)
    if "at" in fields and (nameless := [one.name for one in asked if not one.at]):
        found = f"{nameless[0]}, a box that has no name to ask by"
        hint = "Or name a half (left-half), a corner, center or image."
        expected = "no other region, and a --wording that names the place without {at}"
        raise InputError("--regions", found, expected, hint)
    plain = all(not form and not change for _, _, form, change in parts)
    if not plain or not set(fields) <= set(FIELDS):
        raise InputError("--wording", repr(wording), expected)


def balanced(
    levels: Sequence[int], rows: int, rng: np.random.Generator
) -> Int[np.ndarray, "factors rows"]:
    """Give each row a level of each factor (`levels`: how many it has); no factor tells of another.

    Every level of a factor comes up ``rows / levels`` times, rounded up or down. Columns are made
    one after the other: a random one first, of which rows are then swapped in pairs until every
    cell of its cross table with each earlier factor holds ``rows / (levels × levels)`` rows,
    rounded up or down, or no swap helps. Swaps leave each factor's own counts as they are.
    """
    columns: list[Int[np.ndarray, " rows"]] = []
    for count in levels:
        column = rng.permutation(count)[np.arange(rows) % count]
        column = rng.permutation(column)
        tables = [_cross(earlier, column, size, count) for earlier, size in zip(columns, levels)]  # noqa: B905  the columns so far
        _even_out(column, columns, tables, rng)
        columns.append(column)
    return np.stack(columns)


def _cross(
    first: Int[np.ndarray, " rows"], second: Int[np.ndarray, " rows"], rows: int, columns: int
) -> Int[np.ndarray, "levels others"]:
    return np.bincount(first * columns + second, minlength=rows * columns).reshape(rows, columns)


def _even_out(
    column: Int[np.ndarray, " rows"],
    earlier: Sequence[Int[np.ndarray, " rows"]],
    tables: Sequence[Int[np.ndarray, "_ levels"]],
    rng: np.random.Generator,
) -> None:
    """Swap levels of `column` in place, and keep `tables` up to date.

    A swap is taken if the sum of the squared cells does not grow; the one that lowers it most.
    """
    shares = [table.sum() / table.size for table in tables]  # which no swap changes
    bounds = [(np.floor(share), np.ceil(share)) for share in shares]
    for _ in range(_STEPS * sum(table.size for table in tables)):
        pairs = zip(tables, bounds, strict=True)
        if all(table.min() >= low and table.max() <= high for table, (low, high) in pairs):
            return
        row = int(rng.integers(len(column)))
        others = np.flatnonzero(column != column[row])
        if len(others) == 0:
            return
        others = rng.permutation(others)[:_SAMPLE]  # in random order, so that ties are too
        change = _change(column, earlier, tables, row, others)
        best = int(np.argmin(change))
        if change[best] <= 0:
            other = int(others[best])
            for table, known in zip(tables, earlier, strict=True):
                table[known[row], column[row]] -= 1
                table[known[other], column[other]] -= 1
                table[known[row], column[other]] += 1
                table[known[other], column[row]] += 1
            column[[row, other]] = column[[other, row]]


def _change(
    column: Int[np.ndarray, " rows"],
    earlier: Sequence[Int[np.ndarray, " rows"]],
    tables: Sequence[Int[np.ndarray, "_ levels"]],
    row: int,
    others: Int[np.ndarray, " others"],
) -> Int[np.ndarray, " others"]:
    """By how much half the sum of squared cells changes if a row swaps levels with each other."""
    level, others_level = column[row], column[others]
    total = np.zeros(len(others), dtype=np.int64)
    for table, known in zip(tables, earlier, strict=True):
        at, others_at = known[row], known[others]
        change = (
            table[at, others_level] - table[at, level]
            + table[others_at, level] - table[others_at, others_level]
            + 2
        )  # fmt: skip
        total += np.where(others_at == at, 0, change)
    return total
