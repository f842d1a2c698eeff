"""Names beside points, where they hide no other name."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    import matplotlib.axes
    import matplotlib.transforms

_SIDES: Final = ((1, 0), (-1, 0), (0, 1), (0, -1), (1, 1), (-1, 1), (1, -1), (-1, -1))
_SMALL: Final = 5.5  # points


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
