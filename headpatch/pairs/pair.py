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
from headpatch.pairs.region import UNNAMED, Region
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

_POINTER = b"version https://git-lfs"


@dataclass(frozen=True, eq=False)
class Pair:
    """The two pictures of a study, both RGB: with the object and without it; or one, asked twice.

    `region` is where the object is, in fractions of either picture; the answer to `question` flips
    between the pictures. The run without the object is asked `question_without`, if there is one.
    `answers` are the right answers of both runs, with the object first; None: the study's.
    `context` are files of pictures that are shown before either; none: the study's.
    """

    name: str
    with_image: Image.Image
    without_image: Image.Image
    question: str
    region: Region
    question_without: str | None = None
    answers: tuple[str, str] | None = None
    context: tuple[str, ...] = ()

    @property
    def images(self) -> tuple[Image.Image, Image.Image]:
        """Both pictures, that with the object first."""
        return self.with_image, self.without_image

    @property
    def questions(self) -> tuple[str, str]:
        """What each run is asked."""
        return self.question, self.question_without or self.question


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
    without_image: Picture | None,
    question: str,
    region: Region | str | None = None,
    name: str | None = None,
    question_without: str | None = None,
    answers: tuple[str, str] | None = None,
) -> Pair:
    """Read both pictures and check that they make a pair.

    Parameters
    ----------
    with_image, without_image
        With the object, and without it: files, pictures of Pillow, arrays of uint8
        ``[height, width, 3]``, or what else a `Picture` may be. None takes the first again, where
        there is a `question_without`.
    question, question_without
        Asked of both; or of the first, and of the second.
    region
        Where the object is: as `Region.parse` reads it, if a text; pixels are those of the picture
        with the object. None is where the two pictures differ, or all of them if that is no place
        (see `headpatch.pairs.difference`).
    name
        What tables call the pair; None makes one of the files' names, or ``pair``.
    answers
        The right answer of each run, if not the study's.

    Raises
    ------
    InputError
        If a picture cannot be read, the two runs are the same, or there is no such region.

    Examples
    --------
    >>> folder = "headpatch/pairs/images"
    >>> pair = hp.make_pair(f"{folder}/1.jpg", f"{folder}/2.jpg", "Is it there?", "top-left")
    >>> pair.name, pair.region.box  # left, top, right, bottom in fractions of the picture
    ('1-2', (0.0, 0.0, 0.5, 0.5))
    """
    region = Region.parse(region) if isinstance(region, str) else region or UNNAMED
    asked = {"--question": question, "question_without": question_without or question}
    for argument, text in asked.items():
        checked_text(text, argument)
    first = read_image(with_image, "--with")
    second = first if without_image is None else read_image(without_image, "--without")
    same = first.size == second.size and ImageChops.difference(first, second).getbbox() is None
    if same and len({text.strip() for text in asked.values()}) == 1:
        found = "one picture, asked one question"
        if without_image is not None and question_without is None:
            found = f"{name_of(with_image)} and {name_of(without_image)} show the same picture"
        raise InputError("--with, --without", found, "two pictures that differ in one object")
    for argument, text in asked.items():
        if not text.strip():
            raise InputError(argument, "an empty question", "a question answered by Yes or No")
    if region == UNNAMED:
        from headpatch.pairs.difference import differing  # loads scipy

        region = differing(first, second)
    region = region.within(*first.size)
    name = name or _pair_name(with_image, *[] if without_image is None else [without_image])
    return Pair(name, first, second, question, region, question_without, answers)


def _pair_name(*pictures: Picture) -> str:
    files = [one.get("path") if isinstance(one, Mapping) else one for one in pictures]
    named = [Path(one).stem for one in files if isinstance(one, str | Path)]
    return "-".join(named) if len(named) == len(files) else "pair"
