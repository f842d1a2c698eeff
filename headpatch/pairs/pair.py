"""What is looked at: two pictures that differ in one object, a question and a region."""

import io
import warnings
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from PIL import Image, ImageChops, ImageOps, UnidentifiedImageError

from headpatch.errors import InputError
from headpatch.pairs.region import Region
from headpatch.text import at_home, checked_text, user_path

BUNDLED = Path(__file__).parent / "images"
"""The default pair: ``1.jpg`` (with the triangle) and ``2.jpg`` (without)."""

# What Pillow raises for a file that it cannot read to the end.
_DAMAGE = (OSError, SyntaxError, ValueError, RuntimeError)

Picture: TypeAlias = str | Path | bytes | Image.Image | np.ndarray | Mapping[str, Any]
"""A picture: a file, a file's bytes, a picture of Pillow, an array of bytes ``[height, width]`` or
``[height, width, 3 or 4]``, or ``{"bytes": …, "path": …}`` as Hugging Face's datasets store it."""
IS_PICTURE = (
    "a picture: a path, the bytes of a file, a picture of Pillow, an array of uint8 [height, "
    'width, 3], or {"bytes": …, "path": …}'
)

_ASPECT_TOLERANCE = 0.02  # a pixel or two of rounding when a picture was resized
_POINTER = b"version https://git-lfs"


@dataclass(frozen=True, eq=False)
class Pair:
    """The two pictures of a study, both RGB and of one shape: with the object and without it.

    `region` is where the object is; the answer to `question` flips between the pictures.
    """

    name: str
    with_image: Image.Image
    without_image: Image.Image
    question: str
    region: Region


def refuse_pointer(argument: str, path: Path) -> None:
    """Refuse a file that is only git-lfs' note of where the real one is kept."""
    try:
        with path.open("rb") as stream:
            start = stream.read(len(_POINTER))
    except OSError:  # for others to refuse
        return
    if start == _POINTER:
        found = f"{path} is a git-lfs pointer, not the file itself"
        raise InputError(argument, found, "the file", "Run `git lfs pull` in its repository.")


def read_image(picture: Picture, argument: str) -> Image.Image:
    """Read a picture as RGB, turned upright by its EXIF tag; one that is none is an error.

    Transparent pixels become white: no model sees an alpha channel.
    """
    path = name_of(picture)
    try:
        # Odd metadata does no harm, nor does a picture that is merely large
        with warnings.catch_warnings(action="ignore"), _opened(picture, argument) as opened:
            opened.load()
            image = _eight_bits(ImageOps.exif_transpose(opened))
            if image.has_transparency_data:
                image = image.convert("RGBA")
                canvas = Image.new("RGBA", image.size, "white")
                image = Image.alpha_composite(canvas, image)
            return image.convert("RGB")
    except InputError:
        raise
    except (*_DAMAGE, Image.DecompressionBombError) as error:
        if isinstance(error, UnidentifiedImageError):
            refuse_pointer(argument, Path(at_home(path)))
        raise InputError(argument, *_unreadable(path, error)) from None


def _unreadable(path: str, error: Exception) -> tuple[str, ...]:
    """Say what was found, what was expected, and the way out."""
    if isinstance(error, UnidentifiedImageError):
        return f"{path} is not a picture", "a JPEG, PNG or other image file"
    if isinstance(error, FileNotFoundError):
        return f"{path} does not exist", "a picture file", "Check the path."
    if isinstance(error, IsADirectoryError):
        return f"{path} is a folder", "a picture file"
    if isinstance(error, Image.DecompressionBombError):
        most = 2 * (Image.MAX_IMAGE_PIXELS or 0)
        return f"{path} is too large a picture", f"at most {most:,} pixels", "Shrink it."
    reason = (isinstance(error, OSError) and error.strerror) or error
    expected = "a complete image file of 8 or 16 bits a channel"
    hint = "If it is damaged, save or download it again."
    return f"{path} cannot be read ({reason})", expected, hint


def name_of(picture: Picture) -> str:
    """Name a picture in messages: by its file, if it has one."""
    if isinstance(picture, Mapping):
        picture = picture.get("path") or b""
    return str(picture) if isinstance(picture, str | Path) else "a picture in memory"


def _opened(picture: Picture, argument: str) -> AbstractContextManager[Image.Image]:
    """Open a picture; one that the caller holds is left open, and as it is."""
    if isinstance(picture, Mapping):
        picture = picture.get("bytes") or picture.get("path") or picture
    if isinstance(picture, str | Path):
        return Image.open(user_path(picture, argument))
    if isinstance(picture, bytes):
        return Image.open(io.BytesIO(picture))
    if isinstance(picture, Image.Image):
        return nullcontext(picture)
    if not hasattr(picture, "__array__"):
        raise InputError(argument, f"a {type(picture).__name__}", IS_PICTURE)
    pixels = np.asarray(picture)
    flat = pixels.ndim == 2 or (pixels.ndim == 3 and pixels.shape[2] in (3, 4))
    if pixels.dtype != np.uint8 or not flat or 0 in pixels.shape:
        found = f"an array of {pixels.dtype} {list(pixels.shape)}"
        raise InputError(argument, found, "an array of uint8 [height, width, 3]")
    return nullcontext(Image.fromarray(pixels))


def _eight_bits(image: Image.Image) -> Image.Image:
    """Scale 16-bit grey, which PIL's own conversion would clip to white."""
    if image.mode == "F":
        raise ValueError("its pixels are floating-point numbers")
    if not image.mode.startswith("I"):
        return image
    return Image.fromarray((np.asarray(image) / 257).round().clip(0, 255).astype(np.uint8))


def make_pair(
    with_image: Picture,
    without_image: Picture,
    question: str,
    region: Region | str,
    name: str | None = None,
) -> Pair:
    """Read both pictures and check that they make a pair.

    Parameters
    ----------
    with_image, without_image
        With the object, and without it: files, pictures of Pillow, arrays of uint8
        ``[height, width, 3]``, or what else a `Picture` may be.
    question
        Asked of both.
    region
        Where the object is: as `Region.parse` reads it, if a text.
    name
        What tables call the pair; None makes one of the files' names, or ``pair``.

    Raises
    ------
    InputError
        If a picture cannot be read, the two differ in shape, or are the same; or there is no such
        region.

    Examples
    --------
    >>> folder = "headpatch/pairs/images"
    >>> pair = hp.make_pair(f"{folder}/1.jpg", f"{folder}/2.jpg", "Is it there?", "top-left")
    >>> pair.name, pair.region.box  # left, top, right, bottom in fractions of the picture
    ('1-2', (0.0, 0.0, 0.5, 0.5))
    """
    region = Region.parse(region) if isinstance(region, str) else region
    checked_text(question, "--question")
    first, second = read_image(with_image, "--with"), read_image(without_image, "--without")
    if abs(first.width * second.height / (first.height * second.width) - 1) > _ASPECT_TOLERANCE:
        found = f"sizes {first.width}x{first.height} and {second.width}x{second.height}"
        hint = "A region means the same place in both only then; crop one of them."
        raise InputError("--with, --without", found, "two pictures of one shape", hint)
    if first.size == second.size and ImageChops.difference(first, second).getbbox() is None:
        found = f"{name_of(with_image)} and {name_of(without_image)} show the same picture"
        raise InputError("--with, --without", found, "two pictures that differ in one object")
    if not question.strip():
        raise InputError("--question", "an empty question", "a question answered by Yes or No")
    return Pair(name or _pair_name(with_image, without_image), first, second, question, region)


def _pair_name(*pictures: Picture) -> str:
    files = [one.get("path") if isinstance(one, Mapping) else one for one in pictures]
    named = [Path(one).stem for one in files if isinstance(one, str | Path)]
    return "-".join(named) if len(named) == len(files) else "pair"
