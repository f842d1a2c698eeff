"""Single pictures with a question and a labelled answer: a table with one a row, or pairs' runs.

The columns `image`, `question` and `answer` must be there. `choices` are the answers among which
the likeliest is sought (texts parted by commas, or a JSON list); without them the study's own, if
the row's answer is one of these. `name`, `scene` and `group` may be there: rows of one scene count
as one in every statistic, rows of one group are right together or not. `objects` are what is to be
seen (parted by commas, or a JSON list), for scores of objects that are named; `region` is a place
in the picture, to which attention can be turned; `context_images` are pictures shown before it.
Every further column can be asked for by its name. POPE's and Hugging Face's own names of columns
are known too (`_ALIASES`). Paths are relative to the table.

A row that cannot be read is listed with its reason, and the rest are used.
"""

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

from headpatch.errors import InputError
from headpatch.pairs.columnar import only_table
from headpatch.pairs.manifest import Entry, usable
from headpatch.pairs.pair import Pair, Picture, read_image
from headpatch.pairs.region import UNNAMED, Region
from headpatch.pairs.rows import (
    CONTEXT,
    MEMORY,
    Row,
    StoredPictures,
    table_of,
    text_of,
)
from headpatch.pairs.same_scene import with_scenes
from headpatch.text import checked_text, spelling

COLUMNS: Final = ("image", "question", "answer", "choices", "name", "scene", "group", "objects",
                 "region", CONTEXT)  # fmt: skip
"""Columns that say what a row is; every other says what it is like."""
_ALIASES: Final = {
    "file_name": "image", "text": "question", "label": "answer", "question_id": "name", "id": "name"
}  # fmt: skip
_TABLES = ("rows.csv", "metadata.csv", "metadata.jsonl", "metadata.parquet")
_WHOLE = Region("image", 0.0, 0.0, 1.0, 1.0)


@dataclass(frozen=True)
class Labelled:
    """One picture, what is asked of it and what is right.

    `choices` are empty where the row has none. `twin` is the pair's other run, for a run of a pair.
    """

    name: str
    image: Picture = field(compare=False)
    question: str
    answer: str
    choices: tuple[str, ...] = ()
    line: int = 0
    where: str = ""  # its place in the table, for messages
    scene: str = ""
    group: str = ""
    objects: tuple[str, ...] = ()
    factors: Mapping[str, str] = field(default_factory=dict, hash=False)
    twin: "Labelled | None" = None
    region: Region = UNNAMED
    context: tuple[Path, ...] = ()  # shown before the picture; none: the study's
    measured: Picture | None = field(default=None, compare=False, repr=False)
    """Whose pixels the region's are, if not the row's own picture's."""
    stored: StoredPictures | None = field(default=None, compare=False, repr=False)

    @property
    def right(self) -> int | None:
        """The place of the right answer among the choices; None where there are none."""
        return [*map(spelling, self.choices)].index(spelling(self.answer)) if self.choices else None

    def pair(self) -> Pair:
        """Read the picture, as a pair with its twin's or with itself; an error names the row."""
        where = f"{self.where}, image" if self.where else "image"
        other = self if self.twin is None else self.twin
        shown, other_shown = (read_image(one.image, where) for one in (self, other))
        region = self.region
        if region == UNNAMED and self.twin is not None:
            from headpatch.pairs.difference import differing  # loads scipy

            region = differing(shown, other_shown)
        if region.pixels:
            sized = shown if self.measured is None else read_image(self.measured, where)
            region = region.within(*sized.size)
        return Pair(
            self.name,
            shown,
            other_shown,
            self.question,
            region,
            context=tuple(map(str, self.context)),
        )


@dataclass(frozen=True)
class Refused:
    """A row that cannot be asked, and why."""

    row: str
    line: int
    reason: str


@dataclass(frozen=True)
class Listed:
    """Rows of a table, and those that cannot be asked; iterating gives the former."""

    entries: tuple[Labelled, ...]
    refused: tuple[Refused, ...] = ()
    of_pairs: tuple[Entry, ...] = ()  # whose runs they are, if they are runs of pairs
    name: str = ""  # of the table, as a study has it

    def __iter__(self) -> Iterator[Labelled]:
        return iter(self.entries)


def runs_of(
    name: str,
    pictures: tuple[Picture, Picture],
    questions: tuple[str, str],
    answers: tuple[str, str],
    **more: Any,
) -> tuple[Labelled, Labelled]:
    """Return both runs of a pair, with and without the object: each wants its own answer."""
    present, absent = (
        Labelled(f"{name}/{run}", image, question, answer, **more, group=name)
        for run, image, question, answer in zip(
            ("with", "without"), pictures, questions, answers, strict=True
        )
    )
    return replace(present, twin=absent), replace(absent, twin=present)


def of_entries(entries: Sequence[Entry], answers: tuple[str, str]) -> Listed:
    """Return the runs of a dataset's pairs; `answers` are right with and without the object."""
    found: list[Labelled] = []
    refused = [
        Refused(one.name, one.line, f"{one.problem.found}; expected {one.problem.expected}")
        for one in entries
        if one.problem is not None
    ]
    for one in usable(entries):
        own = one.answers or answers
        questions = one.question, one.question_without or one.question
        more = {"line": one.line, "where": one.where, "scene": one.scene or one.name}
        more |= {"factors": one.factors, "stored": one.stored, "choices": ordered(own, answers)}
        more |= {"region": one.region, "measured": one.with_path, "context": one.context}
        pictures = one.with_path, one.without_path
        found += runs_of(one.name, pictures, questions, (own[0], own[1]), **more)
    return Listed(tuple(found), tuple(refused), of_pairs=tuple(entries))


def ordered(choices: Sequence[str], answers: tuple[str, str]) -> tuple[str, ...]:
    """Return choices in the order and spelling of the study's answers, if they are these."""
    alike = {*map(spelling, choices)} == {*map(spelling, answers)}
    return answers if alike else tuple(choices)


def read_rows(table: Any, answers: tuple[str, str], argument: str = "--rows") -> Listed:
    """Read a table of labelled pictures: what can be asked, and what cannot.

    `table` is a file or folder, or rows in memory (a table of pandas, a list of dicts, a dataset of
    Hugging Face's). An `InputError` if there is no such table, it lacks a column, or no row can be
    asked.
    """
    try:
        path, base, rows = table_of(table, (), argument, lambda path: _table(path, argument))
        each = [_renamed(row) for row in rows]
    except InputError as error:
        named, expected = (
            text.replace(old, new)
            for text, old, new in (
                (error.argument, "--pairs", argument),
                (error.expected, "of pairs", "of rows"),
            )
        )
        raise InputError(named, error.found, expected, error.hint) from None
    where = argument if path.name == MEMORY else f"{argument} {path}"
    found, refused, stored = dict[str, Labelled](), list[Refused](), StoredPictures()
    for number, row in enumerate(each, start=1):
        name = text_of(row.cells.get("name")) or f"{number:04d}"
        try:
            if name in found:
                raise InputError(where, f"the name {name!r} twice", "a name of its own")
            found[name] = _labelled(row, name, f"{where}, line {row.line}", base, answers, stored)
        except InputError as error:
            refused.append(Refused(name, row.line, f"{error.found}; expected {error.expected}"))
    if not found:
        why = f": {refused[0].reason}" if refused else ""
        raise InputError(where, f"no row that can be asked{why}", "rows of image, question, answer")
    name = str(path)
    if name == MEMORY:
        said = [[one.name, one.question, one.answer, str(one.image)] for one in found.values()]
        name += f"sha256:{hashlib.sha256(json.dumps(said).encode()).hexdigest()[:16]}"
    return Listed(_in_scenes(tuple(found.values())), tuple(refused), name=name)


def _in_scenes(rows: tuple[Labelled, ...]) -> tuple[Labelled, ...]:
    """Name the scenes of rows: their own, their group's, or by the pictures that they share."""
    shown = [
        Entry(
            one.name, picture, picture, one.question, _WHOLE, one.line, scene=one.scene or one.group
        )
        for one in rows
        for picture in [Path(str(one.image))]
    ]
    found = with_scenes(shown)
    return tuple(replace(one, scene=own.scene) for one, own in zip(rows, found, strict=True))


def _table(path: Path, argument: str) -> Path:
    if not path.is_dir():
        return path
    there = [path / name for name in _TABLES if (path / name).is_file()]
    stored = (only_table(one) for one in (path, path / "data"))
    there = there or [one for one in stored if one is not None]
    if len(there) != 1:
        found = f"{path} holds {len(there) or 'no'} table{'s' * (len(there) > 1)}"
        raise InputError(argument, found, f"one of {', '.join(_TABLES)} in it")
    return there[0]


def _renamed(row: Row) -> Row:
    """Return a row with its columns under the names of `COLUMNS`."""
    cells = dict(row.cells)
    for other, name in _ALIASES.items():
        if other in cells and name not in cells:
            cells[name] = cells.pop(other)
    return Row(row.line, cells)


def _labelled(
    row: Row,
    name: str,
    where: str,
    base: Path,
    answers: tuple[str, str],
    stored: StoredPictures,
) -> Labelled:
    pictures = ("image", CONTEXT)
    cells = {key: one if key in pictures else text_of(one) for key, one in row.cells.items()}
    for column in ("image", "question"):
        if cells.get(column) is None or cells[column] == "":
            raise InputError(where, f"no {column}", "a value there")
    answer, objects = cells.get("answer", ""), _several(row.cells.get("objects"))
    if not answer and "objects" not in cells:
        raise InputError(where, "no answer", "the right answer, or the objects that are there")
    for text in (cells["question"], answer):
        checked_text(text, where)
    choices = ordered(_several(row.cells.get("choices")), answers)
    known = [*map(spelling, choices or answers)]
    if not choices and spelling(answer) in known:
        choices = answers
    elif choices and (spelling(answer) not in known or len({*known}) < max(len(known), 2)):
        found, expected = f"answer {answer!r}, choices {', '.join(choices)}", "two choices or more"
        raise InputError(where, found, f"{expected}, each once, the answer among them")
    image = stored.file_of(row.cells["image"], base, where)
    own = {key: text for key, text in cells.items() if key not in COLUMNS}
    region = Region.parse(cells.get("region") or UNNAMED.name, f"{where}, region")
    return Labelled(
        name, image, cells["question"], answer, choices, row.line, where,
        scene=cells.get("scene", ""), group=cells.get("group", ""), objects=objects, factors=own,
        stored=stored, region=region,
        context=stored.files_of(row.cells.get(CONTEXT), base, f"{where}, {CONTEXT}"),
    )  # fmt: skip


def _several(cell: Any) -> tuple[str, ...]:
    """Read texts that are parted by commas, a JSON list, or a list."""
    if isinstance(cell, str) and cell.strip().startswith("["):
        with suppress(ValueError):
            cell = json.loads(cell)
    parts = (
        text_of(cell).split(",") if isinstance(cell, str) or cell is None else map(text_of, cell)
    )
    return tuple(part.strip() for part in parts if part.strip())
