"""Where the image, the question and the answer sit among the prompt's tokens."""

from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Int
from torch import Tensor

from headpatch.errors import InputError

Positions = Literal["answer", "question", "image", "all"]


@dataclass(frozen=True, eq=False)
class Spans:
    """Positions in the prompt, found from the token ids."""

    length: int  # number of prompt tokens
    image: Int[Tensor, " image"]  # positions of the image tokens
    # whether they are marks without content, the image coming in by cross-attention
    crossed: bool = False
    both_ways: bool = False  # whether every token sees all others, later ones too

    @property
    def answer(self) -> int:
        """The last prompt token, whose logits give the first answer token."""
        return self.length - 1

    @property
    def question(self) -> Int[Tensor, " question"]:
        """Every token after the image, the answer position included."""
        return torch.arange(int(self.image.max()) + 1, self.length)

    def positions(self, scope: Positions) -> Int[Tensor, " positions"]:
        """Return the positions of `scope`, ascending; an `InputError` if there are none."""
        if scope == "answer":
            return torch.tensor([self.answer])
        if scope == "all":
            return torch.arange(self.length)
        found = self.image if scope == "image" else self.question
        if len(found) == 0 or (scope == "image" and self.crossed):
            raise InputError("--positions", f"{scope}: the prompt has none", "another scope")
        return found


def find_spans(
    input_ids: Int[Tensor, " tokens"],
    image_token_id: int,
    crossed: bool = False,
    both_ways: bool = False,
) -> Spans:
    """Find the spans of one prompt; one without an image token is an `InputError`."""
    image = (input_ids == image_token_id).nonzero().flatten()
    if len(image) == 0:
        expected = "a vision-language model and a prompt with its image token"
        raise InputError("--model", "its prompt holds no image token", expected)
    return Spans(len(input_ids), image, crossed, both_ways)


def partners(
    own: Int[Tensor, " tokens"], other: Int[Tensor, " other_tokens"]
) -> Int[Tensor, " tokens"]:
    """Return the place of each token of a prompt in another one; -1 if it has none there.

    Prompts that differ in the middle, perhaps in its length, are aligned by the tokens with which
    both begin and those with which both end: their last tokens always are each other's.
    """
    least = min(len(own), len(other))
    begin = min(int((own[:least] == other[:least]).long().cumprod(0).sum()), least - 1)
    end = int((own.flip(0)[:least] == other.flip(0)[:least]).long().cumprod(0).sum())
    end = max(min(end, least - begin), 1)
    found = torch.arange(len(own))
    found[begin : len(own) - end] = -1
    found[len(own) - end :] += len(other) - len(own)
    return found
