"""Names beside the cells of a map of layers × heads."""

from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float

from headpatch.present.chart import largest_cells
from headpatch.present.labels import name_cells

if TYPE_CHECKING:
    import matplotlib.axes


def name_largest(
    axes: "matplotlib.axes.Axes",
    values: Float[np.ndarray, "layers heads"],
    count: int,
    tower: str = "",
) -> None:
    """Write the heads of the `count` largest values beside their cells."""
    names = {cell: f"{tower}{cell[0]}.{cell[1]}" for cell in largest_cells(values, count)}
    name_cells(axes, values.shape, names)
