"""The token ids of the two answers, found by tokenising them where they will stand."""

from dataclasses import dataclass
from typing import Any

from headpatch.errors import InputError


@dataclass(frozen=True)
class AnswerTokens:
    """The first token of each answer. LD = logit(yes) - logit(no)."""

    yes: int
    no: int


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
            pieces = tokenizer.convert_ids_to_tokens(ids[max(len(before) - 1, 0) :])
            raise InputError(
                "answers",
                f"{text.strip()!r} is not one token after the prompt (it gives {pieces})",
                "answers of one token each",
                "Set `answers` in the study, such as [Yes, No].",
            )
        found.append(added[0])
    if found[0] == found[1]:
        raise InputError(
            "answers",
            f"{continuations[0].strip()!r} and {continuations[1].strip()!r} are the same token",
            "two answers that differ in their first token",
        )
    return AnswerTokens(*found)
