"""Draw a dataset of counterbalanced pairs.

The design. Each pair asks about one place. Its *with* picture holds an object there and its
*without* picture is the same picture without that object, so that the right answer is Yes once and
No once: whoever always says Yes, or No, scores 50%. Each pair has a level of each factor:

=============  ====================================================================
region         the place that is asked about and changed: a ninth of the picture
shape, colour  of the object there
size           of the object: small, medium or large, a third of the range each
distractors    how many other objects stand elsewhere, in *both* pictures: 0 to 4
background     black, dark, light or coloured
wording        how the question is put
=============  ====================================================================

Every level of a factor comes up equally often, and every two levels of two factors meet equally
often (rounded up or down where the number of pairs does not divide; `headpatch.pairs.balance`), so
that no factor stands in for another. What is left is drawn at random: where in its place an object
stands, and the places, shapes, colours and sizes of the distractors.

The region is the whole place that the question names, and nothing more: things stand at most one a
place and wholly inside it, so that the object lies inside the region and every other thing outside
it. A quadrant would not do: it reaches over parts of the neighbouring places, where distractors
stand in a picture whose right answer is No.

What can be had without looking at the place. *Is there anything at all* is right in every *with*
picture and in those *without* pictures that hold no distractor: 60%. Counting objects does no
better: a *with* picture holds 1 to 5 and a *without* picture 0 to 4, evenly, so that the best rule
on the count is right in half of the cases and a fifth of the other half: 60%.
"""

import string
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Literal

import numpy as np

from headpatch.errors import InputError
from headpatch.pairs.balance import balanced
from headpatch.pairs.scene import (
    BACKGROUNDS,
    COLOURS,
    CORNERS,
    RANGES,
    SHAPES,
    Scene,
    Style,
    draw,
    sample_pair,
)

PLACES: Mapping[str, str] = {f"{corner.replace(' ', '-')}-corner": corner for corner in CORNERS} | {
    "center": "center"
}
"""The place of a scene that a region's name asks about: the region is the place, to the edge."""
SIZES = ("small", "medium", "large")
DISTRACTORS = tuple(map(str, range(RANGES.things[1])))  # with the object: as many as a scene holds
FIELDS = ("at", "shape", "colour")
"""What a wording may hold in braces."""

_JPEG_QUALITY = 95


@dataclass(frozen=True)
class Drawn:
    """A pair that is to be drawn.

    Attributes
    ----------
    with_scene, without_scene
        They differ in the object at the asked place.
    region
        The place, as `headpatch.pairs.region.REGIONS` names it.
    factors
        The pair's level of each factor.
    """

    name: str
    with_scene: Scene
    without_scene: Scene
    question: str
    region: str
    factors: Mapping[str, str]

    def files(self, kind: str) -> tuple[str, str]:
        """Return the names of the two pictures."""
        return f"{self.name}-with.{kind}", f"{self.name}-without.{kind}"

    def row(self, kind: str) -> dict[str, str]:
        """Return the pair's row of the manifest, by column."""
        present, absent = self.files(kind)
        row = {"name": self.name, "with": present, "without": absent}
        return row | {"question": self.question, "region": self.region} | dict(self.factors)


def plan(n: int, seed: int, regions: Sequence[str], wordings: Sequence[str]) -> tuple[Drawn, ...]:
    """Say which pairs are drawn; the same arguments give the same pairs.

    Parameters
    ----------
    regions
        Asked about in turn, each of `PLACES`; ``top-left`` stands for ``top-left-corner``.
    wordings
        Each with ``{at}`` ("in the top left corner"), and perhaps ``{shape}`` and ``{colour}`` of
        the object.

    Raises
    ------
    InputError
        If a wording is malformed, or a region or wording is named twice.
    """
    regions = [name if name in PLACES else f"{name}-corner" for name in regions]
    for wording in wordings:
        _check_wording(wording)
    for flag, values in (("--regions", regions), ("--wording", wordings)):
        if len(set(values)) < len(values):
            raise InputError(flag, "one of them is named twice", "each once")
    factors: dict[str, Sequence[str]] = {
        "region": regions,
        "shape": SHAPES,
        "colour": tuple(COLOURS),
        "size": SIZES,
        "distractors": DISTRACTORS,
        "background": tuple(BACKGROUNDS),
        "wording": wordings,
    }
    seeds = np.random.SeedSequence([seed % 2**64, n])  # numpy takes no negative seed
    first, *others = seeds.spawn(n + 1)
    design = balanced([len(levels) for levels in factors.values()], n, np.random.default_rng(first))
    width = max(4, len(str(n)))
    return tuple(
        _drawn(
            f"{number:0{width}d}",
            {
                name: levels[column[number - 1]]
                for (name, levels), column in zip(factors.items(), design, strict=True)
            },
            np.random.default_rng(own),
        )
        for number, own in enumerate(others, start=1)
    )


def _drawn(name: str, level: Mapping[str, str], rng: np.random.Generator) -> Drawn:
    place = PLACES[level["region"]]
    low, high = RANGES.size
    third = (high - low) / len(SIZES)
    start = low + SIZES.index(level["size"]) * third
    present, absent = sample_pair(
        rng,
        place,
        shape=level["shape"],
        colour=level["colour"],
        size=float(rng.uniform(start, start + third)),
        distractors=int(level["distractors"]),
        background=level["background"],
    )
    at = f"in the {place}" if place == "center" else f"in the {place} corner"
    question = level["wording"].format(at=at, shape=level["shape"], colour=level["colour"])
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
            if kind == "png":
                draw(scene, style).save(drawn, "png")
            else:
                draw(scene, style).save(drawn, "jpeg", quality=_JPEG_QUALITY, subsampling=0)
            (folder / file).write_bytes(drawn.getvalue())
        if on_progress:
            on_progress(done, len(pairs))


def _check_wording(wording: str) -> None:
    expected = f"a question with {{at}}, and no more in braces than {', '.join(FIELDS)}"
    try:
        parts = list(string.Formatter().parse(wording))
    except ValueError as error:
        raise InputError("--wording", f"{wording!r} ({error})", expected) from None
    fields = [name for _, name, _, _ in parts if name is not None]
    if "at" not in fields:
        raise InputError("--wording", f"no {{at}} in {wording!r}", expected)
    plain = all(not form and not change for _, _, form, change in parts)
    if not plain or not set(fields) <= set(FIELDS):
        raise InputError("--wording", repr(wording), expected)
