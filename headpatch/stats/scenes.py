"""Values of pairs as values of scenes: the unit of every interval and test over pairs.

Pairs that show one scene (share a picture, or are said to) are no independent draws. Each scene
counts once, with the mean of its pairs, so that means, intervals, degrees of freedom and resampling
are over scenes: means of clusters are independent where the values in them are not (A. Donner and
N. Klar, Design and Analysis of Cluster Randomization Trials in Health Research, 2000). Where every
pair shows a scene of its own, nothing changes.
"""

import numpy as np
from jaxtyping import Float, Int

from headpatch.stats.resampling import by_columns

Scenes = Int[np.ndarray, " pairs"]
"""Number of each pair's scene; pairs of one scene have the same."""


def by_scene(
    values: Float[np.ndarray, "pairs *rest"], scenes: Scenes | None
) -> Float[np.ndarray, "scenes *rest"]:
    """Mean of each scene's pairs, in the order in which scenes first come.

    Parameters
    ----------
    values
        Of each pair, in any unit; NaN where a pair has no figure.
    scenes
        The pairs' scenes; None: each pair is its own.

    Returns
    -------
    In float64 the mean over those pairs of a scene that have a figure; NaN where none has one. The
    values themselves, untouched, if every pair shows a scene of its own.

    Raises
    ------
    ValueError
        If there is not one scene a pair.

    Examples
    --------
    >>> by_scene(np.array([1.0, 2.0, 6.0, np.nan]), np.array([7, 3, 7, 3])).tolist()
    [3.5, 2.0]
    """
    if scenes is None:
        return values
    if len(values) != len(scenes):
        raise ValueError(f"{len(scenes)} scenes of {len(values)} pairs: one a pair is needed")
    _, first, number = np.unique(scenes, return_index=True, return_inverse=True)
    if len(first) == len(scenes):
        return values
    order = np.argsort(first[number], kind="stable")  # pairs of one scene side by side
    starts = np.flatnonzero(np.diff(first[number][order], prepend=-1))

    def means(some: Float[np.ndarray, "pairs *rest"]) -> Float[np.ndarray, "scenes *rest"]:
        ordered = some[order].astype(np.float64)
        there = ~np.isnan(ordered)
        total = np.add.reduceat(np.where(there, ordered, 0.0), starts, axis=0)
        count = np.add.reduceat(there.astype(np.float64), starts, axis=0)
        return np.divide(total, count, out=np.full_like(total, np.nan), where=count > 0)

    return by_columns(means, values)


def shared_words(pairs: int, scenes: int) -> str:
    """Say that pairs share scenes; empty if none do."""
    if scenes == pairs:
        return ""
    shown = "1 scene" if scenes == 1 else f"{scenes:,} scenes"
    return f"{pairs:,} pairs show {shown}: pairs that share pictures count as one"
