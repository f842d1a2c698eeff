"""How answers are scored: by their first token, by a text, by the objects that a text names.

POPE's reading of a text is that of its ``evaluate.py``; CHAIR's definitions are those of A.
Rohrbach et al., Object Hallucination in Image Captioning, EMNLP 2018: of all mentions of objects
the share that is of none that is there (CHAIR_i), and of all texts the share with such a mention
(CHAIR_s).
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeAlias

import numpy as np
from jaxtyping import Bool, Float

from headpatch.errors import InputError
from headpatch.pairs.labelled import Labelled
from headpatch.stats.behaviour import Metric, right_together, yes_no_metrics
from headpatch.stats.scenes import Scenes
from headpatch.text import spelling

Score: TypeAlias = Callable[[str, Mapping[str, Any]], float]
"""Scores a text, given its row: name, question, answer, choices, objects and further columns."""
Texts: TypeAlias = Sequence[Sequence[str]]
"""Of each row, what is said with nothing changed, then under each change."""
Values: TypeAlias = Float[np.ndarray, "changes rows"]
_ENDS: Final = " \t\r\n.,;:!?\"'"


@dataclass(frozen=True, eq=False)
class Scored:
    """What one way of scoring says of every row, without and under each change.

    `right` is 1 where a row is right, or its score; `yes` says which rows are answered by the first
    of two choices that all rows have; `mentions` are objects that a text names, and those of them
    that are not there. None where there is no such thing.
    """

    scoring: str
    right: Values | None = None
    yes: Bool[np.ndarray, "changes rows"] | None = None
    mentions: tuple[Values, Values] | None = None

    @property
    def tested(self) -> bool:
        """Whether rows are right or wrong, and nothing between."""
        return self.right is not None and bool(np.isin(self.right, (0, 1)).all())

    def metrics(self, rows: Sequence[Labelled], scenes: Scenes, of_pairs: bool) -> list[Metric]:
        """Return every metric of the rows."""
        found = list[Metric]()
        if self.right is not None:
            ones = np.ones(self.right.shape)
            name = "accuracy" if self.tested else "score"
            found.append(Metric(name, self.right, ones, scenes, bounded=self.tested))
        if self.yes is not None:
            found += yes_no_metrics(self.yes, positive(rows), scenes)
        if self.right is not None and self.tested:
            found += _together(self.right, rows, scenes, of_pairs)
        if self.mentions is not None:
            named, absent = self.mentions
            found.append(Metric("chair_i", absent, named, scenes))
            some = (absent > 0).astype(np.float64)
            found.append(Metric("chair_s", some, np.ones(some.shape), scenes))
        return found

    def of(self, kept: Bool[np.ndarray, " rows"]) -> "Scored":
        """Return what is said of some of the rows."""
        return Scored(
            self.scoring,
            None if self.right is None else self.right[:, kept],
            None if self.yes is None else self.yes[:, kept],
            None
            if self.mentions is None
            else (self.mentions[0][:, kept], self.mentions[1][:, kept]),
        )


def _together(
    right: Values, rows: Sequence[Labelled], scenes: Scenes, of_pairs: bool
) -> list[Metric]:
    """Return how often all rows are right of a pair, or of a group, a question or picture in it."""
    keys: dict[str, list[Any]] = {"paired_accuracy": [one.group for one in rows]}
    if not of_pairs:
        keys = {
            "question_accuracy": [(one.group, one.question) for one in rows],
            "image_accuracy": [(one.group, str(one.image)) for one in rows],
            "group_accuracy": [one.group for one in rows],
        }
    found = []
    for name, each in keys.items():
        numbers: dict[Any, int] = {}
        alone = (key if row.group else row.name for key, row in zip(each, rows, strict=True))
        groups = np.array([numbers.setdefault(key, len(numbers)) for key in alone])
        found.append(right_together(name, right, groups, scenes))
    return [one for one in found if one is not None]


def two_choices(rows: Sequence[Labelled]) -> tuple[str, ...]:
    """Return the two choices of all rows, if they all have the same two; the first counts as yes.

    Of Yes and No that is Yes, however a table orders them.
    """
    each = {tuple(map(spelling, one.choices)) for one in rows}
    (found, *others) = sorted(each) or [()]
    if others or len(found) != 2:
        return ()
    return ("yes", "no") if set(found) == {"yes", "no"} else found


def positive(rows: Sequence[Labelled]) -> Bool[np.ndarray, " rows"]:
    """Say of which rows yes is the right answer."""
    return np.array([spelling(one.answer) in (two_choices([one]) or ("yes",))[:1] for one in rows])


def by_word(said: Texts, rows: Sequence[Labelled]) -> Scored:
    """Score the likeliest first token; case and the space around it do not count."""
    words = [[spelling(text) for text in each] for each in said]
    right = np.array([[one == spelling(row.answer) for one in each]
                      for each, row in zip(words, rows, strict=True)]).T  # fmt: skip
    both = two_choices(rows)
    yes = np.array([[one == both[0] for one in each] for each in words]).T if both else None
    return Scored("word", right.astype(np.float64), yes)


def by_choice(likeliest: Sequence[Sequence[int]], rows: Sequence[Labelled]) -> Scored | None:
    """Score the likeliest of each row's choices, by its number; None unless all have some."""
    if not all(one.choices for one in rows):
        return None
    chosen = np.array(likeliest).T
    right = chosen == np.array([one.right for one in rows])
    both = two_choices(rows)
    yes = None
    if both:
        first = [[*map(spelling, one.choices)].index(both[0]) for one in rows]
        yes = chosen == np.array(first)
    return Scored("choice", right.astype(np.float64), yes)


def pope_answer(text: str) -> str:
    """Read a text as POPE does: no if its first sentence has the word No, no or not, else yes."""
    words = text.partition(".")[0].replace(",", "").split(" ")
    return "no" if {"No", "no", "not"} & {*words} else "yes"


def by_pope(said: Texts, rows: Sequence[Labelled]) -> Scored:
    """Score texts by POPE's reading; every answer must be Yes or No."""
    if wrong := [one for one in rows if spelling(one.answer) not in ("yes", "no")]:
        found = f"{wrong[0].name} wants {wrong[0].answer!r}"
        raise InputError("--score", f"pope, and row {found}", "rows answered by Yes or No")
    read = np.array([[pope_answer(text) for text in each] for each in said]).T
    right = read == np.array([spelling(one.answer) for one in rows])
    return Scored("pope", right.astype(np.float64), read == "yes")


def _folded(text: str) -> str:
    return " ".join(text.casefold().split()).strip(_ENDS)


def exact(text: str, row: Mapping[str, Any]) -> float:
    """Whether a text is the answer; case, space and marks at its ends do not count."""
    return float(_folded(text) == _folded(row["answer"]))


def contains(text: str, row: Mapping[str, Any]) -> float:
    """Whether the answer's words stand in a text, one after the other, in any case."""
    words = re.escape(_folded(row["answer"]))
    return float(re.search(rf"(?<!\w){words}(?!\w)", _folded(text)) is not None)


def by_function(score: Score, said: Texts, rows: Sequence[Labelled]) -> Scored:
    """Score texts by a function; a score that is no finite number is a ValueError."""
    name = getattr(score, "__name__", type(score).__name__)
    found = np.array(
        [[float(score(text, _facts(row))) for text in each]
         for each, row in zip(said, rows, strict=True)]
    ).T  # fmt: skip
    if not np.isfinite(found).all():
        raise ValueError(f"{name} gives scores that are no finite numbers")
    return Scored(name, found)


def _facts(row: Labelled) -> dict[str, Any]:
    own = ("name", "question", "answer", "choices", "group", "objects")
    return {**row.factors, **{key: getattr(row, key) for key in own}}


class Objects:
    """The names of objects, and what else each is called: a synonym table of CHAIR's form.

    A word counts in its regular plural, too; the longest name that fits is taken.
    """

    def __init__(self, lines: Sequence[str]) -> None:
        self._names: dict[str, str] = {}
        for line in lines:
            words = [" ".join(one.casefold().split()) for one in line.split(",")]
            for word in filter(None, words):
                self._names.setdefault(word, words[0])
        self._longest = max((len(word.split()) for word in self._names), default=0)

    @classmethod
    def read(cls, path: Path) -> "Objects":
        """Read a table, a line an object."""
        try:
            found = cls(path.read_text(encoding="utf-8-sig").splitlines())
        except (OSError, UnicodeDecodeError) as error:
            why = getattr(error, "strerror", None) or "not UTF-8"
            raise InputError("--synonyms", f"{path}: {why}", "a text file") from None
        if not found._names:
            raise InputError("--synonyms", f"{path} is empty", "a line an object")
        return found

    def name_of(self, words: str) -> str | None:
        """Return an object's name, given any of its names; None of anything else."""
        for end, other in (("", ""), ("s", ""), ("es", ""), ("ies", "y")):
            found = words.removesuffix(end) + other
            if words.endswith(end) and found in self._names:
                return self._names[found]
        return None

    def mentioned(self, text: str) -> list[str]:
        """Return the objects that a text names, each as often as it does."""
        words = re.findall(r"[^\W_]+(?:[-'’][^\W_]+)*", text.casefold())
        found, place = [], 0
        while place < len(words):
            for length in range(min(self._longest, len(words) - place), 0, -1):
                if name := self.name_of(" ".join(words[place : place + length])):
                    found.append(name)
                    place += length
                    break
            else:
                place += 1
        return found


def by_objects(table: Objects, said: Texts, rows: Sequence[Labelled]) -> Scored:
    """Count what texts name, and what of it is not there (see the module)."""
    if not any(one.objects for one in rows):
        expected = "a column objects: what is to be seen in each picture"
        raise InputError("--score", "chair, and rows without objects", expected)
    named, absent = np.zeros((2, len(said[0]), len(rows)))
    for place, (each, row) in enumerate(zip(said, rows, strict=True)):
        there = {table.name_of(" ".join(one.casefold().split())) or one for one in row.objects}
        for change, text in enumerate(each):
            found = table.mentioned(text)
            named[change, place] = len(found)
            absent[change, place] = sum(name not in there for name in found)
    return Scored("chair", mentions=(named, absent))
