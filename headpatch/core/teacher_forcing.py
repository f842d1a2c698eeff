"""The answer that both runs are made to say, token by token."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch

from headpatch.core.session import Session
from headpatch.engine.answers import TokenRuns, answer_ids, decode
from headpatch.engine.patching import WITH, WITHOUT
from headpatch.errors import InputError, RunError
from headpatch.models.prompt import spell

Source = Literal["with", "without", "text"]
_TIE = {True: 1e-3, False: 0.5}  # logits, in float32 or not, by which two passes may disagree


@dataclass(frozen=True)
class Answer:
    """Words that both runs are made to say; `source` is the run whose own they are, or ``text``."""

    source: Source
    ids: tuple[int, ...]  # without special tokens
    words: tuple[str, ...]  # the same as text, one a token
    text: str

    @property
    def run(self) -> int | None:
        """The run whose own answer it is."""
        return {"with": WITH, "without": WITHOUT}.get(self.source)


def own_answers(session: Session, tokens: int, needed: bool = True) -> tuple[Answer, Answer]:
    """Return what each run says by itself, at most so many tokens; where needed, not nothing."""
    present, absent = answer_ids(session.vlm, session.prompt, tokens)
    if needed and not (present and absent):
        raise RunError(f"{session.vlm.name} ends its answer before it says anything")
    return _answer(session, "with", present), _answer(session, "without", absent)


def given_answer(session: Session, text: str, tokens: int) -> Answer:
    """Return an answer that was written out; one that cannot stand after the prompt is an error."""
    ids = spell(session.vlm, session.prompt, session.study.answers, text)
    return _answer(session, "text", ids[:tokens])


def _answer(session: Session, source: Source, ids: Sequence[int]) -> Answer:
    words = tuple(word(session, token) for token in ids)
    return Answer(source, tuple(ids), words, decode(session.vlm, list(ids)))


def word(session: Session, token: int) -> str:
    """Return a token as text; what is no text, as the tokenizer names it."""
    name = session.vlm.processor.tokenizer.convert_ids_to_tokens(token)
    return decode(session.vlm, [token]) or str(name)


def check_said(session: Session, answer: Answer, index: int, said: TokenRuns) -> None:
    """Refuse a family whose forced answer is not read as its own was when it was generated.

    A forced run would have said something else.
    """
    if answer.run is None:
        return
    logits = said.base.trace.logits[answer.run]
    behind = float(logits.max() - logits[said.token])
    if behind > _TIE[session.vlm.dtype == torch.float32]:
        raise RunError(
            f"made to say its own answer, {session.vlm.name} would not go on with "
            f"{answer.words[index]!r} ({behind:.2g} logits behind): this family reads an answer "
            "after its prompt otherwise than while it speaks"
        )


def check_token(answer: Answer, token: int) -> None:
    """Refuse a place that the answer does not have."""
    if token >= len(answer.ids):
        expected = f"0-{len(answer.ids) - 1}: the answer is {answer.text!r}"
        raise InputError("--token", str(token), expected)
