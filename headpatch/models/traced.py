"""The places of image tokens where no layout is listed: seen by changing pixels.

`headpatch.models.reach` says which pixels a token depends on; where in the picture those come from
is measured, as for every layout.
"""

from functools import partial
from typing import Any

import numpy as np
from jaxtyping import Float

from headpatch.models.measured import Placeless, View
from headpatch.models.reach import Reach, reach
from headpatch.models.seen import Patches, Seen, placeless, view_of

_OVERLAP = 1.5  # times the picture's area that tokens may cover together


def traced(seen: Seen) -> Patches:
    """Find whatever pixels a token depends on, once no patch attends to another."""
    pixels = seen.values
    if pixels.ndim < 4 or pixels.shape[-3] != 3 or seen.features is None:
        raise _untraced("its pictures come to the model as loose patches")
    side = seen.patch
    found = reach(pixels, seen.features, side)
    _refuse_mixed(found)
    boxes = placeless(seen.tokens)
    for index, own in enumerate(found.views.T):
        one = partial(view_of, index=index)
        if not own.any() or seen.measured.blank(one):
            continue
        view = seen.view(one)
        stripes = zip(found.rows[own], found.columns[own], strict=True)
        boxes[own] = [_box(view, rows, columns, side) for rows, columns in stripes]
    return seen.fitted(Patches(boxes, _grid_of(boxes)))


def _refuse_mixed(found: Reach) -> None:
    """Refuse tokens that do not share the picture out among them."""
    rows, columns = found.rows.sum(1), found.columns.sum(1)
    area = found.views.shape[1] * found.rows.shape[1] * found.columns.shape[1]
    if found.views.sum(1).max(initial=0) > 1 or (rows * columns).sum() > _OVERLAP * area:
        size = f"{rows.max()} by {columns.max()} patches"
        raise _untraced(f"its image tokens mix parts of the picture ({size} each), and overlap")


def _box(view: View, rows: Any, columns: Any, side: int) -> list[float]:
    """Return the box around the stripes that a token depends on."""
    (top, bottom), (left, right) = (
        np.sort(line.at(np.flatnonzero(part)[[0, -1]] * float(side) + [0, side]))
        for line, part in ((view.down, rows), (view.across, columns))
    )
    return [left, top, right, bottom]


def _grid_of(boxes: Float[np.ndarray, "tokens 4"]) -> tuple[int, int]:
    """(rows, columns) of the smallest cells, where they make one grid; else (0, 0).

    Row by row, too, where the picture is shown once: what replaces patches counts on it.
    """
    placed = boxes[~np.isnan(boxes[:, 0])]
    widths = placed[:, 2] - placed[:, 0]
    finest = placed[widths < 1.01 * widths.min(initial=1)][:, :2].round(6)
    down, across = (np.unique(finest[:, at]) for at in (1, 0))
    row_by_row = np.stack(np.meshgrid(across, down), -1).reshape(-1, 2)
    in_order = finest if len(finest) == len(placed) else finest[np.lexsort(finest.T)]
    return (len(down), len(across)) if np.array_equal(row_by_row, in_order) else (0, 0)


def _untraced(what: str) -> Placeless:
    return Placeless(
        "--model",
        what,
        "image tokens that each stand for a part of the picture",
        "Named heads can be changed (ablate --heads 24.17).",
    )
