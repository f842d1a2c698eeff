"""Pictures: what is accepted comes out as the same RGB picture, all else is refused in one line."""

import io
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps

from headpatch.errors import InputError
from headpatch.pairs.pair import Pair, make_pair, read_image
from headpatch.pairs.region import DIFFERING, REGIONS, UNNAMED
from tests.refusals import refusal

REGION = REGIONS["top-left"]
QUESTION = "Is there anything in the top left corner?"
BOTH = "--with, --without"
FORMATS = ("PNG", "JPEG", "GIF", "BMP", "TIFF", "WEBP")


def ramp(size: tuple[int, int] = (32, 24)) -> Image.Image:
    """Grey that brightens to the right, so that an upside-down or clipped picture shows."""
    row = np.linspace(0, 255, size[0]).round().astype(np.uint8)
    return Image.fromarray(np.repeat(row[None], size[1], 0))


def scene() -> Image.Image:
    """A red square at the top left of a grey ramp."""
    image = ramp().convert("RGB")
    image.paste((255, 0, 0), (0, 0, 8, 8))
    return image


def unread(file: Path, argument: str = "--with") -> str:
    return refusal(read_image, file, argument, of=argument)


def pixels(image: Image.Image) -> np.ndarray:
    return np.asarray(image).astype(int)


@pytest.mark.parametrize("mode", ["RGB", "L", "RGBA", "LA", "P", "CMYK", "1", "YCbCr", "I;16"])
def test_modes_become_rgb_and_keep_their_picture(tmp_path: Path, mode: str) -> None:
    grey = ramp()
    if mode == "I;16":
        image = Image.fromarray(pixels(grey).astype(np.uint16) * 257)
    elif mode == "1":
        image = grey.point(lambda value: 255 * (value > 127)).convert("1")
        grey = image.convert("L")
    else:
        image = grey.convert(mode)
    assert image.mode == mode
    file = tmp_path / ("picture.tiff" if mode in ("CMYK", "YCbCr") else "picture.png")
    image.save(file)
    try:
        Image.open(file).load()
    except OSError:  # below 13 it writes a TIFF in YCbCr that it cannot read
        pytest.skip("this Pillow does not read what it wrote")
    read = read_image(file, "--with")
    assert read.mode == "RGB"
    np.testing.assert_allclose(pixels(read), pixels(grey.convert("RGB")), atol=2)


def test_colours_survive(tmp_path: Path) -> None:
    for mode, suffix in (("P", "png"), ("CMYK", "tiff"), ("RGBA", "png")):
        file = tmp_path / f"picture.{suffix}"
        scene().convert(mode).save(file)
        np.testing.assert_allclose(
            pixels(read_image(file, "--with"))[:8, :8], [[[255, 0, 0]] * 8] * 8, atol=3
        )


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
def test_transparent_pixels_become_white(tmp_path: Path, mode: str) -> None:
    image = ramp().convert("RGBA" if mode == "P" else mode)
    image.putalpha(
        Image.fromarray(np.where(np.arange(32) < 16, 0, 255)[None].repeat(24, 0).astype(np.uint8))
    )
    if mode == "P":
        image = image.quantize()
    file = tmp_path / "picture.png"
    image.save(file)
    read = pixels(read_image(file, "--with"))
    assert (read[:, :16] == 255).all()
    assert (read[:, 17] < 160).all()


@pytest.mark.parametrize("orientation", range(1, 9))
def test_pictures_are_turned_upright(tmp_path: Path, orientation: int) -> None:
    """A camera stores the turned picture and a tag that says how to turn it back."""
    turns = "FLIP_LEFT_RIGHT ROTATE_180 FLIP_TOP_BOTTOM TRANSPOSE ROTATE_90 TRANSVERSE ROTATE_270"
    image = scene()
    if orientation > 1:
        image = image.transpose(Image.Transpose[turns.split()[orientation - 2]])
    exif = Image.Exif()
    exif[0x0112] = orientation
    file = tmp_path / "picture.png"
    image.save(file, exif=exif)
    assert np.array_equal(pixels(read_image(file, "--with")), pixels(scene()))


@pytest.mark.parametrize("kind", FORMATS)
def test_formats(tmp_path: Path, kind: str) -> None:
    file = tmp_path / f"picture.{kind.lower()}"
    scene().save(file, kind)
    np.testing.assert_allclose(pixels(read_image(file, "--with"))[2:6, 2:6, 0], 255, atol=40)


def test_what_is_not_a_picture_is_refused(tmp_path: Path) -> None:
    text, empty, floats = tmp_path / "a.png", tmp_path / "b.png", tmp_path / "c.tiff"
    text.write_text("not a picture")
    empty.touch()
    Image.fromarray(np.zeros((4, 4), np.float32)).save(floats)
    assert "does not exist" in unread(tmp_path / "none.png")
    assert "is a folder" in unread(tmp_path)
    assert "is not a picture" in unread(text)
    assert "is not a picture" in unread(empty)
    text.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n")
    assert "is a git-lfs pointer" in unread(text)
    assert "floating-point" in unread(floats)
    assert unread(text, "--without")


@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
def test_a_truncated_picture_is_refused(tmp_path: Path, kind: str) -> None:
    file = tmp_path / f"picture.{kind.lower()}"
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    Image.fromarray(noise).save(file, kind)
    whole = file.read_bytes()
    file.write_bytes(whole[: len(whole) // 2])
    message = unread(file)
    assert str(file) in message and "truncated" in message


@given(
    st.sampled_from(FORMATS),
    st.integers(0, 2000),
    st.lists(st.tuples(st.integers(0, 2000), st.integers(0, 255)), max_size=5),
)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=100)
@pytest.mark.filterwarnings("ignore")
def test_any_damage_is_survived_or_refused(
    tmp_path: Path, kind: str, length: int, changes: list[tuple[int, int]]
) -> None:
    stream = io.BytesIO()
    scene().save(stream, kind)
    damaged = bytearray(stream.getvalue()[:length])
    for place, value in changes:
        if place < len(damaged):
            damaged[place] = value
    file = tmp_path / "picture"
    file.write_bytes(damaged)
    with suppress(InputError):
        assert read_image(file, "--with").mode == "RGB"


def saved(folder: Path, name: str, image: Image.Image) -> Path:
    image.save(folder / name)
    return folder / name


def pair_of(folder: Path, first: Image.Image, second: Image.Image) -> Pair:
    with_file, without_file = saved(folder, "a.png", first), saved(folder, "b.png", second)
    return make_pair(with_file, without_file, QUESTION, REGION)


def test_a_pair(tmp_path: Path) -> None:
    pair = pair_of(tmp_path, scene(), ramp())
    assert np.array_equal(pixels(pair.with_image), pixels(scene()))
    assert np.array_equal(pixels(pair.without_image), pixels(ramp().convert("RGB")))
    assert (pair.name, pair.question, pair.region) == ("a-b", QUESTION, REGION)


def test_two_equal_pictures_are_refused_whatever_their_files(tmp_path: Path) -> None:
    assert "same picture" in refusal(pair_of, tmp_path, scene(), scene(), of=BOTH)
    file = saved(tmp_path, "a.png", ramp())
    other = saved(tmp_path, "a.bmp", ramp().convert("RGB"))
    for second in (file, other):
        refusal(make_pair, file, second, QUESTION, REGION, of=BOTH)


def test_one_pixel_is_a_difference(tmp_path: Path) -> None:
    image = scene()
    image.putpixel((31, 23), (0, 0, 0))
    pair_of(tmp_path, image, scene())


def test_sizes_and_shapes_need_not_agree(tmp_path: Path) -> None:
    """Whether the model sees both cut up alike is for its processor to show."""
    for size in ((64, 48), (48, 48)):
        pair = pair_of(tmp_path, scene().resize(size), ramp())
        assert (pair.with_image.size, pair.without_image.size) == (size, (32, 24))


def test_pixels_of_a_region_are_those_of_the_picture_with_the_object() -> None:
    both = scene().resize((64, 48)), ramp()
    assert make_pair(*both, QUESTION, "16,12,32,24").region.box == (0.25, 0.25, 0.5, 0.5)
    assert "within 64x48" in refusal(make_pair, *both, QUESTION, "16,12,66,24", of="--region")


def test_without_a_region_it_is_where_the_pictures_differ() -> None:
    """The square covers a quarter of the width and a third of the height: cells of a 24th."""
    for region in (None, "none", DIFFERING):
        pair = make_pair(scene(), ramp(), QUESTION, region)
        assert pair.region.name == DIFFERING
        assert pair.region.box == pytest.approx((0, 0, 1 / 4, 1 / 3))
    inverted = ImageOps.invert(scene())
    assert make_pair(scene(), inverted, QUESTION).region == UNNAMED  # nearly all of it differs
    assert make_pair(scene(), ramp((64, 48)), QUESTION).region == UNNAMED
    faint = scene()
    faint.putpixel((31, 23), (250, 255, 255))  # less than compression does
    assert make_pair(scene(), faint, QUESTION).region == UNNAMED


def test_compression_is_no_difference(tmp_path: Path) -> None:
    big, other = scene().resize((480, 360)), ramp((480, 360)).convert("RGB")
    big.save(tmp_path / "a.jpg", quality=60)
    other.save(tmp_path / "b.jpg", quality=60)
    found = make_pair(tmp_path / "a.jpg", tmp_path / "b.jpg", QUESTION).region
    assert found.box == pytest.approx((0, 0, 1 / 4, 1 / 3), abs=1 / 24 + 1e-9)


def test_one_picture_may_be_asked_two_questions() -> None:
    pair = make_pair(scene(), None, QUESTION, "top-left", question_without="Is it not?")
    assert pair.images[0] is pair.images[1]
    assert pair.questions == (QUESTION, "Is it not?")
    assert make_pair(scene(), None, QUESTION, question_without="Is it not?").region == UNNAMED
    both = {"of": BOTH, "question_without": f" {QUESTION}"}
    assert "one question" in refusal(make_pair, scene(), None, QUESTION, **both)
    assert "one question" in refusal(make_pair, scene(), scene(), QUESTION, **both)
    asked = make_pair(scene(), ramp(), QUESTION, question_without="Is it not?")
    assert asked.region.name == DIFFERING


def test_an_empty_question_is_refused(tmp_path: Path) -> None:
    first, second = saved(tmp_path, "a.png", scene()), saved(tmp_path, "b.png", ramp())
    for question in ("", "  \n"):
        refusal(make_pair, first, second, question, REGION, of="--question")
