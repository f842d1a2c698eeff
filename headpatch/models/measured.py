"""Where in the picture the processed pixels come from: measured, whatever the processor does.

Pictures of the user's size whose brightness is their own coordinate go through the processor in the
picture's stead. What it returns says, for every pixel that the model is shown, where it comes from:
after a resize, a crop, padding or a flip, and whatever the settings for those are called.

The pictures are grey, so that neither the order nor the loss of channels matters, and keep away
from black and white, so that some contrast may be added without clipping. Each ramp comes with its
negative: together they give the brightness of full white, which undoes any rescaling and
normalization, shows which pixels are padding (they have one value, whatever the picture), and tells
a processor that does not do the same to every picture.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TypeAlias

import numpy as np
from jaxtyping import Bool, Float, Int
from PIL import Image
from torch import Tensor

from headpatch.errors import InputError

Process: TypeAlias = Callable[[Image.Image], Tensor]
"""Gives the pixel values that the model is shown of a picture."""
Arrange: TypeAlias = Callable[[Tensor], Tensor]
"""Gives a view, ``[channels, height, width]``, of pixel values."""
Axis = Float[np.ndarray, "_ 2"]
"""Where each row or column of cells starts and ends, in fractions of the picture."""
Plane: TypeAlias = Float[np.ndarray, "height width"]

_LOW, _HIGH = 40, 215  # brightness at the two ends of a ramp, of 0 to 255
_STEPS = 7  # times that the rounding of brightness goes round along the other side
_ALIKE = 0.01  # of full contrast: what two pictures' contrast may differ by, as rounding
_WHOLE = 0.98  # of full contrast: a pixel with less shows some padding
_SNAP = 0.25  # pixels: twice what fits err by; what lies this near to whole ones is whole


class Placeless(InputError):
    """It is not known where patches look; all that needs no places can still be measured."""


def cells(down: Axis, across: Axis) -> Float[np.ndarray, "tokens 4"]:
    """Boxes (left, top, right, bottom) of a grid, row by row."""
    top, left = np.meshgrid(down[:, 0], across[:, 0], indexing="ij")
    bottom, right = np.meshgrid(down[:, 1], across[:, 1], indexing="ij")
    return np.stack([left, top, right, bottom], -1).reshape(-1, 4)


def ramp(name: str, size: tuple[int, int]) -> Image.Image:
    """Draw a ramp along ``x`` or ``y``, or its negative (``-x``), of a size (width, height).

    Brightness is rounded up as often as its fraction says, in steps that go round along the ramp's
    other side, so that its mean is finer than one level.
    """
    along, across = size if name[-1] == "x" else size[::-1]
    levels = _LOW + (_HIGH - _LOW) * (np.arange(along) + 0.5) / along
    drawn = np.empty((along, across, 3), np.uint8)
    for channel in range(3):
        up = ((np.arange(across) + 0.5) * _STEPS / across + channel / 3) % 1
        drawn[..., channel] = levels.astype(np.uint8)[:, None] + (levels[:, None] % 1 + up >= 1)
    if name[0] == "-":
        drawn = np.uint8(_LOW + _HIGH) - drawn
    return Image.fromarray(drawn.swapaxes(0, 1) if name[-1] == "x" else drawn)


@dataclass(frozen=True)
class Line:
    """Which pixels of one side of a view show the picture: edge `c` is at ``(c - offset) / whole``.

    In pixels; a negative `whole` is a mirrored picture.
    """

    offset: float
    whole: float

    def at(self, pixels: Float[np.ndarray, "*shape"]) -> Float[np.ndarray, "*shape"]:
        """Return fractions of the picture."""
        return np.asarray((pixels - self.offset) / self.whole)

    def axis(self, starts: Int[np.ndarray, " cells"], side: int) -> Axis:
        """Return where cells that start at these pixels lie in the picture."""
        edges = self.at(np.stack([starts, starts + side], -1).astype(np.float64))
        return np.sort(edges, -1)

    def margin(self, length: int) -> float:
        """What may be blurred at the picture's ends, as a fraction of a side of `length` pixels."""
        return min(3 * self.pixel(length), 0.25)

    def pixel(self, length: int) -> float:
        """The larger of a pixel of the picture and one of the view, as a fraction of the side."""
        return max(1 / length, 1 / abs(self.whole))


@dataclass(frozen=True, eq=False)
class View:
    """One view of the picture, and where its rows (`down`) and columns (`across`) lie."""

    down: Line
    across: Line

    def cells(
        self, tops: Int[np.ndarray, " rows"], lefts: Int[np.ndarray, " columns"], side: int
    ) -> Float[np.ndarray, "tokens 4"]:
        """Return the boxes of square cells that start at these pixels, row by row."""
        return cells(self.down.axis(tops, side), self.across.axis(lefts, side))


class Measured:
    """What a user's processor makes of pictures of coordinates, of a size (width, height)."""

    def __init__(self, process: Process, size: tuple[int, int]) -> None:
        self._process = process
        self._size = size

    @cached_property
    def _pixels(self) -> Mapping[str, Tensor]:
        dark = Image.new("RGB", self._size, (_LOW,) * 3)
        ramps = {name: ramp(name, self._size) for name in ("x", "-x", "y", "-y")}
        return {name: self._process(picture) for name, picture in ({"dark": dark} | ramps).items()}

    def blank(self, arrange: Arrange) -> bool:
        """Whether a view shows padding alone: the same, whatever the picture."""
        views = [arrange(pixels) for pixels in self._pixels.values()]
        return all(bool((view == views[0]).all()) for view in views)

    def view(self, arrange: Arrange, shape: tuple[int, ...]) -> View:
        """Measure where a view looks, in pixel values of a shape.

        `Placeless` if it does not show one upright rectangle of the picture, or the processor does
        not do the same to every picture.
        """
        for pixels in self._pixels.values():
            if pixels.shape != shape:
                shapes = f"{tuple(pixels.shape)} for one picture and {tuple(shape)} for another"
                raise _unmeasured(f"pixels of shape {shapes} of its size")
        arranged = {name: arrange(pixels) for name, pixels in self._pixels.items()}
        seen = {name: pixels.double().cpu().numpy().sum(0) for name, pixels in arranged.items()}
        contrast = seen["x"] + seen["-x"] - 2 * seen["dark"]
        other = seen["y"] + seen["-y"] - 2 * seen["dark"]
        full = _full(contrast)
        if np.abs(_blocks(contrast - other)).max() > _ALIKE * abs(full):
            raise _unmeasured("not the same for every picture of one size, as if at random")
        shows = contrast / full > _WHOLE
        x, y = ((seen[side] - seen["dark"]) / np.where(shows, contrast, full) for side in "xy")
        width, height = self._size
        across, down = _line(x, shows, width), _line(y.T, shows.T, height)
        _check(x, y, shows, View(down, across), self._size)
        return View(_whole_pixels(down, x.shape[0]), _whole_pixels(across, x.shape[1]))


def _full(contrast: Plane) -> float:
    """Contrast of the pixels that show the picture alone; below 0 if they are a negative."""
    most = float(np.abs(contrast).max(initial=0))
    if not np.isfinite(most) or most == 0:
        raise _unmeasured("pixels that do not follow the picture's brightness")
    return float(np.median(contrast[np.abs(contrast) > most / 2]))


def _line(places: Plane, shows: Bool[np.ndarray, "height width"], length: int) -> Line:
    """Fit a line to the places that columns show."""
    columns = np.flatnonzero(shows.any(0))
    if len(columns) < 4:
        raise _unmeasured("too little of the picture")
    counts = shows.sum(0)[columns]
    means = np.where(shows, places, 0).sum(0)[columns] / counts
    centres = columns + 0.5
    half = len(columns) // 2
    slope = np.median((means[half:] - means[:-half]) / (centres[half:] - centres[:-half]))
    start = np.median(means - slope * centres)
    for _ in range(2):
        if abs(slope) * 1e6 < 1:
            raise _unmeasured("pixels that do not follow the picture's places")
        line = Line(-start / slope, 1 / slope)
        fitted, edge = line.at(centres), line.margin(length)
        inner = (fitted > edge) & (fitted < 1 - edge)
        if inner.sum() < 3:
            raise _unmeasured("too little of the picture")
        slope, start = np.polyfit(centres[inner], means[inner], 1)
    return Line(float(-start / slope), float(1 / slope))


def _check(
    x: Plane, y: Plane, shows: Bool[np.ndarray, "height width"], view: View, size: tuple[int, int]
) -> None:
    """Refuse a view whose pixels do not all lie where the two lines say."""
    # Pixels near the picture's edge are left out: there resampling blurs. Means over small squares
    # may be off by a pixel, which is what resampling to the nearest moves them by, and by one level
    # of brightness.
    width, height = size
    rows, columns = (np.arange(count) + 0.5 for count in x.shape)
    at_x, at_y = view.across.at(columns), view.down.at(rows)
    edge_x, edge_y = view.across.margin(width), view.down.margin(height)

    def within(by: int) -> Bool[np.ndarray, "height width"]:
        inside_x = (at_x > by * edge_x) & (at_x < 1 - by * edge_x)
        inside_y = (at_y > by * edge_y) & (at_y < 1 - by * edge_y)
        return np.asarray(inside_y[:, None] & inside_x[None, :])

    inner = within(1)
    if (inner & ~shows).any() or (shows & ~within(-1)).any():
        raise _unmeasured(
            "pixels beside the picture that change with it, or some within that do not"
        )
    weight = np.maximum(_blocks(inner * 1.0), 0.25)
    for places, line, length, told in (
        (x, view.across, width, at_x[None, :]),
        (y, view.down, height, at_y[:, None]),
    ):
        off = _blocks(np.where(inner, places - told, 0)) / weight
        if np.abs(off).max() > line.pixel(length) + 1 / (_HIGH - _LOW):
            raise _unmeasured("pixels that are not in rows and columns of the picture")


def _blocks(values: Plane) -> Float[np.ndarray, "rows columns"]:
    """Means over squares of 7 pixels, the last ones smaller."""
    starts = [np.arange(0, count, 7) for count in values.shape]
    sums = np.add.reduceat(np.add.reduceat(values, starts[0], 0), starts[1], 1)
    rows, columns = (
        np.diff(np.append(each, count)) for each, count in zip(starts, values.shape, strict=True)
    )
    return np.asarray(sums / (rows[:, None] * columns[None, :]))


def _whole_pixels(line: Line, length: int) -> Line:
    """Take a picture that begins and ends at whole pixels of the view for what it is."""
    # Processors resize to whole pixels, and crop and pad by them; only a picture that was padded
    # before it was resized lies between pixels.
    near = Line(float(round(line.offset)), float(round(line.whole)))
    if near.whole == 0:
        return line
    ends = np.array([0.0, length])
    off = np.abs(line.at(ends) - near.at(ends)).max() * abs(line.whole)
    return near if off < _SNAP else line


def _unmeasured(what: str) -> Placeless:
    return Placeless(
        "--model",
        f"its image processor gives {what}",
        "an upright rectangle of the picture in rows and columns, the same for every picture",
        "So where its patches look is not known, nor what share of the attention a region gets; "
        "named heads can be changed (ablate --heads 24.17).",
    )
