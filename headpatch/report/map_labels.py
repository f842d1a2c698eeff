"""Names beside the cells of a map of layers × heads."""

from typing import TYPE_CHECKING, Final

import numpy as np
from jaxtyping import Float

if TYPE_CHECKING:
    import matplotlib.axes

_SIDES: Final = ((1, 0), (-1, 0), (0, 1), (0, -1), (1, 1), (-1, 1), (1, -1), (-1, -1))
_PLACES: Final = tuple((far, *side) for far in (1.0, 2.2, 3.5) for side in _SIDES)


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
    from matplotlib.patheffects import withStroke
    from matplotlib.transforms import Bbox

    size = np.where(np.isfinite(values), np.abs(values), -1.0)
    order = np.argsort(-size, axis=None, kind="stable")[:count]
    chosen = [divmod(int(i), values.shape[1]) for i in order if size.flat[i] >= 0]
    corners = [(-0.5, len(values) - 0.5), (values.shape[1] - 0.5, -0.5)]
    panel = Bbox(axes.transData.transform(corners))
    pixel = axes.get_figure().dpi / 72  # type: ignore[union-attr]  # of a point
    half = [min(side / pixel / 2, 7.0) + 1.5 for side in _cell(axes)]

    def cell(layer: int, head: int) -> Bbox:
        x, y = axes.transData.transform((head, layer))
        dx, dy = ((reach - 2.5) * pixel for reach in half)
        return Bbox([[x - dx, y - dy], [x + dx, y + dy]])

    taken = [cell(*one) for one in chosen]
    halo = [withStroke(linewidth=1.4, foreground="white")]
    for layer, head in chosen:
        text = axes.annotate(f"{tower}{layer}.{head}", (head, layer), (0, 0), fontsize=5.5,
                             textcoords="offset points", path_effects=halo, zorder=4,
                             annotation_clip=False)  # fmt: skip
        text.set_in_layout(False)
        for far, x, y in _PLACES:
            text.set_position((x * half[0] * far, y * half[1] * far))
            text.set_horizontalalignment(("right", "center", "left")[x + 1])
            text.set_verticalalignment(("top", "center", "bottom")[y + 1])
            box = text.get_window_extent()
            inside = panel.contains(box.x0, box.y0) and panel.contains(box.x1, box.y1)
            if inside and not any(box.overlaps(other) for other in taken):
                taken.append(box)
                break
        else:
            text.remove()


def _cell(axes: "matplotlib.axes.Axes") -> tuple[float, float]:
    """Return the width and height of a map's cell, in pixels."""
    (x0, y0), (x1, y1) = axes.transData.transform([(0, 0), (1, 1)])
    return abs(x1 - x0), abs(y1 - y0)
