"""Which tokens of different answers correspond: "a square in the top left" and "a ring in the top".

Answers of a dataset's pairs are mostly the same words, with another shape or place here and there.
They are laid side by side as sequences of tokens, so that every token gets a slot: tokens of one
slot have the same text, or stand in the same stretch between tokens that have.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from typing import TypeAlias

from headpatch.core.teacher_forcing import Answer, Source

Words: TypeAlias = Sequence[str]
_SHOWN = 3  # different tokens in a label
_Place: TypeAlias = tuple[int, int]
"""A token of the middle answer, and how many tokens after it that it does not have itself."""


@dataclass(frozen=True)
class Slot:
    """A place in the answers of a dataset's pairs.

    Attributes
    ----------
    source
        Whose answers they are.
    index
        Its place among the slots of these answers, from 0.
    tokens
        By answer: which of its tokens stands here; None if none does.
    texts
        How many answers have which token here, the most common first.
    """

    source: Source
    index: int
    tokens: tuple[int | None, ...]
    texts: Mapping[str, int]

    @property
    def answers(self) -> list[int]:
        """The answers that have a token here."""
        return [place for place, token in enumerate(self.tokens) if token is not None]


def listed(texts: Mapping[str, int]) -> str:
    """Write the first few of different tokens as a label: ``ring/square/cross/…``."""
    first = list(texts)[:_SHOWN]
    return "/".join(first + ["…"] * (len(texts) > _SHOWN))


def slots_of(answers: Sequence[Answer]) -> tuple[Slot, ...]:
    """Return the slots of answers of one source, in the order of the text."""
    words = [answer.words for answer in answers]
    found = []
    for index, tokens in enumerate(align(words)):
        texts = Counter(
            one[token] for one, token in zip(words, tokens, strict=True) if token is not None
        )
        found.append(Slot(answers[0].source, index, tokens, dict(texts.most_common())))
    return tuple(found)


def align(answers: Sequence[Words]) -> list[tuple[int | None, ...]]:
    """Lay answers side by side.

    Each is compared with the one that is most like all of them, by Ratcliff and Obershelp's
    matching blocks (`difflib.SequenceMatcher`). In a stretch where the two differ, the first token
    stands for the first, the second for the second; what an answer has more there gets slots of its
    own, which it shares with others that have more at the same place.

    Returns
    -------
    For each slot, in order, the index of each answer's token; None where it has none.

    Examples
    --------
    >>> align([["a", "ring", "here"], ["a", "big", "box", "here"], ["a", "ring"]])
    [(0, 0, 0), (1, 1, 1), (None, 2, None), (2, 3, None)]
    """
    middle = _middle(answers)
    places = [_places(middle, answer) for answer in answers]
    slots = sorted(set().union(*places))
    return [tuple(one.get(slot) for one in places) for slot in slots]


def _middle(answers: Sequence[Words]) -> Words:
    """The answer that is most like all of them; the first of those that are equally so."""
    counts = Counter(map(tuple, answers))
    matcher: SequenceMatcher[str] = SequenceMatcher(autojunk=False)
    likeness = {}
    for middle in counts:
        matcher.set_seq2(middle)
        likeness[middle] = 0.0
        for answer, count in counts.items():
            matcher.set_seq1(answer)
            likeness[middle] += count * matcher.ratio()
    return max(counts, key=lambda answer: likeness[answer])


def _places(middle: Words, answer: Words) -> dict[_Place, int]:
    """Return the place of each token of an answer, ascending."""
    found = {}
    matcher = SequenceMatcher(None, middle, answer, autojunk=False)
    for _, first, end, start, stop in matcher.get_opcodes():
        for token in range(start, stop):
            place = first + token - start
            found[(place, 0) if place < end else (end - 1, place - end + 1)] = token
    return found
