"""The model's own view of both pictures: which parts it is given, in which patches."""

from collections.abc import Sequence
from typing import Final

import numpy as np
from jaxtyping import Bool, Float, UInt8
from PIL import Image, ImageDraw

from headpatch.present.chart import Chart, Picture

FILE: Final = "model_view.png"
_SIDE: Final = 480  # pixels of a drawn picture's longer side
_HIDDEN: Final = 0.2  # what is left of the light of parts that the model is not given
_ACROSS: Final = 32  # cells of a line of text, at most
Image8 = UInt8[np.ndarray, "_ _ 3"]
Boxes = Float[np.ndarray, "_ 4"]


def model_view_chart(
    images: Sequence[Image8], boxes: Boxes, region: tuple[float, ...], titles: Sequence[str]
) -> Chart | None:
    """Draw both pictures with their patches, dark where the model is given nothing.

    `boxes` are those of the image tokens, in parts of the picture; None if no place is known.
    """
    placed = boxes[np.isfinite(boxes).all(axis=1)]
    if not len(placed):
        return None
    shown = covered(placed, 64).mean()
    cut = "" if shown == 1 else f" Dark: cut away ({1 - shown:.0%} of the picture)."
    panels = [
        Picture(title, drawn(image, placed), None, region, 1.0)
        for title, image in zip(titles, images, strict=True)
    ]
    return Chart(
        "model_view",
        FILE,
        f"What the model is given: {len(placed):,} patches",
        panels,
        f"Lines: the patches, each an image token.{cut} Dashed: the region.",
        columns=len(panels),
    )


def drawn(image: Image8, boxes: Boxes) -> Image8:
    """Return a picture with the outlines of patches, dark where there is none."""
    picture = Image.fromarray(image).convert("RGB")
    scale = _SIDE / max(picture.size)
    size = max(1, round(picture.width * scale)), max(1, round(picture.height * scale))
    pixels = np.asarray(picture.resize(size)).astype(np.float64)
    seen = np.zeros(pixels.shape[:2], dtype=bool)
    corners = np.clip(boxes, 0, 1) * (size * 2)
    for left, top, right, bottom in np.round(corners).astype(int).tolist():
        seen[top:bottom, left:right] = True
    pixels[~seen] *= _HIDDEN
    outlined = Image.fromarray(pixels.astype(np.uint8))
    pen = ImageDraw.Draw(outlined, "RGBA")
    area = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    for box in corners[area <= 1.5 * np.median(area)]:  # not those of a whole beside its tiles
        pen.rectangle(box.tolist(), outline=(128, 160, 255, 110))
    return np.asarray(outlined)


def covered(boxes: Boxes, cells: int, rows: int | None = None) -> Bool[np.ndarray, "rows cells"]:
    """Return whether the middles of a grid of cells over the picture lie in a patch."""
    x = (np.arange(cells) + 0.5) / cells
    y = (np.arange(rows or cells) + 0.5) / (rows or cells)
    found = np.zeros((len(y), len(x)), dtype=bool)
    for left, top, right, bottom in boxes:
        found |= np.outer((top <= y) & (y < bottom), (left <= x) & (x < right))
    return found


def model_view_text(images: Sequence[Image8], boxes: Boxes, region: tuple[float, ...]) -> str:
    """Draw the view as text: where the pictures differ, the region, and what is cut away."""
    placed = boxes[np.isfinite(boxes).all(axis=1)]
    if not len(placed):
        return ""
    height, width = images[0].shape[:2]
    columns = min(_ACROSS, round(_ACROSS * width / max(width, height)) or 1)
    rows = max(1, round(columns * height / width))
    seen = covered(placed, columns, rows)
    inside = covered(np.array([region], np.float64), columns, rows)
    other = _differ(images, rows, columns)
    marks = np.full(seen.shape, "· ")
    marks[inside] = "o "
    marks[~seen] = "  "
    marks[other & seen], marks[other & ~seen] = "# ", "x "
    lines = "\n".join("  " + "".join(row).rstrip() for row in marks.tolist())
    lost = "" if not (other & ~seen).any() else "; x where they differ and it is cut away"
    blank = "" if seen.all() else "; blank: cut away, the model is not given it"
    return (
        f"The model's view ({len(placed):,} patches): # where the pictures differ; o the "
        f"region{lost}{blank}\n{lines}"
    )


def _differ(images: Sequence[Image8], rows: int, columns: int) -> Bool[np.ndarray, "rows columns"]:
    """Return the cells in which the two pictures are not alike; none, if their sizes differ."""
    first, second = (image.astype(np.int64) for image in images)
    found = np.zeros((rows, columns), dtype=bool)
    if first.shape != second.shape:
        return found
    y, x = np.nonzero((np.abs(first - second) > 8).any(axis=2))
    found[y * rows // first.shape[0], x * columns // first.shape[1]] = True
    return found
