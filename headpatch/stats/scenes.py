"""Pairs that share pictures are one observation: their scene is the unit of all statistics."""

import numpy as np
from jaxtyping import Float, Int


def by_scene(
    values: Float[np.ndarray, "pairs *rest"], scenes: Int[np.ndarray, " pairs"] | None
) -> Float[np.ndarray, "scenes *rest"]:
    """Return the mean of each scene's pairs, in the order of the scenes' first pairs."""
    if scenes is None:
        return values
    first = dict.fromkeys(scenes.tolist())
    return np.stack([values[scenes == scene].mean(0) for scene in first])
