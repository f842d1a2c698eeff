"""What a converter reads: the files of a published data set, and the pictures that they name."""

import csv
import io
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any, TypeAlias

from PIL import Image

from headpatch.errors import InputError

Picture: TypeAlias = "Path | bytes"
"""A picture file, or what one holds where a table stores pictures itself."""
Cells: TypeAlias = dict[str, Any]
"""A row by column; cells of pictures are `Picture`, all others text."""
Box: TypeAlias = tuple[float, float, float, float]
"""Left, top, right, bottom in pixels."""
TWO_QUESTIONS = "its two rows ask two questions"
_ARGUMENT = "FOLDER"
_BATCH = 64  # rows of a Parquet file that are held at a time: they hold pictures
_PADDED = 12  # digits of a file's name in COCO of 2017


class Unusable(Exception):
    """Why a row of a data set makes no row here: the reason, and what it is in this one."""

    def __init__(self, reason: str, detail: object = "") -> None:
        self.reason, self.detail = reason, str(detail)
        super().__init__(f"{reason}: {detail}" if self.detail else reason)


@dataclass(frozen=True)
class Source:
    """A data set on disk.

    Pictures are looked for in `folder`, then in `images`; `instances` is COCO's file of boxes.
    """

    folder: Path
    images: tuple[Path, ...] = ()
    instances: Path | None = None

    def file(self, *names: str) -> Path:
        """Return the first of the files that is there; none is an `InputError`."""
        path = next((path for name in names if (path := self.folder / name).is_file()), None)
        if path is None:
            found = f"{self.folder} holds no {' nor '.join(names)}"
            raise InputError(_ARGUMENT, found, "the data set as it is published")
        return path

    def files(self, *patterns: str) -> list[Path]:
        """Return the files that a pattern fits, of the first that fits any, in order."""
        found = (sorted(self.folder.glob(pattern)) for pattern in patterns)
        return next((paths for paths in found if paths), [])

    def beside(self, path: Path) -> "Source":
        """Return the same, whose pictures are looked for beside a file, too."""
        return replace(self, images=(path.parent, *self.images))

    def picture(self, name: str) -> Path:
        """Return the file of a picture; where folders of its name are missing, by what is left."""
        parts = PurePosixPath(name.replace("\\", "/")).parts
        parts = parts[1:] if parts[:1] == ("/",) else parts
        if not parts or ".." in parts:
            raise Unusable("a picture's name leaves the folder", name)
        padded = f"{PurePosixPath(name).stem:0>{_PADDED}}{PurePosixPath(name).suffix}"
        endings = [Path(*parts[start:]) for start in range(len(parts))]
        for ending in (*endings, Path(padded)):
            for root in (self.folder, *self.images):
                if (path := root / ending).is_file():
                    return path
        raise Unusable("a picture is not there", "/".join(parts))

    def stored(self, cell: Any) -> Picture:
        """Return the picture of a cell of a Parquet file: bytes, a path, or both by name."""
        if isinstance(cell, Mapping):
            cell = cell.get("bytes") or cell.get("path")
        if isinstance(cell, bytes) and cell:
            return cell
        if isinstance(cell, str) and cell:
            return self.picture(cell)
        raise Unusable("the table holds no picture")

    def boxes(self, *names: str) -> dict[tuple[int, str], Box]:
        """Read COCO's boxes: about all objects of a kind in a picture, by its id and their name.

        The file is `instances`, or one of `names` in the folder; none is an `InputError`.
        """
        path = self.instances
        if path is None:
            path = next((path for name in names if (path := self.folder / name).is_file()), None)
        if path is None:
            found = f"no file, and {self.folder} holds no {names[0]}"
            expected = f"COCO's {Path(names[0]).name}, which says where the objects are"
            hint = "It is in annotations_trainval2017.zip of cocodataset.org."
            raise InputError("--instances", found, expected, hint)
        content = json_of(path, "--instances")
        try:
            kinds = {int(one["id"]): str(one["name"]) for one in content["categories"]}
            found_boxes: dict[tuple[int, str], Box] = {}
            for one in content["annotations"]:
                key = (int(one["image_id"]), kinds[int(one["category_id"])])
                left, top, width, height = map(float, one["bbox"])
                box = (left, top, left + width, top + height)
                found_boxes[key] = about(found_boxes.get(key, box), box)
        except (KeyError, TypeError, ValueError):
            expected = "COCO's instances: categories, and annotations with boxes"
            raise InputError("--instances", f"{path} holds something else", expected) from None
        return found_boxes


def about(first: Box, second: Box) -> Box:
    """Return the smallest box about two."""
    return (
        min(first[0], second[0]),
        min(first[1], second[1]),
        max(first[2], second[2]),
        max(first[3], second[3]),
    )


def region_of(box: Box, picture: Picture) -> str:
    """Write a box in pixels of a picture as a region: fractions, cut off at the picture's edge."""
    try:
        with Image.open(io.BytesIO(picture) if isinstance(picture, bytes) else picture) as image:
            width, height = image.size
    except (OSError, ValueError, Image.DecompressionBombError) as error:
        raise Unusable("a picture cannot be read", error) from None
    shares = box[0] / width, box[1] / height, box[2] / width, box[3] / height
    left, top, right, bottom = (min(max(share, 0.0), 1.0) for share in shares)
    if not (left < right and top < bottom):
        words = ", ".join(f"{end:g}" for end in box)
        raise Unusable("its box is empty or outside the picture", f"{words} of {width}, {height}")
    return ",".join(f"{share:.6g}" for share in (left, top, right, bottom))


def text_in(path: Path, argument: str = _ARGUMENT) -> str:
    """Read a text file; an `InputError` if it cannot be."""
    try:
        return path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise InputError(argument, f"{path}: {error.strerror}", "a file to read") from None
    except UnicodeDecodeError:
        raise InputError(argument, f"{path} is not UTF-8", "a text file in UTF-8") from None


def json_of(path: Path, argument: str = _ARGUMENT) -> Any:
    """Read a JSON file; an `InputError` if it is none."""
    try:
        return json.loads(text_in(path, argument))
    except (ValueError, RecursionError) as error:
        found = f"{path} is not JSON ({' '.join(str(error).split())[:80]})"
        raise InputError(argument, found, "the file as it is published") from None


def records_of(path: Path, *needed: str) -> list[dict[str, Any]]:
    """Read a table: a list of JSON objects, JSON lines, or CSV; each row with the needed keys.

    What is no such table, or lacks a column in its first row, is an `InputError`.
    """
    rows: Any
    if path.suffix == ".csv":
        rows = list(csv.DictReader(io.StringIO(text_in(path), newline="")))
    elif (text := text_in(path)).lstrip().startswith("["):
        rows = json_of(path)
    else:
        rows = [_line(path, number, line) for number, line in enumerate(text.split("\n"), 1)
                if line.strip()]  # fmt: skip
    if not rows or not all(isinstance(row, dict) for row in rows):
        raise InputError(_ARGUMENT, f"{path} holds no rows", f"rows with {', '.join(needed)}")
    refuse_lacking(path, rows[0], needed)
    return list(rows)


def _line(path: Path, number: int, line: str) -> Any:
    try:
        return json.loads(line)
    except (ValueError, RecursionError):
        found = f"{path}, line {number} is not JSON"
        raise InputError(_ARGUMENT, found, "one JSON object a line") from None


def refuse_lacking(path: Path, row: Mapping[str, Any], needed: Sequence[str]) -> None:
    """Refuse a table that lacks columns of the layout."""
    if lacking := [name for name in needed if name not in row]:
        found = f"{path} lacks {', '.join(lacking)} (it has {', '.join(map(str, row))})"
        raise InputError(_ARGUMENT, found[:400], f"the columns {', '.join(needed)}")


def parquet_rows(paths: Sequence[Path], *needed: str) -> Iterator[dict[str, Any]]:
    """Yield the rows of Parquet files, a few at a time; an `InputError` if one cannot be read."""
    try:
        from pyarrow import ArrowException, parquet
    except ImportError:
        found, expected = f"{paths[0]} is a Parquet file", "pyarrow, which reads it"
        raise InputError(_ARGUMENT, found, expected, "pip install pyarrow") from None
    for path in paths:
        try:
            with parquet.ParquetFile(path) as file:
                refuse_lacking(path, dict.fromkeys(file.schema_arrow.names), needed)
                for batch in file.iter_batches(batch_size=_BATCH):
                    yield from batch.to_pylist()
        except (ArrowException, OSError, ValueError) as error:
            if isinstance(error, InputError):
                raise
            said = " ".join(str(error).split())[:160]
            raise InputError(_ARGUMENT, f"{path} cannot be read ({said})", "Parquet") from None


def said_of(row: Mapping[str, Any], name: str) -> str:
    """Return what a row says in a column; an `Unusable` if that is nothing."""
    value = row.get(name)
    text = "" if value is None else str(value).strip()
    if not text or text.lower() in ("nan", "none"):
        raise Unusable("a cell is empty", name)
    return text


def yes_or_no(text: str, where: str = "label") -> str:
    """Return ``Yes`` or ``No`` for a label in any case; an `Unusable` for another."""
    answer = text.strip().rstrip(".").capitalize()
    if answer not in ("Yes", "No"):
        raise Unusable("a right answer is neither yes nor no", f"{where} {text[:40]!r}")
    return answer


def opposite(first: str, second: str) -> str:
    """Return the two answers as a cell; an `Unusable` if they are one."""
    if first == second:
        raise Unusable("one right answer for both pictures", first)
    return f"{first},{second}"
