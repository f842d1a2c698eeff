"""Mean z at each slot of a dataset's answers: what kind ``mean`` puts in a head's place there."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

import torch
from torch import Tensor

from headpatch.core.store import unit_key
from headpatch.core.study import Study
from headpatch.core.teacher_forcing import Answer
from headpatch.engine.forward import Keep, forward
from headpatch.engine.patching import OnProgress
from headpatch.models.prompt import encode, forced
from headpatch.models.vlm import VLM
from headpatch.pairs.manifest import Entry
from headpatch.questions.trace.token_alignment import Slot
from headpatch.questions.trace.token_runner import AnswerMeans

Said: TypeAlias = Sequence[tuple[Answer, ...]]
"""What each pair's runs are made to say: an answer, or both runs' own in turn."""
Slots: TypeAlias = Sequence[Sequence[Slot]]
"""The slots of each of these answers."""


@dataclass(frozen=True, eq=False)
class AlignedMeans:
    """Mean z over both runs of the pairs that have a token in a slot.

    Each pair is asked its own question and has said its own answer up to there: what varies between
    pairs, the picture and the words, is averaged away.

    Attributes
    ----------
    name
        Names all that the means depend on, beside the study's prompt.
    means
        By answer, slot and layer: ``[heads, head_dim]``.
    """

    slots: Slots
    name: list[tuple[str, list[tuple[int, ...]]]]
    means: Sequence[Sequence[Sequence[Tensor]]]

    def of(self, pair: int, source: int) -> AnswerMeans:
        """Return the means of the slots of one of a pair's answers, in the order of its tokens."""
        own = zip(self.slots[source], self.means[source], strict=True)
        return [layers for slot, layers in own if slot.tokens[pair] is not None]


def average(
    study: Study,
    vlm: VLM,
    entries: Sequence[Entry],
    said: Said,
    slots: Slots,
    on_progress: OnProgress,
) -> AlignedMeans:
    """Run every pair, made to say its answers, and average z."""
    name = []
    sums: list[list[list[Tensor]]] = [[[] for _ in own] for own in slots]
    for place, entry in enumerate(entries):
        pair, answers = entry.pair(), said[place]
        name.append((unit_key(study, vlm, pair, {}), [answer.ids for answer in answers]))
        pictures = [pair.with_image, pair.without_image]
        prompt = encode(vlm, pictures, pair.question, study.answers, study.prompt)
        first = prompt.spans.answer
        for source, answer in enumerate(answers):
            words = forced(vlm, prompt, answer.ids[:-1])
            layers = forward(vlm, words, keep=Keep(z=("lm",)), exact=True).z["lm"]
            for slot in slots[source]:
                if (token := slot.tokens[place]) is not None:
                    here = [z[:, first + token].float().sum(0) for z in layers]
                    known = sums[source][slot.index] or [torch.zeros_like(z) for z in here]
                    sums[source][slot.index] = [a + b for a, b in zip(known, here, strict=True)]
        on_progress(place + 1, len(entries))
    means = [
        [
            [z / (2 * len(slot.answers)) for z in layers]
            for slot, layers in zip(own, summed, strict=True)
        ]
        for own, summed in zip(slots, sums, strict=True)
    ]
    return AlignedMeans(slots, name, means)
