"""The token ids of the two answers, found by tokenising them where they will stand."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import takewhile
from typing import Any

from headpatch.errors import InputError


@dataclass(frozen=True)
class AnswerTokens:
    """The first token of each answer. LD = logit(yes) - logit(no)."""

    yes: int
    no: int


def text_after(tokenizer: Any, last: int, ids: Sequence[int]) -> str:
    """Return the text of tokens, special ones too, as it stands after token `last`.

    A tokenizer that decodes tokens by themselves leaves out the space before the first.
    """
    start, whole = (
        tokenizer.decode(one, skip_special_tokens=False, clean_up_tokenization_spaces=False)
        for one in ([last], [last, *ids])
    )
    text: str = whole.removeprefix(start)
    return text or f"<token {' '.join(map(str, ids))}>"  # beyond the tokenizer's own


def find_answers(tokenizer: Any, prompt: str, continuations: tuple[str, str]) -> AnswerTokens:
    """Find the two ids in context.

    Parameters
    ----------
    tokenizer
        A transformers tokenizer.
    prompt
        The text up to the answer.
    continuations
        What follows it for yes and for no, leading space included, such as ``(" Yes", " No")``.

    Raises
    ------
    InputError
        If an answer is not exactly one token after the prompt's own tokens, or both are the same
        token.
    """
    before: list[int] = tokenizer(prompt, add_special_tokens=False)["input_ids"]
    found = []
    for text in continuations:
        ids: list[int] = tokenizer(prompt + text, add_special_tokens=False)["input_ids"]
        added = ids[len(before) :]
        if ids[: len(before)] != before or len(added) != 1:
            raise _not_one_token(tokenizer, prompt, text, before, ids)
        found.append(added[0])
    if found[0] == found[1]:
        raise InputError(
            "answers",
            f"{continuations[0].strip()!r} and {continuations[1].strip()!r} are the same token",
            "two answers that differ in their first token",
        )
    return AnswerTokens(*found)


def _not_one_token(
    tokenizer: Any, prompt: str, text: str, before: list[int], ids: list[int]
) -> InputError:
    """Say what the answer gives instead, or that the prompt's end joins it."""
    what = f"{text.strip()!r} is not one token after the prompt"
    alike = sum(
        1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(before, ids, strict=False))
    )
    if alike == len(before):
        pieces = tokenizer.convert_ids_to_tokens(ids[max(len(before) - 1, 0) :])
        return InputError(
            "answers",
            f"{what} (it gives {pieces})",
            "answers of one token each",
            "Set `answers` in the study, such as [Yes, No].",
        )
    end, joined = (tokenizer.convert_ids_to_tokens(one[alike:]) for one in (before, ids))
    last = "space" if prompt.endswith(" ") else f"token {' '.join(end)!r}"
    return InputError(
        "answers",
        f"{what}: the prompt's last {last} joins it (together they are {' '.join(joined)!r})",
        "a prompt that ends where the answer's token starts",
        f"Take the {last} from the end of the chat template, or of `prompt` in the study.",
    )
