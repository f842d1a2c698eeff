"""Names beside points and cells of maps, where they hide no other name."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    import matplotlib.axes
    import matplotlib.transforms

_SIDES: Final = ((1, 0), (-1, 0), (0, 1), (0, -1), (1, 1), (-1, 1), (1, -1), (-1, -1))
_SMALL: Final = 5.5  # points
_RINGS: Final = (1.0, 2.2, 3.5)  # of names round a cell


def pixel(axes: "matplotlib.axes.Axes") -> float:
    """Return how many pixels a point of type is."""
    return axes.figure.dpi / 72


def write_names(
    axes: "matplotlib.axes.Axes",
    names: Sequence[tuple[str, float, float]],
    *,
    reach: tuple[float, float],
    rings: Sequence[float],
    panel: "matplotlib.transforms.BboxBase",
    taken: "Sequence[matplotlib.transforms.BboxBase]" = (),
    led: float = float("inf"),
) -> list[str]:
    """Write each name beside its place, as near as there is room.

    Parameters
    ----------
    names
        Each with x and y, in data units; the first choose first.
    reach
        How far the nearest ring of places lies from a point, across and up, in points of type.
    rings
        At which multiples of it a name may stand, the nearest first.
    panel
        In which names must lie, in pixels.
    taken
        Boxes that they must not cover, in pixels.
    led
        From this ring on a thin line leads to the name.

    Returns
    -------
    The names for which there was no room.
    """
    from matplotlib.patheffects import withStroke

    halo = [withStroke(linewidth=1.4, foreground="white")]
    places = [(ring, *side) for ring in rings for side in _SIDES]
    boxes, left_out = list(taken), []
    for name, x, y in names:
        text = axes.annotate(name, (x, y), (0, 0), textcoords="offset points", fontsize=_SMALL,
                             path_effects=halo, zorder=5, annotation_clip=False)  # fmt: skip
        text.set_in_layout(False)
        for ring, across, up in places:
            shift = across * reach[0] * ring, up * reach[1] * ring
            text.set_position(shift)
            text.set_horizontalalignment(("right", "center", "left")[across + 1])
            text.set_verticalalignment(("top", "center", "bottom")[up + 1])
            box = text.get_window_extent()
            inside = panel.contains(box.x0, box.y0) and panel.contains(box.x1, box.y1)
            if inside and not any(box.overlaps(other) for other in boxes):
                boxes.append(box)
                if ring >= led:
                    axes.annotate("", (x, y), shift, textcoords="offset points", zorder=4,
                                  annotation_clip=False, arrowprops={"arrowstyle": "-", "color":
                                  "0.45", "linewidth": 0.4, "shrinkA": 0, "shrinkB": 1.5},
                                  ).set_in_layout(False)  # fmt: skip
                break
        else:
            text.remove()
            left_out.append(name)
    return left_out


def name_cells(
    axes: "matplotlib.axes.Axes", shape: tuple[int, ...], names: Mapping[tuple[int, int], str]
) -> None:
    """Write names beside cells of a map, where they hide none of these cells.

    Parameters
    ----------
    axes
        Shows the map, and has its size already.
    shape
        Rows and columns of the map.
    names
        By (row, column); the first choose first.
    """
    from matplotlib.transforms import Bbox

    corners = [(-0.5, shape[0] - 0.5), (shape[1] - 0.5, -0.5)]
    point = pixel(axes)
    (x0, y0), (x1, y1) = axes.transData.transform([(0, 0), (1, 1)])
    half = [min(abs(side) / point / 2, 7.0) + 1.5 for side in (x1 - x0, y1 - y0)]

    def box(row: int, column: int) -> Bbox:
        x, y = axes.transData.transform((column, row))
        dx, dy = ((reach - 2.5) * point for reach in half)
        return Bbox([[x - dx, y - dy], [x + dx, y + dy]])

    write_names(
        axes,
        [(name, float(column), float(row)) for (row, column), name in names.items()],
        reach=(half[0], half[1]),
        rings=_RINGS,
        panel=Bbox(axes.transData.transform(corners)),
        taken=[box(*cell) for cell in names],
    )
