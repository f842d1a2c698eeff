"""Drawn scenes: what is in the picture, how it is drawn, and how it is sampled.

A scene is a flat background and a few `Thing`s, each inside one of the nine `PLACES` of a 3 x 3
grid. The demo model is trained on these scenes, and the study's pairs are drawn by this same code.
Needs numpy and PIL only.
Units: positions and sizes are fractions of the picture (0 = left or top edge, 1 = right or bottom),
colours 0..255 RGB. All chance comes from the `numpy.random.Generator` that is passed in.
"""

from __future__ import annotations

import io
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

import numpy as np
from PIL import Image, ImageDraw

RGB = tuple[int, int, int]
Ink = RGB | int
Box = tuple[float, float, float, float]  # left, top, right, bottom: in pixels, or as fractions

SHAPES: tuple[str, ...] = ("triangle", "square", "circle", "cross", "ring")
COLOURS: Mapping[str, RGB] = {
    "white": (255, 255, 255),
    "red": (225, 30, 30),
    "green": (30, 170, 60),
    "blue": (40, 70, 225),
    "yellow": (245, 210, 30),
}
# (row, column) of each place.
PLACES: Mapping[str, tuple[int, int]] = {
    "center" if (r, c) == (1, 1) else f"{row} {column}": (r, c)
    for r, row in enumerate(("top", "middle", "bottom"))
    for c, column in enumerate(("left", "center", "right"))
}
CORNERS: tuple[str, ...] = ("top left", "top right", "bottom left", "bottom right")
MAIN_PLACES: tuple[str, ...] = (*CORNERS, "center")

# Each channel's (low, high) of a kind of background.
BACKGROUNDS: Mapping[str, tuple[int, int]] = {
    "black": (0, 0),
    "dark": (0, 70),
    "light": (190, 255),
    "coloured": (0, 255),
}


@dataclass(frozen=True)
class Ranges:
    """Everything that sampling may vary, and how far. The one home of these numbers."""

    size: tuple[float, float] = (0.14, 0.28)  # side of a thing's box
    margin: float = 0.01  # least distance between a thing's box and the edge of its place
    things: tuple[int, int] = (0, 5)  # how many things a scene holds
    contrast: float = 0.4  # least `contrast` between a thing and the background
    saturation: int = 60  # least max - min channel of a "coloured" background
    edge_weight: float = 1 / 3  # how often an edge is taken, to a corner or the centre as 1
    backgrounds: Mapping[str, float] = field(  # kind: how often
        default_factory=lambda: {"black": 0.3, "dark": 0.2, "light": 0.25, "coloured": 0.25}
    )


RANGES = Ranges()


@dataclass(frozen=True)
class Thing:
    """One object: its centre (x, y) and the side `size` of its bounding box."""

    shape: str
    colour: str
    x: float
    y: float
    size: float

    @property
    def place(self) -> str:
        """The place that holds the centre."""
        cell = (min(int(self.y * 3), 2), min(int(self.x * 3), 2))
        return next(name for name, at in PLACES.items() if at == cell)


@dataclass(frozen=True)
class Scene:
    """Things on a background, at most one a place."""

    things: tuple[Thing, ...] = ()
    background: RGB = (0, 0, 0)

    def __post_init__(self) -> None:
        places = [thing.place for thing in self.things]
        if len(places) != len(set(places)):
            raise ValueError(f"two things at one place: {places}")

    def at(self, place: str) -> Thing | None:
        """The thing at `place`, or None."""
        return next((thing for thing in self.things if thing.place == place), None)

    def without(self, place: str) -> Scene:
        """The same scene with nothing at `place`."""
        return replace(self, things=tuple(thing for thing in self.things if thing.place != place))

    def plus(self, thing: Thing) -> Scene:
        """The same scene with one more thing; its place must be free."""
        return replace(self, things=(*self.things, thing))


@dataclass(frozen=True)
class Style:
    """How a scene becomes pixels. If they are not square, sizes refer to the shorter side."""

    width: int = 168
    height: int = 168
    antialias: bool = False
    jpeg_quality: int | None = None  # None: never compressed


def contrast(a: RGB, b: RGB) -> float:
    """Distance of two colours in RGB, one full channel = 1: 0 (same) to 1.73 (black, white)."""
    return float(np.linalg.norm(np.subtract(a, b, dtype=float)) / 255)


def _paint(pen: ImageDraw.ImageDraw, shape: str, box: Box, ink: Ink, paper: Ink) -> None:
    """Draw one shape into its square box, edges included."""
    left, top, right, bottom = box
    side = right - left
    if shape == "triangle":
        pen.polygon([((left + right) / 2, top), (right, bottom), (left, bottom)], fill=ink)
    elif shape == "square":
        pen.rectangle(box, fill=ink)
    elif shape == "circle":
        pen.ellipse(box, fill=ink)
    elif shape == "cross":
        arm = 0.36 * side
        pen.rectangle((left + arm, top, right - arm, bottom), fill=ink)
        pen.rectangle((left, top + arm, right, bottom - arm), fill=ink)
    elif shape == "ring":
        pen.ellipse(box, fill=ink)
        rim = 0.24 * side
        pen.ellipse((left + rim, top + rim, right - rim, bottom - rim), fill=paper)
    else:
        raise ValueError(f"unknown shape {shape!r}: expected one of {', '.join(SHAPES)}")


def box_of(thing: Thing, style: Style) -> Box:
    """The thing's box in pixels."""
    half = thing.size * min(style.width, style.height) / 2
    x, y = thing.x * style.width, thing.y * style.height
    return x - half, y - half, x + half, y + half


def draw(scene: Scene, style: Style = Style()) -> Image.Image:
    """The scene as an RGB picture of `style.width` x `style.height` pixels."""
    scale = 4 if style.antialias else 1
    image = Image.new("RGB", (style.width * scale, style.height * scale), scene.background)
    pen = ImageDraw.Draw(image)
    for thing in scene.things:
        left, top, right, bottom = (edge * scale for edge in box_of(thing, style))
        box = left, top, right, bottom
        _paint(pen, thing.shape, box, COLOURS[thing.colour], scene.background)
    if scale > 1:
        image = image.reduce(scale)
    if style.jpeg_quality is not None:
        stored = io.BytesIO()
        image.save(stored, "JPEG", quality=style.jpeg_quality)
        image = Image.open(stored).convert("RGB")
    return image


def mask(scene: Scene, style: Style = Style()) -> np.ndarray:
    """uint8 [height, width]: 0 where the background shows, i + 1 where `scene.things[i]` does."""
    image = Image.new("L", (style.width, style.height), 0)
    pen = ImageDraw.Draw(image)
    for index, thing in enumerate(scene.things):
        _paint(pen, thing.shape, box_of(thing, style), index + 1, 0)
    return np.asarray(image)


def sample_background(
    rng: np.random.Generator, kind: str | None = None, ranges: Ranges = RANGES
) -> RGB:
    """A background of the given kind (of `BACKGROUNDS`), or of a kind drawn by weight."""
    if kind is None:
        kinds = list(ranges.backgrounds)
        weights = np.array([ranges.backgrounds[k] for k in kinds])
        kind = kinds[rng.choice(len(kinds), p=weights / weights.sum())]
    low, high = BACKGROUNDS[kind]
    while True:
        colour: RGB = tuple(rng.integers(low, high, size=3, endpoint=True).tolist())
        flat = kind == "coloured" and max(colour) - min(colour) < ranges.saturation
        if not flat and len(colours_on(colour, ranges)) >= 3:
            return colour


def colours_on(background: RGB, ranges: Ranges = RANGES) -> tuple[str, ...]:
    """The colours that stand out from `background` by at least `ranges.contrast`."""
    return tuple(
        name for name, rgb in COLOURS.items() if contrast(rgb, background) >= ranges.contrast
    )


def outside(where: str | Box) -> list[str]:
    """The places that one of them, or a box in fractions of the picture, does not reach into."""
    if isinstance(where, str):
        return [place for place in PLACES if place != where]
    left, top, right, bottom = (3 * edge for edge in where)
    near = 1e-6  # rounding of thirds
    return [
        place
        for place, (row, column) in PLACES.items()
        if not (left < column + 1 - near and column + near < right)
        or not (top < row + 1 - near and row + near < bottom)
    ]


def sample_thing(
    rng: np.random.Generator,
    place: str | Box,
    background: RGB,
    *,
    shape: str | None = None,
    colour: str | None = None,
    size: float | None = None,
    ranges: Ranges = RANGES,
) -> Thing:
    """A thing wholly inside `place`; what is not given is drawn. A given colour must stand out.

    A box instead of a place is in fractions of the picture, and has room for the thing.
    """
    allowed = colours_on(background, ranges)
    if colour is not None and colour not in allowed:
        expected = f"expected one of {', '.join(allowed)}"
        raise ValueError(f"{colour} does not stand out from background {background}: {expected}")
    shape = shape or SHAPES[rng.integers(len(SHAPES))]
    colour = colour or allowed[rng.integers(len(allowed))]
    size = float(rng.uniform(*ranges.size)) if size is None else size
    if not isinstance(place, str):
        far = size / 2 + ranges.margin
        low, high = np.add(place[:2], far), np.subtract(place[2:], far)
        x, y = rng.uniform(low, high).tolist()
        return Thing(shape, colour, x, y, size)
    row, column = PLACES[place]
    room = max(1 / 6 - size / 2 - ranges.margin, 0.0)
    dx, dy = rng.uniform(-room, room, size=2)
    return Thing(shape, colour, (column + 0.5) / 3 + float(dx), (row + 0.5) / 3 + float(dy), size)


def sample_places(
    rng: np.random.Generator, count: int, among: Iterable[str] = PLACES, ranges: Ranges = RANGES
) -> list[str]:
    """`count` different places in random order; edge places are taken less often."""
    places = list(among)
    if not places:
        return []
    weights = np.array([1.0 if p in MAIN_PLACES else ranges.edge_weight for p in places])
    picked = rng.choice(len(places), size=count, replace=False, p=weights / weights.sum())
    return [places[i] for i in picked]


def sample_scene(
    rng: np.random.Generator,
    *,
    count: int | None = None,
    background: str | None = None,
    ranges: Ranges = RANGES,
) -> Scene:
    """A scene of `count` things, on a `background` of that kind; what is None is drawn."""
    ground = sample_background(rng, background, ranges)
    number = int(rng.integers(*ranges.things, endpoint=True)) if count is None else count
    places = sample_places(rng, number, ranges=ranges)
    return Scene(tuple(sample_thing(rng, p, ground, ranges=ranges) for p in places), ground)


def sample_pair(
    rng: np.random.Generator,
    place: str | Box,
    *,
    shape: str | None = None,
    colour: str | None = None,
    size: float | None = None,
    distractors: int | None = None,
    background: str | None = None,
    ranges: Ranges = RANGES,
) -> tuple[Scene, Scene]:
    """(with, without): scenes that differ in exactly one thing, at `place` (as for `sample_thing`).

    `distractors`: how many things stand at places `outside`, in both.
    """
    while True:
        ground = sample_background(rng, background, ranges)
        if colour is None or colour in colours_on(ground, ranges):
            break
    low, high = ranges.things
    number = int(rng.integers(low, high)) if distractors is None else distractors
    others = sample_places(rng, number, outside(place), ranges)
    without = Scene(tuple(sample_thing(rng, p, ground, ranges=ranges) for p in others), ground)
    thing = sample_thing(rng, place, ground, shape=shape, colour=colour, size=size, ranges=ranges)
    return without.plus(thing), without


DEFAULT_STYLE = Style(336, 336)
DEFAULT_PAIR: tuple[Scene, Scene] = (  # the seed's: 1.jpg and 2.jpg
    Scene((Thing("square", "red", 0.5, 0.78, 0.22), Thing("triangle", "white", 0.17, 0.17, 0.22))),
    Scene((Thing("square", "red", 0.5, 0.78, 0.22),)),
)
