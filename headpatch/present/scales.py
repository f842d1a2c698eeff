"""How numbers lie along an axis, and which of them are written beside it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from jaxtyping import Float

from headpatch.present.canvas import signed

Values = Float[np.ndarray, "..."]

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
