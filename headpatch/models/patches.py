"""Where in the picture each image token comes from.

Two things are told apart. Which pixels of what the model is shown stand behind which token is one
function a layout, named in the family's row. Where in the picture those pixels come from is the
processor's doing, and is measured (`headpatch.models.measured`).
"""

from collections.abc import Callable, Mapping
from functools import partial
from math import isqrt, prod, sqrt
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
from jaxtyping import Float
from torch import Tensor
from transformers.image_processing_utils import select_best_resolution

from headpatch.errors import InputError
from headpatch.models.measured import Arrange, Axis, Placeless, cells
from headpatch.models.seen import Patches, Seen, placeless, view_of
from headpatch.models.traced import traced

__all__ = ["LAYOUTS", "Patches", "Seen", "locate"]
_KEPT = 64  # picture sizes a processor


_known: WeakKeyDictionary[Any, dict[object, tuple[Any, Patches]]] = WeakKeyDictionary()


def locate(layout: str, seen: Seen, processor: object) -> Patches:
    """Find the place of every image token; NaN where a token stands for no place.

    None has one, and `unknown` says why, if the processor does not show the picture in a way that
    the layout knows. What was found is kept for the next picture of the same size. `processor` is
    the whole one, that `seen.processor` belongs to.
    """
    known = _known.setdefault(processor, {})
    shape = tuple(seen.values.shape)
    settings = layout, id(seen.config), repr(vars(seen.processor))
    key = settings, seen.image.size, shape, seen.tokens
    if key not in known:
        if len(known) >= _KEPT:
            known.clear()
        known[key] = seen.config, _found(layout, seen)  # the config lives, so its id stays its own
    return known[key][1]


def _found(layout: str, seen: Seen) -> Patches:
    try:
        return LAYOUTS[layout](seen)
    except Placeless as error:
        return Patches(placeless(seen.tokens), (0, 0), error.again())


def _joined(pixels: Tensor, rows: int, columns: int, first: int = 0) -> Tensor:
    """Put tiles, row by row from the `first`, together to the picture that they were cut from."""
    tiles = pixels.flatten(0, -4)[first : first + rows * columns].unflatten(0, (rows, columns))
    canvas: Tensor = tiles.permute(2, 0, 3, 1, 4).flatten(1, 2).flatten(2)
    return canvas


def _crop(seen: Seen) -> Patches:
    """One view of the picture, resized, cropped or padded; perhaps after a class token."""
    seen.shown(1, "crops beside the whole, as Gemma3's pan and scan, have no places here")
    (height, width), side = seen.pixels, seen.patch
    extra = seen.tokens - (height // side) * (width // side)
    if extra < 0:  # several patches may be pooled to a token
        side *= seen.merged((height // side) * (width // side))
    rows, columns = height // side, width // side
    seen.need(rows * columns + (extra == 1))
    boxes = tiles_of(seen, 0, 1, 1, side)
    class_token = placeless(1 if extra == 1 else 0)
    return seen.fitted(Patches(np.concatenate([class_token, boxes]), (rows, columns)))


def _whole(
    seen: Seen, rows: int, columns: int, arrange: Arrange, patch: int | None = None
) -> Patches:
    """The whole picture in its own shape, in as many patches as its size asks for."""
    merge = seen.merged(rows * columns)
    rows, columns, side = rows // merge, columns // merge, (patch or seen.patch) * merge
    seen.need(rows * columns)
    view = seen.view(arrange)
    boxes = view.cells(np.arange(rows) * side, np.arange(columns) * side, side)
    return seen.fitted(Patches(boxes, (rows, columns)))


def _qwen(seen: Seen) -> Patches:
    return _whole(seen, *qwen_view(seen))


def qwen_view(seen: Seen) -> tuple[int, int, Arrange]:
    """Return rows and columns of patches, and what puts them in their places."""
    return *_loose(seen), _in_blocks(seen, block_of(seen))


def block_of(seen: Seen) -> int:
    """Return the side of the blocks in which loose patches come: those that are merged, mostly.

    HunYuan-VL's and Muse's processors give them row by row, which is then what shows a picture.
    """
    try:
        seen.view(_in_blocks(seen, seen.merge))
    except Placeless:
        try:
            seen.view(_in_blocks(seen, 1))
        except Placeless:
            return seen.merge  # whose own reason is told
        return 1
    return seen.merge


def _loose(seen: Seen) -> tuple[int, int]:
    """(rows, columns) of loose patches."""
    _, rows, columns = (int(count) for count in seen.inputs["image_grid_thw"][0])
    return rows, columns


def _in_blocks(seen: Seen, block: int) -> Arrange:
    rows, columns = _loose(seen)
    return partial(_unrolled, rows=rows, columns=columns, merge=block, patch=seen.patch)


def _in_lines(seen: Seen) -> bool:
    """Whether tokens come in lines with an end, between a first and a last one: HunYuan-VL's."""
    rows, columns = (count // seen.merge for count in _loose(seen))
    return seen.tokens == rows * (columns + 1) + 2


def _lines(seen: Seen) -> Patches:
    """Loose patches row by row, merged to lines of tokens; line ends and both ends of all: none."""
    rows, columns, arranged = qwen_view(seen)
    rows, columns, side = rows // seen.merge, columns // seen.merge, seen.patch * seen.merge
    tops, lefts = np.arange(rows) * side, np.arange(columns) * side
    lines = seen.view(arranged).cells(tops, lefts, side).reshape(rows, columns, 4)
    ended = np.concatenate([lines, placeless(rows, 1)], 1).reshape(-1, 4)
    boxes = np.concatenate([placeless(1), ended, placeless(1)])
    return seen.fitted(Patches(boxes, (rows, columns)))


def _unrolled(pixels: Tensor, rows: int, columns: int, merge: int, patch: int) -> Tensor:
    """Undo Qwen's order: merged patches one after another, each of equal frames."""
    blocks = pixels.reshape(
        rows // merge, columns // merge, merge, merge, 3, -1, patch, patch
    )[..., 0, :, :]  # fmt: skip
    return blocks.permute(4, 0, 2, 5, 1, 3, 6).reshape(3, rows * patch, columns * patch)


def _pixtral(seen: Seen) -> Patches:
    """What ends the lines of a Pixtral tower are no image tokens."""
    return _whole(seen, *pixtral_view(seen))


def pixtral_view(seen: Seen) -> tuple[int, int, Arrange]:
    """Return rows and columns of patches, and what cuts off the padding beside them."""
    height, width = (int(side) for side in seen.inputs["image_sizes"][0])
    rows, columns = height // seen.patch, width // seen.patch
    return rows, columns, lambda pixels: view_of(pixels, 0)[:, :height, :width]


def told_grid(seen: Seen) -> tuple[int, int]:
    """(rows, columns) of tiles, as Idefics3's and SmolVLM's processor tells them; 0 if none."""
    again = seen.processor(seen.image, return_row_col_info=True)
    return int(again["rows"][0][0]), int(again["cols"][0][0])


def internvl_grid(seen: Seen) -> tuple[int, int]:
    """(rows, columns) of tiles that InternVL's processor shows; 0 if none."""
    return (0, 0) if len(seen.values) == 1 else _nearest_grid(seen)


def _nearest_grid(seen: Seen) -> tuple[int, int]:
    """(rows, columns), as InternVL's processor chooses them."""
    width, height = seen.image.size
    tile = seen.processor.size["height"] * seen.processor.size["width"]
    least, most = int(seen.processor.min_patches), int(seen.processor.max_patches)
    grids = [
        (rows, columns)
        for columns in range(1, most + 1)
        for rows in range(1, most + 1)
        if least <= columns * rows <= most
    ]
    best, off = (1, 1), float("inf")
    for rows, columns in sorted(grids, key=prod):
        by = abs(width / height - columns / rows)
        if by < off or (by == off and width * height > 0.5 * tile * rows * columns):
            best, off = (rows, columns), by
    return best


def _tiles(seen: Seen, rows: int, columns: int) -> Patches:
    """Tiles of the picture row by row, then the whole picture; or that alone, without any rows."""
    seen.shown(rows * columns + 1, f"{rows} rows of {columns} tiles, and the whole")
    height, width = seen.pixels
    merge = seen.merged((rows * columns + 1) * (height // seen.patch) * (width // seen.patch))
    side = seen.patch * merge
    down, across = height // side, width // side
    seen.need((rows * columns + 1) * down * across)
    boxes = [tiles_of(seen, *one, side) for one in tiles_then_whole(rows, columns)]
    grid = (max(rows, 1) * down, max(columns, 1) * across)
    return seen.fitted(Patches(np.concatenate(boxes), grid))


def tiles_then_whole(rows: int, columns: int) -> list[tuple[int, int, int]]:
    """Return what is cut from one picture each: its first tile, rows and columns of tiles."""
    tiles = [(0, rows, columns)] if rows else []
    return [*tiles, (rows * columns, 1, 1)]


def tiles_of(
    seen: Seen, first: int, rows: int, columns: int, side: int
) -> Float[np.ndarray, "cells 4"]:
    """Return boxes of square cells, tile by tile, of tiles that were cut from one picture."""
    height, width = seen.pixels
    down, across = (np.arange(pixels // side) * side for pixels in (height, width))
    view = seen.view(partial(_joined, rows=rows, columns=columns, first=first))
    boxes = [
        view.cells(row * height + down, column * width + across, side)
        for row in range(rows)
        for column in range(columns)
    ]
    return np.concatenate(boxes)


def _anyres(seen: Seen) -> Patches:
    """The whole picture squashed to one tile, then the picture in the best-fitting set of tiles."""
    # LLaVA-NeXT's and LLaVA-OneVision's. The tiles make one grid, row by row: rows and columns that
    # hold padding alone are dropped, a grid that is too large is shrunk (LLaVA-OneVision), and a
    # token that ends the line follows each row.
    side = seen.pixels[0] // seen.patch
    squashed = tiles_of(seen, 0, 1, 1, seen.patch)
    down, across = _unpadded(seen, *_canvas(seen))
    down, across = _shrunk(seen, down, across, side)
    rows, columns = len(down), len(across)
    grid = cells(down, across).reshape(rows, columns, 4)
    lines = np.concatenate([grid, placeless(rows, 1)], 1).reshape(-1, 4)
    return seen.fitted(Patches(np.concatenate([squashed, lines]), (rows, columns)))


def _canvas(seen: Seen) -> list[Axis]:
    """Rows and columns of all tiles, which are cut from one canvas with the picture in it."""
    # A tile whose side is no multiple of the patch has a margin at its end that no patch sees.
    tile, (rows, columns) = seen.pixels[0], best_fitting(seen)
    seen.shown(rows * columns + 1, f"the whole, and {rows} rows of {columns} tiles")
    view = seen.view(partial(_joined, rows=rows, columns=columns, first=1))
    starts = np.arange(tile // seen.patch) * seen.patch
    return [
        line.axis((np.arange(tiles)[:, None] * tile + starts).ravel(), seen.patch)
        for line, tiles in ((view.down, rows), (view.across, columns))
    ]


def best_fitting(seen: Seen) -> tuple[int, int]:
    """Return how many rows and columns of tiles LLaVA-NeXT's processor chooses."""
    (width, height), tile = seen.image.size, seen.pixels[0]
    canvas = select_best_resolution((height, width), seen.config.image_grid_pinpoints)
    rows, columns = (int(whole) // tile for whole in canvas)
    return rows, columns


def _unpadded(seen: Seen, down: Axis, across: Axis) -> list[Axis]:
    """Drop the rows or columns that the model drops as padding (its `unpad_image`)."""
    width, height = seen.image.size
    rows, columns = len(down), len(across)
    if width / height > columns / rows:
        padding = (rows - int(round(height * (columns / width), 7))) // 2
        return [down[padding : rows - padding], across]
    padding = (columns - int(round(width * (rows / height), 7))) // 2
    return [down, across[padding : columns - padding]]


def _shrunk(seen: Seen, down: Axis, across: Axis, side: int) -> list[Axis]:
    """Shrink a grid of more tokens than ``anyres_max_N`` allows, by interpolation."""
    limit = str(getattr(seen.config, "vision_aspect_ratio", ""))
    if not limit.startswith("anyres_max_"):
        return [down, across]
    most = int(limit.removeprefix("anyres_max_")) * side**2
    ratio = sqrt(len(down) * len(across) / most)
    return [_fewer(row, int(len(row) // ratio)) if ratio > 1.1 else row for row in (down, across)]


def _fewer(before: Axis, count: int) -> Axis:
    """Share the cells of one side out among fewer."""
    cuts = np.linspace(0, len(before), count + 1)
    starts = np.interp(cuts[:-1], np.arange(len(before)), before[:, 0])
    ends = np.interp(cuts[1:], np.arange(len(before)) + 1, before[:, 1])
    return np.stack([starts, ends], -1)


def _positioned(seen: Seen) -> Patches:
    """Gemma 4's: loose patches row by row, each with its column and row; padding has -1."""
    columns, rows = (int(last) + 1 for last in seen.inputs["image_position_ids"][0].amax(0))
    side = isqrt(seen.values.shape[-1] // 3)  # Gemma 4 unified has them merged already

    def arranged(pixels: Tensor) -> Tensor:
        patches = pixels.flatten(0, -2)[: rows * columns].reshape(rows, columns, side, side, 3)
        return patches.permute(4, 0, 2, 1, 3).reshape(3, rows * side, columns * side)

    return _whole(seen, rows, columns, arranged, side)


def _strip(seen: Seen) -> Patches:
    """MiniCPM-V's: patches row by row in one strip, of a picture that is not cut into slices."""
    sizes = seen.inputs["target_sizes"]
    if len(sizes) != 1:
        hint = "Named heads can be changed (ablate --heads 24.17)."
        raise Placeless("--model", f"a picture cut into {len(sizes)} slices", "one slice", hint)
    rows, columns = (int(count) for count in sizes[0])

    def arranged(pixels: Tensor) -> Tensor:
        patches = pixels[0].unflatten(-1, (rows, columns, seen.patch))
        whole: Tensor = patches.permute(0, 2, 1, 3, 4).flatten(1, 2).flatten(2)
        return whole

    return _whole(seen, rows, columns, arranged)


def _traced(seen: Seen) -> Patches:
    """What is seen of a model that no table lists; loose patches say by a name how they lie."""
    if "image_position_ids" in seen.inputs:
        return _positioned(seen)
    if "target_sizes" in seen.inputs:
        return _strip(seen)
    if "image_grid_thw" in seen.inputs:
        return _lines(seen) if _in_lines(seen) else _qwen(seen)
    return traced(seen)


def _nowhere(seen: Seen) -> Patches:
    why = InputError(
        "--model",
        "it looks at the image by cross-attention, without image tokens",
        "a model whose image is among the prompt's tokens",
        "Named heads can be changed (ablate --heads 24.17).",
    )
    return Patches(placeless(seen.tokens), (0, 0), why)


LAYOUTS: Mapping[str, Callable[[Seen], Patches]] = {
    "crop": _crop,
    "anyres": _anyres,
    "idefics": lambda seen: _tiles(seen, *told_grid(seen)),
    "internvl": lambda seen: _tiles(seen, *internvl_grid(seen)),
    "qwen": _qwen,
    "pixtral": _pixtral,
    "traced": _traced,
    "none": _nowhere,
}
"""By name: what finds the place of every image token."""
