"""Attention over the two pictures, small enough to lie in the page.

Attention becomes density relative to even attention over the image, on the cells between the
edges of the tokens' boxes, as in the figure ``attention_overlays.png``. The page's script draws
that of the head that is chosen: the densities of every head in both runs are written as bytes, 255
being the largest of the head's. Other maps are laid over their pictures here (`painted`).
"""

import base64
import gzip
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int, UInt8

from headpatch.present.interactive_map import OPAQUE, RAMP
from headpatch.present.overlays import densities
from headpatch.present.section import numbers

MOST = 2_400_000
"""Characters that all overlays may take; beyond, heads are kept by their importance."""
Densities = tuple[
    Float[np.ndarray, "heads y x"], Float[np.ndarray, "x_edges"], Float[np.ndarray, "y_edges"]
]


def packed(data: bytes) -> str:
    """Compress for the page; the same data gives the same text."""
    return base64.b64encode(gzip.compress(data, 9, mtime=0)).decode("ascii")


def painted(
    image: UInt8[np.ndarray, "height width 3"],
    cells: Float[np.ndarray, "y x"],
    x_edges: Float[np.ndarray, " x_edges"],
    y_edges: Float[np.ndarray, " y_edges"],
    peak: float,
) -> UInt8[np.ndarray, "height width 3"]:
    """Lay a density over a picture.

    Parameters
    ----------
    cells
        Densities between the edges, which are fractions of the picture; NaN is left clear.
    peak
        The density that is drawn with the last colour.
    """
    height, width = image.shape[:2]
    (x, across), (y, down) = _cells(x_edges, width), _cells(y_edges, height)
    level = np.clip(np.nan_to_num(cells[np.ix_(y, x)]) / (peak or 1.0), 0.0, 1.0)
    level = np.where(np.logical_and.outer(down, across), level, 0.0)
    stops = np.array([[int(one[i : i + 2], 16) for i in (1, 3, 5)] for one in RAMP])
    at = np.linspace(0, 1, len(RAMP))
    colour = np.stack([np.interp(level, at, stops[:, i]) for i in range(3)], -1)
    share = OPAQUE * level[..., None]
    return np.asarray(np.round((1 - share) * image + share * colour), dtype=np.uint8)


def _cells(
    edges: Float[np.ndarray, " edges"], pixels: int
) -> tuple[Int[np.ndarray, " pixels"], Bool[np.ndarray, " pixels"]]:
    """Return the cell that each pixel lies in, and whether it lies in one."""
    found = np.searchsorted(edges, (np.arange(pixels) + 0.5) / pixels, "right") - 1
    inside = (found >= 0) & (found < len(edges) - 1)
    return np.where(inside, found, 0), inside


def overlays(
    runs: Sequence[Mapping[str, Any]], importance: Sequence[int]
) -> tuple[dict[str, Any], str]:
    """Pack the attention of as many heads as fit.

    Parameters
    ----------
    runs
        What `rank` kept of the with-run and the without-run.
    importance
        Flat indices of all heads, those to keep first.

    Returns
    -------
    What the script needs to draw them, and the packed bytes: ``[kept heads, runs, y, x]``.

    Raises
    ------
    ValueError
        If the runs' rows do not belong together.
    """
    maps = [_densities(run) for run in runs]
    if any(not _together(one, maps[0]) for one in maps[1:]):
        raise ValueError("the two runs' image tokens do not lie in the same places")
    cells = np.stack([one[0] for one in maps], axis=1)  # heads, runs, y, x
    peaks = np.nan_to_num(cells).max(axis=(1, 2, 3))
    levels = np.nan_to_num(cells) / np.where(peaks > 0, peaks, 1.0)[:, None, None, None]
    bytes_ = np.round(255 * levels).astype(np.uint8)
    kept = list(importance)
    while len(text := packed(bytes_[kept].tobytes())) > MOST:
        kept = kept[: int(len(kept) * 0.95 * MOST / len(text))]
    found, x_edges, y_edges = maps[0]
    covered = np.isfinite(found[0])
    return {
        "heads": kept,
        "ramp": RAMP,
        "opaque": OPAQUE,
        "peaks": numbers(peaks[kept]),
        "x": numbers(x_edges),
        "y": numbers(y_edges),
        "covered": None if covered.all() else covered.astype(int).ravel().tolist(),
    }, text


def _together(one: tuple[Any, ...], other: tuple[Any, ...]) -> bool:
    """Whether the boxes of two runs lie in the same places."""
    edges = zip(one[1:], other[1:], strict=True)
    return all(np.array_equal(a, b) for a, b in edges) and np.array_equal(
        np.isfinite(one[0][0]), np.isfinite(other[0][0])
    )


def _densities(run: Mapping[str, Any]) -> Densities:
    rows = np.asarray(run["lm_rows"], dtype=np.float64)[..., np.asarray(run["image_positions"])]
    boxes = np.asarray(run["boxes"], dtype=np.float64)
    return densities(rows.reshape(-1, rows.shape[-1]), boxes)
