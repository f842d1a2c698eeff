"""Which tokens of different answers correspond: "a square in the top left" and "a ring in the top".

Answers of a dataset's pairs are mostly the same words, with another shape or place here and there.
They are laid side by side as sequences of tokens, so that every token gets a slot: tokens of one
slot have the same text, or stand in the same stretch between tokens that have. Kind ``mean`` puts
mean z at a slot in a head's place there.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from typing import TypeAlias

import torch
from torch import Tensor

from headpatch.core.dataset import Pairs
from headpatch.core.mean_activations import last_of
from headpatch.core.pair_units import Keys, each_unit
from headpatch.core.question import Call
from headpatch.core.teacher_forcing import Answer, Source
from headpatch.engine.forward import Keep, forward
from headpatch.engine.patching import OnProgress
from headpatch.models.prompt import encode, forced
from headpatch.pairs.manifest import Entry
from headpatch.pairs.pair import Pair
from headpatch.questions.trace.token_runner import AnswerMeans

Words: TypeAlias = Sequence[str]
Said: TypeAlias = Sequence[tuple[Answer, ...]]
"""What each pair's runs are made to say: an answer, or both runs' own in turn."""
_SHOWN = 3  # different tokens in a label


@dataclass(frozen=True)
class Slot:
    """A place in the answers of a dataset's pairs."""

    source: Source
    index: int  # among the slots of these answers, from 0
    tokens: tuple[int | None, ...]  # by answer: which of its tokens stands here, if one does
    texts: Mapping[str, int]  # how many answers have which token here, the most common first

    @property
    def answers(self) -> list[int]:
        """The answers that have a token here."""
        return [place for place, token in enumerate(self.tokens) if token is not None]


Slots: TypeAlias = Sequence[Sequence[Slot]]
"""The slots of each of these answers."""


def listed(texts: Mapping[str, int]) -> str:
    """Write the first few of different tokens as a label: ``ring/square/cross/…``."""
    first = list(texts)[:_SHOWN]
    return "/".join(first + ["…"] * (len(texts) > _SHOWN))


def slots_of(answers: Sequence[Answer]) -> tuple[Slot, ...]:
    """Return the slots of answers of one source, in the order of the text."""
    words, slots = [answer.words for answer in answers], []
    for index, tokens in enumerate(align(words)):
        texts = Counter(
            one[token] for one, token in zip(words, tokens, strict=True) if token is not None
        )
        slots.append(Slot(answers[0].source, index, tokens, dict(texts.most_common())))
    return tuple(slots)


def align(answers: Sequence[Words]) -> list[tuple[int | None, ...]]:
    """Lay answers side by side: for each slot, in order, the index of each answer's token, if any.

    Each is compared with the one that is most like all of them, by Ratcliff and Obershelp's
    matching blocks (`difflib.SequenceMatcher`). In a stretch where the two differ, the first token
    stands for the first, the second for the second; what an answer has more there gets slots of its
    own, which it shares with others that have more at the same place.

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


def _places(middle: Words, answer: Words) -> dict[tuple[int, int], int]:
    """Return each token of an answer by its place, ascending.

    A place is a token of the middle answer, and how many tokens after it that it does not have.
    """
    tokens = {}
    matcher = SequenceMatcher(None, middle, answer, autojunk=False)
    for _, first, end, start, stop in matcher.get_opcodes():
        for token in range(start, stop):
            place = first + token - start
            tokens[(place, 0) if place < end else (end - 1, place - end + 1)] = token
    return tokens


@dataclass(frozen=True, eq=False)
class AlignedMeans:
    """Mean z over both runs of the pairs that have a token in a slot.

    Each pair is asked its own question and has said its own answer up to there: what varies between
    pairs, the picture and the words, is averaged away.
    """

    slots: Slots
    name: list[str]  # of all that they depend on
    means: Sequence[Sequence[Sequence[Tensor]]]  # by answer, slot and layer: [heads, head_dim]

    def of(self, pair: int, source: int) -> AnswerMeans:
        """Return the means of the slots of one of a pair's answers, in the order of its tokens."""
        own = zip(self.slots[source], self.means[source], strict=True)
        return [layers for slot, layers in own if slot.tokens[pair] is not None]


def average(
    pairs: Pairs, call: Call, said: Said, slots: Slots, on_progress: OnProgress
) -> AlignedMeans:
    """Run every pair, made to say its answers, and average z."""
    study, vlm, entries = pairs.study, pairs.vlm, pairs.entries
    answers = {entry.name: own for entry, own in zip(entries, said, strict=True)}

    def measure(pair: Pair, _: OnProgress) -> list[list[list[Tensor]]]:
        """Return z added up over both runs: of each answer, each of its tokens and each layer."""
        spelled = pair.answers or study.answers
        prompt = encode(vlm, pair.images, pair.questions, spelled, study.framing)
        made = list[list[list[Tensor]]]()
        for answer in answers[pair.name]:
            words = forced(vlm, prompt, answer.ids[:-1])
            layers = forward(vlm, words, keep=Keep(z=("lm",)), exact=True).z["lm"]
            last = [last_of(z, words, len(answer.ids)) for z in layers]
            tokens = range(len(answer.ids))
            made.append([[z[:, token].float().sum(0) for z in last] for token in tokens])
        return made

    keys = pairs.survey.keys or Keys(vlm)
    name = keys.of(study, entries, {}, [[answer.ids for answer in own] for own in said])
    summed = each_unit(
        entries, Entry.pair, "Averaging z over the pairs",
        lambda: keys.of(study, entries, {"done": "z of answers"}, name), measure, on_progress,
        store=call.store, share=pairs.share, count=0,
    )  # fmt: skip
    sums: list[list[list[Tensor]]] = [[[] for _ in own] for own in slots]
    for place, of_pair in enumerate(summed):
        for source, own in enumerate(slots):
            for slot in own:
                if (token := slot.tokens[place]) is not None:
                    new = of_pair[source][token]
                    known = sums[source][slot.index] or [torch.zeros_like(z) for z in new]
                    both = zip(known, new, strict=True)
                    sums[source][slot.index] = [total + z.to(total.device) for total, z in both]
    means = [
        [[z / (2 * len(slot.answers)) for z in summed] for slot, summed in zip(*both, strict=True)]
        for both in zip(slots, sums, strict=True)
    ]
    return AlignedMeans(slots, name, means)
