"""The signed square root, which makes room for small effects beside a few large ones."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float

if TYPE_CHECKING:
    import matplotlib.colors


def root(x: Any) -> Any:
    """Give the signed square root, which makes room for small effects beside a few large ones."""
    return np.sign(x) * np.sqrt(np.abs(x))


def square(x: Any) -> Any:
    """Undo `root`."""
    return np.sign(x) * np.square(x)


def digits(most: float) -> int:
    """Digits after the point that show a sixteenth of `most`."""
    return int(max(1, np.ceil(1 - np.log10(most / 16))))


def scale(
    maps: Sequence[Float[np.ndarray, "..."]],
) -> tuple["matplotlib.colors.Normalize", list[float]]:
    """Return one scale for all maps, which follows `root` and is symmetric about 0; its ticks."""
    from matplotlib.colors import FuncNorm

    finite = np.concatenate([values[np.isfinite(values)] for values in maps])
    most = float(np.abs(finite).max()) if len(finite) else 0.0
    most = most or 1.0
    norm = FuncNorm((root, square), vmin=-most, vmax=most)
    return norm, [most * share for share in (-1, -0.25, -0.0625, 0, 0.0625, 0.25, 1)]
