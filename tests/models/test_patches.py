"""Where a view of the picture looks, measured through real image processors and odd ones.

The oracle: a picture whose red is x and whose green is y goes through the processor, and what a
patch then holds says where in the original it comes from.
"""

import io
import itertools
from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageChops, ImageEnhance, ImageFilter, ImageOps
from transformers import CLIPImageProcessorPil, LlavaImageProcessorPil

from headpatch.errors import InputError
from headpatch.models.measured import Measured, View
from tests.refusals import refusal

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
UPRIGHT = "an upright rectangle of the picture"
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


def look(process: Callable, size: tuple[int, int]) -> View:
    """Measure the one view of a processor."""
    shape = tuple(process(Image.new("RGB", size)).shape)
    return Measured(process, size).view(lambda pixels: pixels[0], shape)


def patches(options: dict, size: tuple[int, int]) -> tuple[np.ndarray, tuple[int, int]]:
    process = pixels_of(processor(options))
    height, width = process(Image.new("RGB", size)).shape[2:]
    rows, columns = height // PATCH, width // PATCH
    starts = np.arange(rows) * PATCH, np.arange(columns) * PATCH
    return look(process, size).cells(*starts, PATCH), (rows, columns)


def pixels_of(images: Callable) -> Callable[[Image.Image], torch.Tensor]:
    return lambda picture: images(picture, return_tensors="pt")["pixel_values"]


@pytest.mark.parametrize("options", PROCESSORS.values(), ids=PROCESSORS)
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_boxes_are_where_the_patches_come_from(options: dict, size: tuple[int, int]) -> None:
    boxes, found = patches(options, size)
    seen, grid = centres_seen(options, size)
    assert found == grid
    left, top, right, bottom = boxes.T
    centres = np.stack([(left + right) / 2, (top + bottom) / 2], -1)
    # A tenth of a patch: the processor rounds to pixels, and colours to 1/255.
    tolerance = 0.1 * np.stack([right - left, bottom - top], -1).min(0) + 1 / 255
    assert (abs(centres - seen) < tolerance).all()


@given(st.integers(56, 900), st.integers(56, 900), st.sampled_from(sorted(PROCESSORS)))
@settings(max_examples=20)
def test_patches_tile_what_the_processor_keeps(width: int, height: int, name: str) -> None:
    boxes, (rows, columns) = patches(PROCESSORS[name], (width, height))
    boxes = boxes.reshape(rows, columns, 4)
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
        boxes, _ = patches(PROCESSORS["clip"], size)
        assert boxes[0] == pytest.approx([0, 0, 0.25, 0.25])
        assert boxes[3] == pytest.approx([0.75, 0, 1, 0.25])
        assert boxes[15] == pytest.approx([0.75, 0.75, 1, 1])


def cropped(size: tuple[int, int]) -> tuple[float, float, float, float]:
    """Rows' offset and length, then columns', by transformers' rule: shortest side, centre."""
    width, height = (int(56 * side / min(size)) for side in size)
    return -((height - 56) // 2), height, -((width - 56) // 2), width


SETTINGS: dict[str, dict] = {
    "nearest": {"resample": 0},
    "bilinear": {"resample": 2},
    "Lanczos": {"resample": 1},
    "not rescaled": {"do_rescale": False},
    "rescaled otherwise": {"rescale_factor": 1 / 127.5},
    "not normalized": {"do_normalize": False},
    "odd normalization": {"image_mean": [0.9, 0.1, 0.5], "image_std": [0.2, 3.0, 1.0]},
}


@pytest.mark.parametrize("options", SETTINGS.values(), ids=SETTINGS)
def test_settings_of_brightness_and_resampling_move_nothing(options: dict) -> None:
    """Exactly: what lies at whole pixels is found there."""
    images = CLIPImageProcessorPil(**(PROCESSORS["clip"] | options))
    for size in SIZES:
        view = look(pixels_of(images), size)
        found = view.down.offset, view.down.whole, view.across.offset, view.across.whole
        assert found == cropped(size)


def test_padding_to_a_square_before_resizing_lies_between_pixels() -> None:
    """LLaVA's own processor with do_pad: half of a pixel of the view is what fits may err by."""
    for side in (56, 336):
        square = {"height": side, "width": side}
        images = LlavaImageProcessorPil(size={"shortest_edge": side}, crop_size=square, do_pad=True)
        for width, height in ((300, 180), (180, 300), (640, 480), (97, 131)):
            view, longest = look(pixels_of(images), (width, height)), max(width, height)
            for line, length in ((view.down, height), (view.across, width)):
                assert line.whole == pytest.approx(length * side / longest, abs=0.5)
                padding = (longest - length) // 2
                assert line.offset == pytest.approx(padding * side / longest, abs=0.5)


def changed(change: Callable[[Image.Image], Image.Image]) -> Callable[[Image.Image], torch.Tensor]:
    """CLIP's processor after something else was done to the picture."""
    process = pixels_of(CLIPImageProcessorPil(**PROCESSORS["clip"]))
    return lambda picture: process(change(picture))


def on(corner: tuple[int, int], colour: str) -> Callable[[Image.Image], Image.Image]:
    def pad(picture: Image.Image) -> Image.Image:
        canvas = Image.new("RGB", (picture.width + 60, picture.width + 60), colour)
        canvas.paste(picture, corner)
        return canvas

    return pad


def as_jpeg(picture: Image.Image) -> Image.Image:
    stored = io.BytesIO()
    picture.save(stored, "JPEG", quality=85)
    return Image.open(stored).convert("RGB")


HARMLESS: dict[str, Callable[[Image.Image], Image.Image]] = {
    "sharpened": lambda picture: picture.filter(ImageFilter.SHARPEN),
    "unsharp mask": lambda picture: picture.filter(ImageFilter.UnsharpMask(2, 200)),
    "blurred": lambda picture: picture.filter(ImageFilter.GaussianBlur(1)),
    "grey": lambda picture: ImageOps.grayscale(picture).convert("RGB"),
    "negative": ImageOps.invert,
    "other order of channels": lambda picture: Image.merge("RGB", picture.split()[::-1]),
    "one channel lost": lambda picture: Image.merge(
        "RGB", [*picture.split()[:2], Image.new("L", picture.size)]
    ),
    "more contrast": lambda picture: picture.point(lambda level: int(1.2 * (level - 127) + 127)),
    "brighter": lambda picture: ImageEnhance.Brightness(picture).enhance(1.15),
    "saved as JPEG": as_jpeg,
}


@pytest.mark.parametrize("change", HARMLESS.values(), ids=HARMLESS)
@pytest.mark.parametrize("size", [(300, 180), (97, 131)], ids=str)
def test_what_leaves_pixels_in_their_place_is_seen_through(
    change: Callable, size: tuple[int, int]
) -> None:
    view = look(changed(change), size)
    found = view.down.offset, view.down.whole, view.across.offset, view.across.whole
    assert found == pytest.approx(cropped(size), abs=0.5)


@pytest.mark.parametrize("colour", ["black", "white", "gray", "#28d707"])
def test_padding_of_any_colour_at_any_side(colour: str) -> None:
    for corner in ((0, 0), (60, 60), (11, 50)):
        view = look(changed(on(corner, colour)), (200, 140))
        assert view.across.whole == pytest.approx(200 * 56 / 260, abs=0.3)
        assert view.down.whole == pytest.approx(140 * 56 / 260, abs=0.3)
        assert view.across.offset == pytest.approx(corner[0] * 56 / 260, abs=0.3)
        assert view.down.offset == pytest.approx(corner[1] * 56 / 260, abs=0.3)


def test_a_mirrored_picture_is_a_grid_too() -> None:
    view = look(changed(ImageOps.mirror), (100, 100))
    boxes = view.cells(np.arange(4) * PATCH, np.arange(4) * PATCH, PATCH)
    assert boxes[0] == pytest.approx([0.75, 0, 1, 0.25])
    assert boxes[3] == pytest.approx([0, 0, 0.25, 0.25])


class AtRandom:
    """Something else each time, by turns."""

    def __init__(self, *changes: Callable[[Image.Image], Image.Image]) -> None:
        self.changes = itertools.cycle(changes)

    def __call__(self, picture: Image.Image) -> Image.Image:
        return next(self.changes)(picture)


def same(picture: Image.Image) -> Image.Image:
    return picture


def shifted(picture: Image.Image) -> Image.Image:
    return ImageChops.offset(picture, picture.width // 3, 0)


def hole(picture: Image.Image) -> Image.Image:
    picture = picture.copy()
    picture.paste((0, 0, 0), (60, 60, 110, 110))
    return picture


NO_GRID: dict[str, Callable[[Image.Image], Image.Image]] = {
    "turned by a quarter": lambda picture: picture.rotate(90, expand=True),
    "turned a little": lambda picture: picture.rotate(7),
    "rolled": shifted,
    "mosaic": lambda picture: picture.resize((3, 3)).resize(picture.size, 0),
    "a hole": hole,
    "edges smeared out": lambda picture: Image.fromarray(
        np.pad(np.asarray(picture), ((40, 40), (40, 40), (0, 0)), "edge")
    ),
    "clipped": lambda picture: ImageEnhance.Contrast(picture).enhance(3),
    "equalized": ImageOps.equalize,
    "blank": lambda picture: Image.new("RGB", picture.size),
    "sometimes mirrored": AtRandom(same, same, ImageOps.mirror),
    "sometimes shifted": AtRandom(same, shifted),
    "sometimes brighter": AtRandom(same, HARMLESS["brighter"]),
    "contrast by content": lambda picture: ImageEnhance.Contrast(picture).enhance(1.2),
}


@pytest.mark.parametrize("change", NO_GRID.values(), ids=NO_GRID)
def test_what_is_no_grid_of_the_picture_is_refused(change: Callable) -> None:
    message = refusal(look, changed(change), (200, 170), of="--model")
    assert message.startswith("--model: its image processor gives ") and UPRIGHT in message


def test_a_view_of_another_shape_than_the_pictures_is_refused() -> None:
    process = pixels_of(CLIPImageProcessorPil(**PROCESSORS["clip"]))
    with pytest.raises(InputError, match=r"\(1, 3, 56, 56\) for one picture and \(2, 3, 56, 56\)"):
        Measured(process, (90, 60)).view(lambda pixels: pixels[0], (2, 3, 56, 56))
