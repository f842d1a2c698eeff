r"""A picture without its object, made of the picture itself: what a box holds is replaced.

Four ways, named by `CORRUPTIONS`. Pixels outside of the box never change, byte for byte; a pixel is
inside if its centre is.

- ``gaussian``: noise, each channel with the mean and standard deviation of the pixels outside.
- ``blur``: the picture blurred by a Gaussian with σ = a quarter of the box's shorter side. A smear
  of the object's colours stays.
- ``mean``: the mean colour of the pixels outside.
- ``inpaint``: the surroundings grown inwards: the harmonic function that has their values around
  the box, :math:`Δu = 0`, as smooth as can be and without texture; across the picture's own edge it
  goes on level. (Diffusion as in M. Bertalmio, G. Sapiro, V. Caselles and C. Ballester, Image
  Inpainting, SIGGRAPH 2000, less its transport along edges.)

None of them is a picture without the object as a camera would have seen it: an effect that all four
show hangs less on how the object was taken away.
"""

import hashlib
from collections.abc import Callable, Mapping
from typing import Final, TypeAlias

import numpy as np
from jaxtyping import Float, UInt8
from PIL import Image
from scipy.linalg import eigh_tridiagonal
from scipy.ndimage import gaussian_filter

from headpatch.errors import InputError
from headpatch.pairs.region import Region

Pixels: TypeAlias = Float[np.ndarray, "height width 3"]
Inside: TypeAlias = Float[np.ndarray, "rows columns 3"]
Box: TypeAlias = tuple[slice, slice]
"""Rows and columns of pixels."""


def box_of(region: Region, width: int, height: int, argument: str = "--region") -> Box:
    """Return the pixels of a region; an `InputError` if there are none, or no others."""
    spans = []
    for low, high, count in (
        (region.top, region.bottom, height),
        (region.left, region.right, width),
    ):
        centres = (np.arange(count) + 0.5) / count
        inside = np.flatnonzero((centres >= low) & (centres < high))
        if not len(inside):
            found = f"{region.name} holds no pixel of {width}x{height}"
            raise InputError(argument, found, "a box around at least one pixel")
        spans.append(slice(int(inside[0]), int(inside[-1]) + 1))
    rows, columns = spans
    if rows == slice(0, height) and columns == slice(0, width):
        found = f"{region.name} is the whole picture"
        raise InputError(argument, found, "a box around the object, with something around it")
    return rows, columns


def corrupted(
    image: Image.Image, region: Region, how: str, seed: int = 0, argument: str = "--region"
) -> Image.Image:
    """Return an RGB picture with a region replaced in one of the `CORRUPTIONS`.

    The same picture, region, way and seed give the same pixels.
    """
    rgb = image.convert("RGB")
    pixels: UInt8[np.ndarray, "height width 3"] = np.array(rgb)
    box = box_of(region, rgb.width, rgb.height, argument)
    own = hashlib.sha256(pixels.tobytes() + repr(box).encode()).digest()[:8]
    rng = np.random.default_rng([seed % 2**64, int.from_bytes(own, "little")])
    inside = CORRUPTIONS[how](pixels.astype(np.float64), box, rng)
    pixels[box] = np.clip(np.rint(inside), 0, 255).astype(np.uint8)
    return Image.fromarray(pixels)


def _outside(pixels: Pixels, box: Box) -> Float[np.ndarray, "pixels 3"]:
    kept = np.ones(pixels.shape[:2], dtype=bool)
    kept[box] = False
    return pixels[kept]


def _gaussian(pixels: Pixels, box: Box, rng: np.random.Generator) -> Inside:
    around = _outside(pixels, box)
    return rng.normal(around.mean(0), around.std(0), pixels[box].shape)


def _blur(pixels: Pixels, box: Box, _: np.random.Generator) -> Inside:
    sigma = min(pixels[box].shape[:2]) / 4
    return np.asarray(gaussian_filter(pixels, (sigma, sigma, 0), mode="nearest")[box])


def _mean(pixels: Pixels, box: Box, _: np.random.Generator) -> Inside:
    return np.broadcast_to(_outside(pixels, box).mean(0), pixels[box].shape)


def _inpaint(pixels: Pixels, box: Box, _: np.random.Generator) -> Inside:
    """Solve Laplace's equation on the grid of pixels, whose operator is one of rows and columns."""
    (rows, columns), around = box, np.zeros(pixels[box].shape)
    ends = (
        (rows.start > 0, rows.stop < pixels.shape[0]),
        (columns.start > 0, columns.stop < pixels.shape[1]),
    )
    if ends[0][0]:
        around[0] += pixels[rows.start - 1, columns]
    if ends[0][1]:
        around[-1] += pixels[rows.stop, columns]
    if ends[1][0]:
        around[:, 0] += pixels[rows, columns.start - 1]
    if ends[1][1]:
        around[:, -1] += pixels[rows, columns.stop]
    down, by_row = _second_difference(rows.stop - rows.start, *ends[0])
    across, by_column = _second_difference(columns.stop - columns.start, *ends[1])
    waves = np.einsum("yi,yxc,xj->ijc", by_row, around, by_column, optimize=True)
    waves /= -(down[:, None] + across)[..., None]
    return np.asarray(np.einsum("yi,ijc,xj->yxc", by_row, waves, by_column, optimize=True))


def _second_difference(
    count: int, before: bool, after: bool
) -> tuple[Float[np.ndarray, " waves"], Float[np.ndarray, "places waves"]]:
    """Return the eigenvalues and vectors of x[i−1] − 2 x[i] + x[i+1] on a line of pixels.

    `before` and `after`: whether something known lies beyond each end; else the line ends level.
    """
    middle = np.full(count, -2.0)
    middle[0] += not before
    middle[-1] += not after
    if count == 1:
        return middle, np.ones((1, 1))
    values, vectors = eigh_tridiagonal(middle, np.ones(count - 1))
    return values, vectors


CORRUPTIONS: Final[Mapping[str, Callable[[Pixels, Box, np.random.Generator], Inside]]] = {
    "gaussian": _gaussian,
    "blur": _blur,
    "mean": _mean,
    "inpaint": _inpaint,
}
"""By name: what stands in a box of a picture, of its pixels and a source of noise."""
