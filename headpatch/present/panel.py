"""A pair of axes as data: lines, points or bars in it, and what they are read against."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Literal, TypeAlias

import numpy as np
from jaxtyping import Bool, Float

from headpatch.present.canvas import BLUE, GREEN, GREY, ORANGE, VERMILLION, signed

Values: TypeAlias = Float[np.ndarray, " points"]

# length of the linear part either side of 0, in decades, as matplotlib's ``linscale=0.7``
_NEAR_0 = 0.7 / 0.9
_ROUND = (0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0)
_LABELS = 11  # that fit along an axis of counts


def root(x: Any) -> Any:
    """Give the signed square root, which makes room for small effects beside a few large ones."""
    return np.sign(x) * np.sqrt(np.abs(x))


def square(x: Any) -> Any:
    """Undo `root`."""
    return np.sign(x) * np.square(x)


def digits(most: float) -> int:
    """Digits after the point that show a sixteenth of `most`."""
    return int(max(1, np.ceil(1 - np.log10(most / 16))))


@dataclass(frozen=True)
class Scale:
    """How numbers lie along an axis.

    ``root`` follows the signed square root, ``counts`` log2(n + 1); ``beyond`` is linear up to
    ±`linear` and logarithmic beyond.
    """

    kind: Literal["linear", "root", "counts", "beyond"] = "linear"
    linear: float = 1.0
    low: float | None = None  # end of the axis; None: where the numbers end
    high: float | None = None
    ticks: Mapping[float, str] = field(default_factory=dict)  # written; empty: round ones

    def along(self, values: Any) -> Any:
        """Return where numbers lie."""
        x = np.asarray(values, np.float64)
        match self.kind:
            case "root":
                return root(x)
            case "counts":
                return np.log2(x + 1)
            case "beyond":
                size = np.maximum(np.abs(x) / self.linear, 1.0)
                beyond = np.sign(x) * self.linear * (_NEAR_0 + np.log10(size))
                return np.where(np.abs(x) <= self.linear, x * _NEAR_0, beyond)
        return x

    def back(self, places: Any) -> Any:
        """Undo `along`."""
        y = np.asarray(places, np.float64)
        match self.kind:
            case "root":
                return square(y)
            case "counts":
                return np.exp2(y) - 1
            case "beyond":
                size = np.abs(y) / self.linear - _NEAR_0
                beyond = np.sign(y) * self.linear * 10 ** np.maximum(size, 0)
                return np.where(size <= 0, y / _NEAR_0, beyond)
        return y

    def labels(self, values: Values) -> Mapping[float, str]:
        """Return which numbers are written beside the axis of these; empty: the renderer's own."""
        finite = values[np.isfinite(values)]
        if self.ticks or not len(finite):
            return self.ticks
        most = float(np.abs(finite).max()) or 1.0
        match self.kind:
            case "root":
                return {share * most: _short(share * most, most) for share in (-1.0, 0.0, 1.0)}
            case "counts":
                counts = sorted(set(finite.astype(int).tolist()))
                return {float(n): f"{n:,}" for n in self._apart(counts)}
            case "beyond":
                return _beyond(finite, self.linear)
        return {}

    def _apart(self, counts: list[int]) -> list[int]:
        """Return those whose labels keep apart, the first and the last among them."""
        places, last = self.along(counts), counts[-1]
        shown, room = [counts[0]], (places[-1] - places[0]) / _LABELS
        for count, place in zip(counts, places, strict=True):
            free = count == last or places[-1] - place >= room
            if free and place - self.along(shown[-1]) >= room:
                shown.append(count)
        return shown


def _short(value: float, most: float) -> str:
    return signed(value, digits(4 * most)) if value else "0"


def _beyond(values: Values, linear: float) -> dict[float, str]:
    """Mark 0, the ends of the linear part, and round numbers beyond them."""
    low, high = float(values.min()), float(np.abs(values).max())
    beyond = [tick for tick in _ROUND if 2 * linear <= tick <= max(high, 2 * linear)]
    ticks = sorted({0.0, linear, *beyond})
    below = [-tick for tick in ticks if 0 < tick <= max(-low, linear)]
    return {tick: signed(tick, 2) for tick in (*below, *ticks)}


@dataclass(frozen=True)
class Look:
    """How a series is drawn; no two of a chart are told apart by colour alone."""

    color: str  # hexadecimal
    marker: str = "o"  # as matplotlib names it, like `line` and `hatch`; empty: none
    line: str = "-"
    hatch: str = ""
    size: float = 0.0  # of markers, in points; 0: as usual
    hollow: bool = False  # markers and bars are filled with white
    width: float = 1.1
    alpha: float = 1.0


LOOKS: Final = (
    Look(VERMILLION, "o", "-"),
    Look(BLUE, "s", "--"),
    Look(GREEN, "^", "-."),
    Look(ORANGE, "D", ":"),
    Look("#CC79A7", "v", "-"),
    Look("#56B4E9", "P", "--"),
    Look("#404040", "X", "-."),
)
"""Looks by the number of a series."""
WITH_LOOK: Final = Look(VERMILLION, "o", "-")
WITHOUT_LOOK: Final = Look(BLUE, "D", "--", hatch="/////", hollow=True)
RANDOM_LOOK: Final = Look(GREY, "", ":")
ASKED: Final = {"noising": "necessary?", "denoising": "sufficient?"}
"""What each direction of a change asks of a head."""


@dataclass(frozen=True, eq=False)
class Series:
    """Points of a panel that belong together; what is not finite is left out."""

    name: str
    x: Values  # numbers, or places among `Panel.names`
    y: Values  # positive infinity is an arrow at the upper edge
    low: Values | None = None  # end of an interval of each point
    high: Values | None = None
    null_low: Values | None = None  # end of what chance alone gives, to compare each point with
    null_high: Values | None = None
    look: int | Look = 0  # the same in every panel of a chart
    null: Values | None = None  # the middle of what chance gives
    null_name: str = ""  # of its band, which is then grey; empty: it has the series' colour
    mark: Literal["", "line", "points", "bars"] = ""  # empty: a line, or points at named places
    ends: Literal["", "bars", "band"] = ""  # of the interval; empty: a band about a line, else bars
    hollow: Bool[np.ndarray, " points"] | None = None
    texts: Sequence[str] = ()  # beside each point, away from 0
    before: Bool[np.ndarray, " points"] | None = None  # towards lower numbers; None: as 0 says
    labels: Sequence[str] = ()  # written where they hide no other; the first choose first
    hover: Sequence[str] = ()  # what pointing at each point says; empty: its numbers
    width: float = 0.8  # of bars, in places

    @property
    def style(self) -> Look:
        """Its look."""
        return self.look if isinstance(self.look, Look) else LOOKS[self.look % len(LOOKS)]

    @property
    def interval(self) -> tuple[Values, Values] | None:
        """Ends of its intervals; None where there is none."""
        return _both(self.low, self.high)

    @property
    def null_band(self) -> tuple[Values, Values] | None:
        """Ends of its band of chance; None where there is none."""
        return _both(self.null_low, self.null_high)


def _both(low: Values | None, high: Values | None) -> tuple[Values, Values] | None:
    if low is None or high is None or not np.isfinite(low).any():
        return None
    return low, high


@dataclass(frozen=True)
class Guide:
    """A line across a panel, or a shaded span, to read points against."""

    axis: Literal["x", "y"]  # that `at` lies on
    at: float
    to: float | None = None  # where a span ends; None: it is a line
    name: str = ""  # in the legend
    line: str = "-"
    hatch: str = ""


def unread(feature_layer: int, layers: int, axis: Literal["x", "y"] = "x") -> tuple[Guide, ...]:
    """Shade the vision layers past the one whose output the language model reads."""
    if feature_layer >= layers - 1:
        return ()
    name = "not read by the language model"
    return (Guide(axis, feature_layer + 0.5, layers - 0.5, name, hatch="////"),)


def beside(index: int, count: int, room: float = 0.7) -> float:
    """Return how far the series of this number stands from its place, beside `count - 1` others."""
    return (index - (count - 1) / 2) * room / count


@dataclass(frozen=True, eq=False)
class Panel:
    """One pair of axes with lines, points or bars."""

    title: str
    series: Sequence[Series]  # the first lies on top, and comes first in the legend
    x_label: str
    y_label: str
    names: Sequence[str] = ()  # places along the x axis; points are then not joined
    layers: int | None = None  # how many the x axis counts; None: it counts something else
    factor: float = 0.0  # turns y into the unit of a second axis; 0: there is none
    factor_label: str = ""
    across: bool = False  # names run down the y axis, values lie along the x axis
    x_scale: Scale = field(default_factory=Scale)  # of the axis as drawn, also if `across`
    y_scale: Scale = field(default_factory=Scale)
    guides: Sequence[Guide] = ()
    note: str = ""  # in small below the title
    text: str = ""  # in the upper left corner
    legend: bool = False  # of its own

    def numbers_on(self, axis: Literal["x", "y"]) -> Values:
        """Return every number that is shown along an axis of the page."""
        if (axis == "x") != self.across:
            held = [series.x for series in self.series]
        else:
            held = [
                end
                for one in self.series
                for end in (one.y, *(one.interval or ()), *(one.null_band or ()))
            ]
        return np.concatenate([np.zeros(0), *held])

    def kind(self, series: Series) -> str:
        """Return what a series is drawn as: a line, points or bars."""
        return series.mark or ("points" if self.names else "line")

    def band(self, series: Series) -> bool:
        """Whether a series' interval is a band: about a line, unless it says otherwise."""
        return (series.ends or ("band" if self.kind(series) == "line" else "bars")) == "band"
