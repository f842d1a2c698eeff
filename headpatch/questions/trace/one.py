"""The heads behind each token of an answer: where they look, and what they do to that token.

Both runs are made to say the same answer (teacher forcing). Token t is looked at from the position
before it, where the model has read the prompt and the tokens before t: that is the answer position
of this token. There every head's z is replaced by the other run's, one head at a time, and the
token's logit is watched. Kinds ``zero`` and ``mean`` put nothing, or a mean, in its place instead.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import pandas as pd
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from headpatch.core.mean_activations import mean_z
from headpatch.core.progress import Stages, reporting
from headpatch.core.ranking import MASSES
from headpatch.core.session import Session
from headpatch.core.store import Store
from headpatch.core.study import alpha_of
from headpatch.engine.patching import WITH, WITHOUT, OnProgress
from headpatch.kinds import averages
from headpatch.present.head_columns import with_alpha
from headpatch.questions.trace.answer_token import MEASURES, Token, rows, summary
from headpatch.questions.trace.forced import Answer, given_answer, own_answers
from headpatch.questions.trace.token_runner import AnswerMeans, TokenRunner

Saved: TypeAlias = dict[str, Any]
"""Plain tensors, numbers and texts, as a ``.pt`` file holds them."""


@dataclass(frozen=True, eq=False)
class Traced:
    """What `trace` found.

    Attributes
    ----------
    tokens
        Of every forced answer, in order.
    own
        What each run says by itself: with, without.
    """

    session: Session
    tokens: tuple[Token, ...]
    own: tuple[Answer, Answer]

    @property
    def noise_floor(self) -> float:
        """Largest effect on any token's contrast or logit of patching a head with its own z."""
        return max(one.floors[one.measure] for one in self.tokens)

    def table(self) -> pd.DataFrame:
        """One row for each token × kind × direction × head: the columns of ``trace.csv``."""
        table = pd.concat(
            [rows(self.session.pair.name, one, way) for one in self.tokens for way in one.effects],
            ignore_index=True,
        )
        return with_alpha(table, self.session.study.trace.alpha)

    def summaries(self) -> list[dict[str, Any]]:
        """Return a few figures of each token: its logits, first heads and correlations."""
        return [summary(one, self.session.study.trace.top) for one in self.tokens]

    def saved(self) -> Saved:
        """Return what ``trace.pt`` holds; a tensor's first dimension is the tokens."""
        tokens = self.tokens
        found: Saved = {
            "tokens": [one.text for one in tokens],
            "token_ids": torch.tensor([one.answer.ids[one.index] for one in tokens]),
            "index": torch.tensor([one.index for one in tokens]),
            "forced": [one.answer.source for one in tokens],
            "rivals": [one.rival for one in tokens],
            "measures": [one.measure for one in tokens],
            "says_with": [one.says[WITH] for one in tokens],
            "says_without": [one.says[WITHOUT] for one in tokens],
        }
        for name in MEASURES:
            runs = stacked([one.measured[name] for one in tokens])
            found[f"{name}_with"], found[f"{name}_without"] = runs.unbind(1)
            found[f"{name}_floor"] = torch.tensor([one.floors[name] for one in tokens])
        for name in MASSES:
            found[name] = stacked([one.attention[name] for one in tokens])
        for name in MEASURES:
            found[f"effect_{name}"] = {
                "_".join(way): stacked([one.effects[way][name] for one in tokens])
                for way in tokens[0].effects
            }
        session = self.session
        return found | {
            "answer_with": self.own[WITH].text,
            "answer_without": self.own[WITHOUT].text,
            "noise_floor": self.noise_floor,
            "valid": session.valid,
            "question": session.pair.question,
            "region_name": session.pair.region.name,
            **alpha_of(session.study.trace),
        }


def stacked(values: Sequence[ArrayLike]) -> Tensor:
    """Return arrays of one shape as one float32 tensor, along a new first dimension."""
    return torch.tensor(np.stack([np.asarray(one) for one in values])).float()


def trace(session: Session, stages: Stages | None = None, store: Store | None = None) -> Traced:
    """Trace the study's answer, or answers, through every head of the language model.

    Parameters
    ----------
    session
        Opened with positions ``answer``.
    store
        Where finished tokens are kept; those that are there are not run again.

    Raises
    ------
    InputError
        If the study's own answer cannot stand after the prompt.
    RunError
        If a run made to say its own answer would not say it.
    """
    stages, options = stages or reporting(None), session.study.trace
    with stages("Reading the answers"):
        own = own_answers(session, options.tokens)
        chosen = spoken(session, own)
    means: list[AnswerMeans | None] = [None] * len(chosen)
    if averages(options.kinds):
        with stages("Averaging reference pairs") as advance:
            means = [means_of(session, answer, advance) for answer in chosen]
    total, found = sum(len(answer.ids) for answer in chosen), list[Token]()
    with stages("Changing heads, token by token") as advance:
        runner = TokenRunner(session.study, session.vlm, store, total, advance)
        for answer, known in zip(chosen, means, strict=True):
            names = (
                runner.names(session.pair, answer, options.reference) if store is not None else []
            )
            found += runner.measured(lambda: session, answer, known, names)
    return Traced(session, tuple(found), own)


def spoken(session: Session, own: tuple[Answer, Answer]) -> tuple[Answer, ...]:
    """Return the answers that both runs are made to say, by what each says itself.

    Raises
    ------
    InputError
        If the study's own answer cannot stand after the prompt.
    """
    options = session.study.trace
    if options.answer is not None:
        return (given_answer(session, options.answer, options.tokens),)
    return {"with": own[:1], "without": own[1:], "both": own}[options.forced]


def means_of(
    session: Session, answer: Answer, on_progress: OnProgress | None = None
) -> AnswerMeans:
    """Average z over both runs of each reference pair, made to say the same words as the pair.

    Token t is looked at from the position where the prompt and the answer's first t tokens have
    been read; so z is averaged at that position of the reference pairs' runs, after the question
    and the same t tokens. What is averaged away is the picture; the words stay.
    """
    words = answer.ids[:-1]
    found = mean_z(session, on_progress, session.study.trace.reference, words=words)["lm"]
    first = session.prompt.spans.answer
    return [[z[first + index].clone() for z in found] for index in range(len(answer.ids))]
