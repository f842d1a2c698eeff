"""The heads behind each token of an answer: where they look, and what they do to that token.

Both runs are made to say the same answer (teacher forcing). Token t is looked at from the position
before it, where the model has read the prompt and the tokens before t: that is the answer position
of this token. There every head's z is replaced by the other run's, one head at a time, and the
token's logit is watched. Kinds ``zero`` and ``mean`` put nothing, or a mean, in its place instead.

Over many pairs each says its own answer. Tokens of different answers are averaged where they stand
in the same slot, see `headpatch.questions.trace.token_alignment`.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, partial
from itertools import chain
from pathlib import Path
from typing import Any, overload

import pandas as pd

from headpatch.core.ask import ask, each_pair
from headpatch.core.baseline_runs import Survey
from headpatch.core.dataset import Pairs, closed
from headpatch.core.gate import sessions
from headpatch.core.mean_activations import mean_z
from headpatch.core.origin import origin
from headpatch.core.price import inexact
from headpatch.core.progress_bars import Progress
from headpatch.core.question import Call, Files, Needs, Opened, Question, Result
from headpatch.core.session import Session
from headpatch.core.store import Store
from headpatch.core.study import Study, alpha_of
from headpatch.core.teacher_forcing import Answer, given_answer, own_answers
from headpatch.engine.patching import OnProgress
from headpatch.errors import RunError
from headpatch.kinds import averages
from headpatch.present.head_columns import with_alpha
from headpatch.questions.trace import VERB, aligned_mean, token_effects
from headpatch.questions.trace.aligned_mean import SlotMean, mean_of
from headpatch.questions.trace.aligned_mean_activations import AlignedMeans, Said, Slots, average
from headpatch.questions.trace.columns import MEANS, TOKENS, TRACE
from headpatch.questions.trace.records import records
from headpatch.questions.trace.token_alignment import Slot, slots_of
from headpatch.questions.trace.token_effects import Token, tensors
from headpatch.questions.trace.token_runner import AnswerMeans, TokenRunner
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


class Trace(Question[Traced | TracedPairs]):
    """Changes every head at each token of a forced answer."""

    verb = VERB

    def needs(self, study: Study) -> Needs:
        """Say that heads are changed at the answer position."""
        return Needs("answer")

    def answer(self, opened: Opened, call: Call) -> Traced | TracedPairs:
        """Trace the study's answer, or answers, through every head of the language model.

        Raises
        ------
        InputError
            If the study's own answer cannot stand after a pair's prompt.
        RunError
            If a run made to say its own answer would not say it.
        """
        if isinstance(opened, Session):
            return _one(opened, call)
        assert isinstance(opened, Pairs)
        return _over_pairs(opened, call)


def _one(session: Session, call: Call) -> Traced:
    if words := inexact(session):
        call.say(words)
    options, stages = session.study.trace, call.stages
    with stages("Reading the answers"):
        own = own_answers(session, options.tokens)
        chosen = spoken(session, own)
    means: list[AnswerMeans | None] = [None] * len(chosen)
    if averages(options.kinds):
        with stages("Averaging reference pairs") as advance:
            means = [_means_of(session, answer, advance) for answer in chosen]
    total, tokens = sum(len(answer.ids) for answer in chosen), list[Token]()
    with stages("Changing heads, token by token") as advance:
        runner = TokenRunner(session.study, session.vlm, call.store, total, advance)
        for answer, known in zip(chosen, means, strict=True):
            names = runner.names(session.pair, answer, options.reference)
            tokens += runner.measured(lambda: session, answer, known, names)
    floor = max(token.floors[token.measure] for token in tokens)
    return Traced(session, tuple(tokens), own, origin=origin(VERB, session, floor))


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


def _means_of(session: Session, answer: Answer, on_progress: OnProgress) -> AnswerMeans:
    """Average z over both runs of each reference pair, made to say the same words as the pair.

    Token t is looked at from the position where the prompt and the answer's first t tokens have
    been read; so z is averaged at that position of the reference pairs' runs, after the question
    and the same t tokens. What is averaged away is the picture; the words stay.
    """
    words = answer.ids[:-1]
    means = mean_z(session, on_progress, session.study.trace.reference, words=words)["lm"]
    first = session.prompt.spans.answer
    return [[z[first + index].clone() for z in means] for index in range(len(answer.ids))]


def _over_pairs(pairs: Pairs, call: Call) -> TracedPairs:
    study, entries, stages = pairs.study, pairs.survey.entries, call.stages
    assert call.store is not None
    said: Said = each_pair(
        pairs,
        stages,
        "Reading the answers",
        lambda session: spoken(session, own_answers(session, study.trace.tokens)),
    )
    slots = [slots_of([chosen[source] for chosen in said]) for source in range(len(said[0]))]
    means = None
    if averages(study.trace.kinds):
        with stages("Averaging z over the pairs") as advance:
            means = average(study, pairs.vlm, entries, said, slots, advance)
    with stages("Changing heads, token by token") as advance:
        names = _measure(pairs, said, means, call.store, advance)
    averaged, total = list[SlotMean](), sum(map(len, slots))
    with stages("Averaging over the pairs") as advance:
        for slot in chain.from_iterable(slots):
            tokens = list(_read(call.store, slot, said, names, slots))
            of_pairs = [entries[pair].name for pair in slot.answers]
            averaged.append(mean_of(study, slot, tokens, of_pairs))
            advance(len(averaged), total)
    floor = max(slot_mean.floor for slot_mean in averaged)
    where = origin(VERB, pairs, floor)
    return TracedPairs(study, closed(pairs.survey), tuple(averaged), origin=where)


def _measure(
    pairs: Pairs, said: Said, means: AlignedMeans | None, store: Store, on_progress: OnProgress
) -> list[list[list[str]]]:
    """Measure every token that is not finished; pairs without any are not opened.

    Returns
    -------
    By pair and answer, the name under which each token is kept.
    """
    survey, vlm = pairs.survey, pairs.vlm
    study = pairs.study.model_copy(update={"force": True})  # the survey was the gate
    total = sum(len(answer.ids) for answers in said for answer in answers)
    runner = TokenRunner(study, vlm, store, total, on_progress)
    reference = None if means is None else means.name
    names = [
        [runner.names(entry.pair(), answer, reference) for answer in answers]
        for entry, answers in zip(survey.entries, said, strict=True)
    ]
    left = [
        entry
        for entry, own in zip(survey.entries, names, strict=True)
        if any(store.get(name) is None for name in chain.from_iterable(own))
    ]
    opened = sessions(study, vlm, left, pairs.positions, None, pairs.vision, survey.held)
    for pair, answers in enumerate(said):
        session = cache(partial(next, opened))  # asked of those that are left alone
        for source, answer in enumerate(answers):
            known = None if means is None else means.of(pair, source)
            for _ in runner.measured(session, answer, known, names[pair][source]):
                pass  # it is kept in the store
    return names


def _read(
    store: Store,
    slot: Slot,
    said: Said,
    names: Sequence[Sequence[Sequence[str]]],
    slots: Slots,
) -> Iterator[Token]:
    """Read back the tokens of a slot."""
    source = next(place for place, own in enumerate(slots) if slot in own)
    for pair in slot.answers:
        token = slot.tokens[pair]
        assert token is not None
        saved = store.get(names[pair][source][token])
        if saved is None:
            raise RunError(f"--out: a finished token has gone from {store.folder}")
        yield Token.from_saved(said[pair][source], token, saved)


QUESTION = Trace()


@overload
def trace(
    session: Session,
    on_progress: Progress = None,
    *,
    keep: str | Path | None = None,
    **options: Any,
) -> Traced: ...
@overload
def trace(
    session: Pairs, on_progress: Progress = None, *, keep: str | Path | None = None, **options: Any
) -> TracedPairs: ...
def trace(
    session: Session | Pairs,
    on_progress: Progress = None,
    *,
    keep: str | Path | None = None,
    **options: Any,
) -> Traced | TracedPairs:
    """Find the heads behind each token of the answer.

    Both runs are made to say the same answer; token by token, every head is changed.

    Parameters
    ----------
    session
        One pair, or many of `headpatch.open_pairs`. Over many, each says its own answer, and tokens
        are averaged that stand in the same slot of it.
    keep
        A folder for finished tokens, from which an interrupted call goes on.
    options
        Override `headpatch.Study.trace`: ``forced``, ``answer``, ``tokens``, ``kinds``,
        ``directions``, ``top``, ``noise``.

    Returns
    -------
    Traced or TracedPairs
        ``table()`` has the columns of ``trace.csv`` (over many pairs ``trace_mean.csv``);
        ``saved()`` holds tensors ``[tokens, layers, heads]``.

    Raises
    ------
    InputError
        If an option is wrong, or the answer cannot stand after the prompt.
    RunError
        If a run made to say its own answer would not say it.

    Examples
    --------
    >>> traced = hp.trace(session, tokens=2, directions=["noising"], noise=1)
    >>> [(one.text, one.rival) for one in traced.tokens][0]
    ('Yes', 'No')
    >>> len(traced.table())  # a row for each token × head
    2048
    """
    return ask(QUESTION, session, options, on_progress, keep)
