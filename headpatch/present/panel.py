"""A pair of axes as data: lines, points or bars in it, and what they are read against."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final, Literal, TypeAlias

import numpy as np
from jaxtyping import Bool, Float

from headpatch.present.canvas import BLUE, GREEN, GREY, ORANGE, VERMILLION
from headpatch.present.scales import Scale

Values: TypeAlias = Float[np.ndarray, " points"]


@dataclass(frozen=True)
class Look:
    """How a series is drawn; no two of a chart are told apart by colour alone.

    Attributes
    ----------
    color
        Hexadecimal.
    marker, line, hatch
        As matplotlib names them; empty: none.
    size
        Of markers, in points; 0: as usual.
    hollow
        Whether markers and bars are filled with white.
    """

    color: str
    marker: str = "o"
    line: str = "-"
    hatch: str = ""
    size: float = 0.0
    hollow: bool = False
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
KIND_LOOKS: Final = {
    "zero": Look(BLUE, "s"),
    "mean": Look(GREEN, "^"),
    "resample": Look(VERMILLION, "o"),
}
"""Looks of what z is changed to."""
ASKED: Final = {"noising": "necessary?", "denoising": "sufficient?"}
"""What each direction of a change asks of a head."""


@dataclass(frozen=True, eq=False)
class Series:
    """Points of a panel that belong together; what is not finite is left out.

    Attributes
    ----------
    x
        Numbers, or places among the panel's `Panel.names`.
    y
        Positive infinity is drawn as an arrow at the upper edge.
    low, high
        Ends of an interval of each point.
    null_low, null_high, null
        A band to compare each point with, what chance alone gives, and its middle.
    look
        The same number, or look, in every panel of a chart.
    mark
        Empty: a line over numbers, points at named places.
    ends
        How the interval is drawn; empty: a band about a line, else bars.
    null_name
        Of the band, which is then grey; empty: it has the series' colour, and no name.
    hollow
        Which points are drawn hollow.
    texts
        Written beside each point, away from 0.
    before
        Which of them stand towards lower numbers; None: as 0 says.
    labels
        Names of points, written where they hide no other; the first choose first; empty: none.
    hover
        What pointing at each point says; empty: its numbers.
    width
        Of bars, in places.
    """

    name: str
    x: Values
    y: Values
    low: Values | None = None
    high: Values | None = None
    null_low: Values | None = None
    null_high: Values | None = None
    look: int | Look = 0
    null: Values | None = None
    null_name: str = ""
    mark: Literal["", "line", "points", "bars"] = ""
    ends: Literal["", "bars", "band"] = ""
    hollow: Bool[np.ndarray, " points"] | None = None
    texts: Sequence[str] = ()
    before: Bool[np.ndarray, " points"] | None = None
    labels: Sequence[str] = ()
    hover: Sequence[str] = ()
    width: float = 0.8

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
    """A line across a panel, or a shaded span, to read points against.

    Attributes
    ----------
    axis
        Which axis `at` lies on.
    to
        Where a span ends; None: it is a line.
    name
        In the legend; may be empty.
    """

    axis: Literal["x", "y"]
    at: float
    to: float | None = None
    name: str = ""
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
    """One pair of axes with lines, points or bars.

    Attributes
    ----------
    series
        The first lies on top, and comes first in the legend.
    names
        Places along the x axis, where it has no numbers; points are then not joined.
    layers
        How many layers the x axis counts; None: it counts something else.
    factor
        What turns y into the unit of a second axis, called `factor_label`; 0: there is none.
    across
        Whether names run down the y axis and values lie along the x axis.
    x_scale, y_scale
        Of the axis on the page, whether or not `across`.
    note
        Stands in small below the title.
    text
        Stands in the upper left corner.
    legend
        Whether it has a legend of its own.
    """

    title: str
    series: Sequence[Series]
    x_label: str
    y_label: str
    names: Sequence[str] = ()
    layers: int | None = None
    factor: float = 0.0
    factor_label: str = ""
    across: bool = False
    x_scale: Scale = field(default_factory=Scale)
    y_scale: Scale = field(default_factory=Scale)
    guides: Sequence[Guide] = ()
    note: str = ""
    text: str = ""
    legend: bool = False

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
