"""What a trace found: of one pair by token, over pairs by slot."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pandas as pd

from headpatch.core.baseline_runs import Survey
from headpatch.core.question import Files, Result
from headpatch.core.session import Session
from headpatch.core.study import Study, alpha_of
from headpatch.core.teacher_forcing import Answer
from headpatch.present.head_columns import with_alpha
from headpatch.questions.trace import aligned_mean, token_effects
from headpatch.questions.trace.aligned_mean import SlotMean
from headpatch.questions.trace.columns import MEANS, TOKENS, TRACE
from headpatch.questions.trace.records import records
from headpatch.questions.trace.token_effects import Token, tensors
from headpatch.questions.trace.view import summary


@dataclass(frozen=True, eq=False)
class Traced(Result):
    """What `headpatch.trace` found of one pair.

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
    def summary(self) -> str:
        """Which heads move which token most, in a sentence."""
        return summary(self.summaries(), self.origin.context)

    def table(self) -> pd.DataFrame:
        """One row for each token × kind × direction × head: the columns of ``trace.csv``."""
        name = self.session.pair.name
        rows = [token_effects.rows(name, one, way) for one in self.tokens for way in one.effects]
        table = pd.concat(rows, ignore_index=True)
        return with_alpha(table, self.session.study.trace.alpha)

    def summaries(self) -> list[dict[str, Any]]:
        """Return a few figures of each token: its logits, first heads and correlations."""
        return records(token_effects.arrays(self.tokens), self.session.study.trace.top)

    def saved(self) -> dict[str, Any]:
        """Return what ``trace.pt`` holds; a tensor's first dimension is the tokens."""
        session = self.session
        with_answer, without_answer = (answer.text for answer in self.own)
        return tensors(token_effects.arrays(self.tokens)) | {
            "answer_with": with_answer,
            "answer_without": without_answer,
            "noise_floor": self.noise_floor,
            "valid": session.valid,
            "question": session.pair.question,
            "region_name": session.pair.region.name,
            **alpha_of(session.study.trace),
        }

    def files(self) -> Files:
        """Return the table and the tensors."""
        return {TRACE.file: self.table(), "trace.pt": self.saved()}

    def json(self) -> Mapping[str, Any]:
        """Return what ``--json`` prints of the tokens."""
        return {
            "noise_floor": self.noise_floor,
            "answers": {answer.source: answer.text for answer in self.own},
            "tokens": self.summaries(),
            "summary": self.summary,
        }


@dataclass(frozen=True, eq=False)
class TracedPairs(Result):
    """What `headpatch.trace` found over pairs.

    Attributes
    ----------
    slots
        Of every forced answer, in order.
    """

    study: Study
    survey: Survey
    slots: tuple[SlotMean, ...]

    @property
    def summary(self) -> str:
        """Which heads move which token most, in a sentence."""
        return summary(self.summaries(), self.origin.context)

    def table(self) -> pd.DataFrame:
        """One row for each slot × kind × direction × head: the columns of ``trace_mean.csv``."""
        rows = [aligned_mean.rows(slot, way) for slot in self.slots for way in slot.moves]
        return with_alpha(pd.concat(rows, ignore_index=True), self.study.trace.alpha)

    def said(self) -> pd.DataFrame:
        """One row for each pair × token: the columns of ``trace_tokens.csv``."""
        tokens = pd.concat([slot.said for slot in self.slots], ignore_index=True)
        places = {entry.name: place for place, entry in enumerate(self.survey.entries)}
        order = tokens["pair"].map(places)
        return tokens.loc[order.sort_values(kind="stable").index].reset_index(drop=True)

    def summaries(self) -> list[dict[str, Any]]:
        """Return a few figures of each slot: its logits, first heads and correlations."""
        made = records(self._arrays(), self.study.trace.top)
        for record, slot in zip(made, self.slots, strict=True):
            record["rivals"] = dict(slot.rivals)
        return made

    def saved(self) -> dict[str, Any]:
        """Return what ``trace.pt`` holds: what it holds of one pair, a slot in a token's place."""
        return tensors(self._arrays()) | {
            "level": self.study.pairs.level,
            "noise_floor": self.noise_floor,
            "valid": self.survey.valid,
            "question": self.survey.question,
            "region_name": self.survey.region_name,
            **alpha_of(self.study.trace),
        }

    def _arrays(self) -> dict[str, Any]:
        return aligned_mean.arrays(self.slots, [entry.name for entry in self.survey.entries])

    def files(self) -> Files:
        """Return the tables and the tensors."""
        return {MEANS.file: self.table(), TOKENS.file: self.said(), "trace.pt": self.saved()}

    def json(self) -> Mapping[str, Any]:
        """Return what ``--json`` prints of the slots."""
        return {
            "level": self.study.pairs.level,
            "noise_floor": self.noise_floor,
            "tokens": self.summaries(),
            "summary": self.summary,
        }
