"""Attention over the two pictures, small enough to lie in the page.

Attention becomes density as in the figure ``attention_overlays.png``
(`headpatch.present.overlays`). The page's script draws that of the head that is chosen: the
densities of every head in both runs are written as bytes, 255 being the largest of the head's.
"""

import base64
import gzip
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float

from headpatch.present.interactive_map import OPAQUE, RAMP
from headpatch.present.overlays import densities
from headpatch.present.section import numbers

MOST = 2_400_000  # characters of all overlays; beyond, heads are kept by their importance
Densities = tuple[
    Float[np.ndarray, "heads y x"], Float[np.ndarray, "x_edges"], Float[np.ndarray, "y_edges"]
]


def packed(data: bytes) -> str:
    """Compress for the page; the same data gives the same text."""
    return base64.b64encode(gzip.compress(data, 9, mtime=0)).decode("ascii")


def overlays(
    runs: Sequence[Mapping[str, Any]], importance: Sequence[int]
) -> tuple[dict[str, Any], str]:
    """Pack the attention of as many heads as fit: what `rank` kept of the with- and without-run.

    `importance` are flat indices of all heads, those to keep first. Returns what the script needs
    to draw them, and the packed bytes: ``[kept heads, runs, y, x]``.
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
