"""Names beside the cells of a map of layers × heads."""

from typing import TYPE_CHECKING, Final

import numpy as np
from jaxtyping import Float

from headpatch.present.labels import pixel, write_names

if TYPE_CHECKING:
    import matplotlib.axes

_RINGS: Final = (1.0, 2.2, 3.5)


def name_largest(
    axes: "matplotlib.axes.Axes",
    values: Float[np.ndarray, "layers heads"],
    count: int,
    tower: str = "",
) -> None:
    """Write the heads of the largest values beside their cells, where they hide no other of them.

    Parameters
    ----------
    axes
        Shows the map, and has its size already.
    values
        Those that are not a number are not named.
    count
        At most so many are named.
    tower
        Stands before each name.
    """
    from matplotlib.transforms import Bbox

    size = np.where(np.isfinite(values), np.abs(values), -1.0)
    order = np.argsort(-size, axis=None, kind="stable")[:count]
    chosen = [divmod(int(i), values.shape[1]) for i in order if size.flat[i] >= 0]
    corners = [(-0.5, len(values) - 0.5), (values.shape[1] - 0.5, -0.5)]
    panel = Bbox(axes.transData.transform(corners))
    point = pixel(axes)
    half = [min(side / point / 2, 7.0) + 1.5 for side in _cell(axes)]

    def cell(layer: int, head: int) -> Bbox:
        x, y = axes.transData.transform((head, layer))
        dx, dy = ((reach - 2.5) * point for reach in half)
        return Bbox([[x - dx, y - dy], [x + dx, y + dy]])

    write_names(
        axes,
        [(f"{tower}{layer}.{head}", float(head), float(layer)) for layer, head in chosen],
        reach=(half[0], half[1]),
        rings=_RINGS,
        panel=panel,
        taken=[cell(*one) for one in chosen],
    )


def _cell(axes: "matplotlib.axes.Axes") -> tuple[float, float]:
    """Return the width and height of a map's cell, in pixels."""
    (x0, y0), (x1, y1) = axes.transData.transform([(0, 0), (1, 1)])
    return abs(x1 - x0), abs(y1 - y0)
