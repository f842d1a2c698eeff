"""From rows of a layout to rows of a table of pairs, or of single pictures."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, TypeAlias

from headpatch.pairs.converters.source import Cells, Picture, Unusable

Makes: TypeAlias = tuple[str, Callable[[], Cells]]
"""The name of a row, and what makes it or says by an `Unusable` why there is none."""
COLUMNS: Final[Mapping[str, tuple[str, ...]]] = {
    "pairs": ("name", "with", "without", "question", "question_without", "region", "answers",
              "scene"),
    "rows": ("name", "image", "question", "answer", "answers", "scene", "group"),
}  # fmt: skip
"""Columns that mean something, in a table of pairs or of single pictures; others are factors."""
_PICTURES = ("with", "without", "image")
_ALONE = "no question about its picture that has the other answer is left to pair it with"


@dataclass(frozen=True)
class Skipped:
    """A row that makes none, and why."""

    name: str
    reason: str
    detail: str = ""


def rows_as(
    sort: str, makes: Iterable[Makes], keep: Callable[[Picture], str]
) -> Iterator[Cells | Skipped]:
    """Yield rows of a table, every cell a text, and what was skipped.

    `keep` names a picture in the table; one that is held in memory it writes to a file.
    """
    made = _made(makes, keep)
    if sort == "rows":
        yield from _each_once(one for row in made for one in _singles(row))
    else:
        yield from _paired(made)


def _made(makes: Iterable[Makes], keep: Callable[[Picture], str]) -> Iterator[Cells | Skipped]:
    for name, make in makes:
        try:
            cells = make()
        except Unusable as why:
            yield Skipped(name, why.reason, why.detail)
            continue
        kept = {key: keep(cells[key]) for key in _PICTURES if key in cells}
        if "with" in kept and kept["with"] == kept.get("without"):
            yield Skipped(name, "both runs have one picture")
            continue
        yield {"name": name, **cells, **kept}


def _singles(row: Cells | Skipped) -> Iterator[Cells | Skipped]:
    """Take a pair apart: each run's picture, and its own right answer."""
    if isinstance(row, Skipped) or "image" in row:
        yield row if isinstance(row, Skipped) else _without(row, "region")
        return
    rest = _without(row, "with", "without", "region", "question_without")
    right = str(row["answers"]).split(",")
    choices = ",".join(sorted(right, key=in_order))  # in whichever run each is right
    for run, answer in zip(("with", "without"), right, strict=True):
        own = {"name": f"{row['name']}-{run}", "image": row[run], "answer": answer}
        yield {"group": row["name"], **rest, **own, "answers": choices}


def _each_once(rows: Iterable[Cells | Skipped]) -> Iterator[Cells | Skipped]:
    """Leave out a question that was asked of the same picture before, as an original often is."""
    asked: set[tuple[str, str, str]] = set()
    for row in rows:
        if not isinstance(row, Skipped):
            key = str(row["image"]), str(row["question"]), str(row.get("category", ""))
            if key in asked:
                continue
            asked.add(key)
        yield row


def _paired(rows: Iterable[Cells | Skipped]) -> Iterator[Cells | Skipped]:
    """Pair questions about one picture: a Yes with a No of as many words, as far as there is one.

    In the order of the rows, each Yes takes the No that is nearest in number of words, the first of
    equals; each is taken once, and within one category.
    """
    waiting: dict[tuple[str, str], list[Cells]] = {}
    for row in rows:
        if isinstance(row, Skipped):
            yield row
        elif "image" in row:
            place = str(row["image"]), str(row.get("category", row.get("split", "")))
            waiting.setdefault(place, []).append(row)
        else:
            yield _without(row, "group")
    for asked in waiting.values():
        yield from _couples(asked)


def _couples(asked: Sequence[Cells]) -> Iterator[Cells | Skipped]:
    left = [row for row in asked if row["answer"] == "No"]
    for row in (row for row in asked if row["answer"] == "Yes"):
        if not left:
            yield Skipped(row["name"], _ALONE)
            continue
        length = len(row["question"].split())
        other = min(left, key=lambda one: abs(len(one["question"].split()) - length))
        left.remove(other)
        own = _without(row, "image", "answer", "group")
        pictures = {"with": row["image"], "without": row["image"]}
        yield own | pictures | {"question_without": other["question"], "answers": "Yes,No"}
    for row in left:
        yield Skipped(row["name"], _ALONE)


def in_order(answer: str) -> tuple[bool, str]:
    """Sort Yes before No, and other answers by the alphabet."""
    return answer != "Yes", answer


def _without(row: Cells, *names: str) -> Cells:
    return {key: one for key, one in row.items() if key not in names}
