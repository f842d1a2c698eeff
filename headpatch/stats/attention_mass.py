"""Where on the image a head's attention falls.

Every image token has a box ``(left, top, right, bottom)`` in fractions of the original image,
so a plain patch grid, a centre crop and a set of tiles are all read in the same way. A token
belongs to a region if and only if its *centre* lies in the region's half-open box
``[left, right) x [top, bottom)``: regions that tile the image therefore partition the tokens. A
token that stands for no place (a row separator) has a box of NaN and belongs to no region.

"Rows" are attention rows restricted to the image tokens, in the order of the boxes, with any
leading axes. They need not sum to 1, because a head also attends to text. Results are float64
whatever the rows' precision; a negative or non-finite row is a ValueError.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

import numpy as np
from jaxtyping import Bool, Float

Rows = Float[np.ndarray, "*batch tokens"]
Masses = Float[np.ndarray, "*batch"]
Mask = Bool[np.ndarray, "tokens"]
Boxes = Float[np.ndarray, "tokens 4"]
Box = tuple[float, float, float, float]
"""``(left, top, right, bottom)`` in fractions of the image, origin at the top left."""

QUADRANTS: Final[Mapping[str, Box]] = MappingProxyType(
    {
        "top-left": (0.0, 0.0, 0.5, 0.5),
        "top-right": (0.5, 0.0, 1.0, 0.5),
        "bottom-left": (0.0, 0.5, 0.5, 1.0),
        "bottom-right": (0.5, 0.5, 1.0, 1.0),
    }
)
"""The image cut in halves both ways; the order is the one of every four-quadrant table."""

_DECIMALS = 6  # centres are compared to 1e-6 of the image: float32 boxes decide as exact ones do


def region_mask(boxes: Boxes, box: Box) -> Mask:
    """Which tokens belong to a region; none may, if it is smaller than a token."""
    edges = np.asarray(box, dtype=np.float64)
    if edges.shape != (4,) or not np.isfinite(edges).all():
        raise ValueError(f"a region is four finite numbers (left, top, right, bottom), got {box!r}")
    left, top, right, bottom = np.round(edges, _DECIMALS)
    if not (left < right and top < bottom):
        raise ValueError(f"a region needs left < right and top < bottom, got {box!r}")
    corners = boxes.astype(np.float64)
    x = np.round((corners[:, 0] + corners[:, 2]) / 2, _DECIMALS)
    y = np.round((corners[:, 1] + corners[:, 3]) / 2, _DECIMALS)
    inside: Mask = (left <= x) & (x < right) & (top <= y) & (y < bottom)
    return inside


def visible_share(boxes: Boxes, box: Box) -> float:
    """How much of a region some token's box covers: 1 all of it, 0 nothing."""
    left, top, right, bottom = box
    within = boxes[np.isfinite(boxes).all(1)].clip((left, top, left, top), (right, bottom) * 2)
    columns, rows = (np.unique(np.round(within[:, side::2], _DECIMALS).ravel()) for side in (0, 1))
    seen = np.zeros((max(len(rows) - 1, 0), max(len(columns) - 1, 0)), dtype=bool)
    starts = np.searchsorted(columns, np.round(within[:, 0::2], _DECIMALS))
    ends = np.searchsorted(rows, np.round(within[:, 1::2], _DECIMALS))
    for (first, last), (upper, lower) in zip(starts, ends, strict=True):
        seen[upper:lower, first:last] = True
    covered = np.diff(rows) @ seen @ np.diff(columns)
    return min(float(covered / ((right - left) * (bottom - top))), 1.0)  # edges are rounded


def quadrant_masks(boxes: Boxes) -> Bool[np.ndarray, "4 tokens"]:
    """Which tokens belong to each quadrant, in the order of :data:`QUADRANTS`.

    A token whose centre lies in ``[0, 1) x [0, 1)`` is in exactly one; padding is in none.
    """
    return np.stack([region_mask(boxes, box) for box in QUADRANTS.values()])


def mass(rows: Rows, mask: Mask) -> Masses:
    """Raw attention mass of a region: the fraction of a head's whole attention that falls on it."""
    return np.asarray(_attention(rows)[..., mask].sum(axis=-1))


def normalized_mass(rows: Rows, mask: Mask) -> Masses:
    """Share of a head's *image* attention that falls on a region: its mass over the image's mass.

    Over regions that partition the tokens the shares of a head sum to 1. A head with no image
    attention at all (mass exactly 0) has share 0 in every region, never NaN. A head with very
    little can have a large share: read it beside `mass`.
    """
    return mass(distribution(rows), mask)


def distribution(rows: Rows) -> Rows:
    """Rows divided by their sum: each head's spatial distribution over the image tokens.

    A row whose sum is exactly 0 stays all zeros: `headpatch.stats.divergence` refuses such a row.
    """
    attention = _attention(rows)
    peak = attention.max(axis=-1, keepdims=True, initial=0.0)
    scaled = attention / np.where(peak > 0, peak, 1.0)  # so that subnormal rows divide safely
    total = scaled.sum(axis=-1, keepdims=True)
    return np.asarray(scaled / np.where(total > 0, total, 1.0))


def _attention(rows: Rows) -> Rows:
    attention = rows.astype(np.float64)
    if not np.isfinite(attention).all():
        raise ValueError("attention rows must be finite, found NaN or infinity")
    if (attention < 0).any():
        raise ValueError(f"attention rows must not be negative, found {attention.min():.3g}")
    return attention
