"""Where each patch comes from, against pictures of their own coordinates.

A picture whose red is x and whose green is y goes through the real image processor: what a patch
then holds says where in the original it comes from.
"""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from transformers import CLIPImageProcessorPil

from headpatch.errors import InputError
from headpatch.models.patches import patch_boxes

PATCH = 14
SQUARE = {"height": 56, "width": 56}
PROCESSORS = {
    "clip": {"size": {"shortest_edge": 56}, "crop_size": SQUARE},
    "clip with a margin": {"size": {"shortest_edge": 70}, "crop_size": SQUARE},
    "oblong crop": {"size": {"shortest_edge": 56}, "crop_size": {"height": 28, "width": 56}},
    "squashed, no crop": {"size": SQUARE, "do_center_crop": False},
    "squashed oblong": {"size": {"height": 42, "width": 70}, "do_center_crop": False},
    "resized, no crop": {"size": {"shortest_edge": 56}, "do_center_crop": False},
}
SIZES = [(56, 56), (336, 336), (100, 56), (56, 100), (97, 131), (300, 200), (640, 480)]


def processor(options: dict) -> CLIPImageProcessorPil:
    return CLIPImageProcessorPil(image_mean=[0.0] * 3, image_std=[1.0] * 3, **options)


def coordinates(size: tuple[int, int]) -> Image.Image:
    """Red = x, green = y, both from 0 at the left or top edge to 255 at the other."""
    x, y = np.meshgrid(*((np.arange(count) + 0.5) / count for count in size))
    return Image.fromarray((np.stack([x, y, 0 * x], -1) * 255).round().astype(np.uint8))


def centres_seen(options: dict, size: tuple[int, int]) -> tuple[np.ndarray, tuple[int, int]]:
    """Mean (x, y) of each patch, row by row, as fractions of the original picture."""
    pixels = processor(options)(coordinates(size), return_tensors="np")["pixel_values"][0][:2]
    rows, columns = pixels.shape[1] // PATCH, pixels.shape[2] // PATCH
    tiles = pixels[:, : rows * PATCH, : columns * PATCH]
    tiles = tiles.reshape(2, rows, PATCH, columns, PATCH).mean((2, 4))
    return tiles.reshape(2, -1).T, (rows, columns)


@pytest.mark.parametrize("options", PROCESSORS.values(), ids=PROCESSORS)
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_boxes_are_where_the_patches_come_from(options: dict, size: tuple[int, int]) -> None:
    patches = patch_boxes(processor(options), size, PATCH)
    seen, grid = centres_seen(options, size)
    assert patches.grid == grid
    left, top, right, bottom = patches.boxes.T
    centres = np.stack([(left + right) / 2, (top + bottom) / 2], -1)
    # A tenth of a patch: the processor rounds to pixels, and colours to 1/255.
    tolerance = 0.1 * np.stack([right - left, bottom - top], -1).min(0) + 1 / 255
    assert (abs(centres - seen) < tolerance).all()


@given(st.integers(56, 900), st.integers(56, 900), st.sampled_from(sorted(PROCESSORS)))
@settings(max_examples=40)
def test_patches_tile_what_the_processor_keeps(width: int, height: int, name: str) -> None:
    patches = patch_boxes(processor(PROCESSORS[name]), (width, height), PATCH)
    rows, columns = patches.grid
    boxes = patches.boxes.reshape(rows, columns, 4)
    left, top, right, bottom = np.moveaxis(boxes, -1, 0)
    np.testing.assert_allclose(right[:, :-1], left[:, 1:])
    np.testing.assert_allclose(bottom[:-1], top[1:])
    assert (left < right).all()
    assert (top < bottom).all()
    assert (boxes > -1e-9).all()
    assert (boxes < 1 + 1e-9).all()
    if name == "clip":  # the crop is centred, to a pixel
        np.testing.assert_allclose(left[:, 0], 1 - right[:, -1], atol=1 / 56)
        np.testing.assert_allclose(top[0], 1 - bottom[-1], atol=1 / 56)


def test_a_square_picture_is_covered_whole() -> None:
    for size in ((56, 56), (500, 500)):
        patches = patch_boxes(processor(PROCESSORS["clip"]), size, PATCH)
        assert patches.boxes[0] == pytest.approx([0, 0, 0.25, 0.25])
        assert patches.boxes[3] == pytest.approx([0.75, 0, 1, 0.25])
        assert patches.boxes[15] == pytest.approx([0.75, 0.75, 1, 1])


def test_an_unknown_kind_of_size_is_refused() -> None:
    odd = processor({"size": {"longest_edge": 56}, "do_center_crop": False})
    with pytest.raises(InputError, match="longest_edge") as caught:
        patch_boxes(odd, (56, 56), PATCH)
    assert "\n" not in str(caught.value)
