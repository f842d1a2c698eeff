"""Published data sets, written as tables of pairs or of single pictures."""

import hashlib
import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from headpatch.core.output.files import write_columns
from headpatch.core.output.staging import check_folder, staged
from headpatch.errors import InputError
from headpatch.pairs.converters import CONVERTERS
from headpatch.pairs.converters.making import COLUMNS, Skipped, rows_as
from headpatch.pairs.converters.source import Cells, Picture, Source
from headpatch.pairs.manifest import NAME
from headpatch.text import user_path

TABLES: Final = {"pairs": NAME, "rows": "rows.csv"}
SKIPPED: Final = "skipped.csv"
_KINDS: Final = {b"\x89PNG": ".png", b"\xff\xd8\xff": ".jpg", b"RIFF": ".webp"}


@dataclass(frozen=True)
class Converted:
    """What `convert_pairs` wrote.

    Attributes
    ----------
    table
        The table, for `open_pairs` or ``--pairs``; of single pictures, for `headpatch evaluate`.
    count
        Its rows.
    skipped
        Rows of the data set that make none: by reason, how many; ``skipped.csv`` names each.
    factors
        Columns that results can be grouped by.
    """

    table: Path
    count: int
    skipped: dict[str, int]
    factors: tuple[str, ...]


def convert_pairs(
    name: str,
    folder: str | Path,
    out: str | Path,
    sort: str = "pairs",
    images: Sequence[str | Path] = (),
    instances: str | Path | None = None,
) -> Converted:
    """Write a published data set as a table of pairs, as ``headpatch pairs --from`` does.

    Pictures stay where they are, and are named by their path from `out`; those that a Parquet file
    holds become files there. Nothing is downloaded.

    Parameters
    ----------
    name
        ``popev2``, ``merlim``, ``naturalbench``, ``mmvp``, ``whatsup``, ``pope``, ``vsr`` or
        ``coco-counterfactuals``.
    folder
        The data set as it is published.
    out
        Folder for the table, and for ``skipped.csv``: rows that make none, with the reason.
    sort
        ``pairs``, or ``rows``: every picture with its question and right answer.
    images
        Further folders in which pictures are looked for, such as COCO's.
    instances
        COCO's file of boxes, which POPEv2 needs.

    Raises
    ------
    InputError
        If a file of the data set is missing or is of another layout, no row can be used, or `out`
        holds another data set.

    Examples
    --------
    >>> hp.convert_pairs("mmvp", "attention_data", "pairs")  # which is no such data set
    Traceback (most recent call last):
    headpatch.errors.InputError: FOLDER: attention_data holds no Questions.csv; expected ...
    """
    if name not in CONVERTERS:
        raise InputError("--from", repr(name), f"one of {', '.join(CONVERTERS)}")
    if sort not in TABLES:
        raise InputError("--as", repr(sort), f"one of {', '.join(TABLES)}")
    source = Source(
        _folder(folder, "FOLDER"),
        tuple(_folder(one, "--images") for one in images),
        None if instances is None else user_path(instances, "--instances"),
    )
    place = user_path(out, "--out")
    check_folder(place)
    with staged(place, "pairs") as stage:
        keeper = _Keeper(place, stage)
        made = list(rows_as(sort, CONVERTERS[name](source), keeper.keep))
        rows = [row for row in made if not isinstance(row, Skipped)]
        skipped = [row for row in made if isinstance(row, Skipped)]
        if not rows:
            why = "; ".join(f"{count:,} × {reason}" for reason, count in _counted(skipped).items())
            first = f" ({skipped[0].name}: {skipped[0].detail})" if skipped else ""
            found = f"none of {len(skipped):,} rows of {source.folder} can be used: {why}{first}"
            raise InputError("--from", found, f"rows of {name}")
        keeper.drop_unnamed(rows)
        write_columns(stage / TABLES[sort], _columns(sort, rows))
        by_row = {
            "row": [one.name for one in skipped],
            "reason": [one.reason for one in skipped],
            "detail": [one.detail for one in skipped],
        }
        write_columns(stage / SKIPPED, by_row)
        _refuse_another(place, stage, TABLES[sort])
    factors = tuple(key for key in _columns(sort, rows) if key not in COLUMNS[sort])
    return Converted(place / TABLES[sort], len(rows), _counted(skipped), factors)


def _counted(skipped: Sequence[Skipped]) -> dict[str, int]:
    return dict(Counter(one.reason for one in skipped).most_common())


def _folder(path: str | Path, argument: str) -> Path:
    folder = user_path(path, argument)
    if not folder.is_dir():
        found = "a file" if folder.exists() else "no such folder"
        raise InputError(argument, f"{folder}: {found}", "a folder")
    return folder


class _Keeper:
    """Names pictures in a table that will lie in `out`; those held in memory go to `stage`."""

    def __init__(self, out: Path, stage: Path) -> None:
        self._out, self._stage = out.resolve(), stage
        self._written: set[str] = set()

    def keep(self, picture: Picture) -> str:
        if isinstance(picture, Path):
            path = picture.parent.resolve() / picture.name  # a link keeps its name
            return Path(os.path.relpath(path, self._out)).as_posix()
        ending = next((kind for mark, kind in _KINDS.items() if picture.startswith(mark)), ".img")
        name = f"{hashlib.sha256(picture).hexdigest()[:16]}{ending}"
        if name not in self._written:
            (self._stage / name).write_bytes(picture)
            self._written.add(name)
        return name

    def drop_unnamed(self, rows: Sequence[Cells]) -> None:
        """Delete pictures that no row names in the end."""
        named = {row.get(key) for row in rows for key in ("with", "without", "image")}
        for name in self._written - named:
            (self._stage / name).unlink()


def _columns(sort: str, rows: Sequence[Cells]) -> dict[str, list[Any]]:
    """Return the table's columns: those that mean something first, then factors as they come."""
    there = dict.fromkeys(key for row in rows for key in row)
    known = [key for key in COLUMNS[sort] if key in there]
    ordered = [*known, *(key for key in there if key not in known)]
    return {key: [row.get(key, "") for row in rows] for key in ordered}


def _refuse_another(out: Path, stage: Path, name: str) -> None:
    there = out / name
    if there.is_file() and there.read_bytes() != (stage / name).read_bytes():
        found = f"{there} is there, and is not what this data set gives"
        hint = "Choose another --out, or delete the old table."
        raise InputError("--out", found, "a folder without a table", hint)
