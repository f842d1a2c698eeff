"""The heads behind each token of an answer: where they look, and what they do to that token.

Both runs are made to say the same answer (teacher forcing). Token t is looked at from the answer
position of its own: the one before it, where the model has read the prompt and the tokens before t.
"""

from collections.abc import Sequence
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import Unpack, overload

from headpatch.core.ask import ask, origin
from headpatch.core.cost import inexact
from headpatch.core.dataset import Pairs, closed
from headpatch.core.mean_activations import mean_z
from headpatch.core.over_pairs import each_pair
from headpatch.core.pair_units import each_unit
from headpatch.core.progress import Progress
from headpatch.core.question import Call, Needs, Opened, Question
from headpatch.core.session import Session
from headpatch.core.store import Store, store_in
from headpatch.core.study.keywords import TraceKeywords
from headpatch.core.study.study import Study
from headpatch.core.teacher_forcing import Answer, given_answer, own_answers
from headpatch.engine.patching import OnProgress
from headpatch.errors import RunError
from headpatch.kinds import averages
from headpatch.questions.trace import VERB
from headpatch.questions.trace.aligned_mean import SlotMean, mean_of
from headpatch.questions.trace.results import Traced, TracedPairs
from headpatch.questions.trace.token_alignment import AlignedMeans, Said, average, slots_of
from headpatch.questions.trace.token_runner import (
    CHANGING,
    AnswerMeans,
    Token,
    TokenRunner,
    price,
)


class Trace(Question[Traced | TracedPairs]):
    """Changes every head at each token of a forced answer."""

    verb = VERB

    def needs(self, study: Study) -> Needs:
        """Say that heads are changed at the answer position."""
        return Needs("answer")

    def answer(self, opened: Opened, call: Call) -> Traced | TracedPairs:
        """Trace the study's answer, or answers, through every head of the language model."""
        if isinstance(opened, Session):
            return _one(opened, call)
        assert isinstance(opened, Pairs)
        if call.store is not None:
            return _over_pairs(opened, call, call.store)
        with store_in(None, VERB.finished, VERB.name) as store:  # tokens are read slot by slot
            return _over_pairs(opened, replace(call, store=store), store)


def _one(session: Session, call: Call) -> Traced:
    if words := inexact(session):
        call.say(words)
    options, stages = session.study.trace, call.stages
    with stages("Reading the answers"):
        own, chosen = _spoken(session)
    total, tokens = sum(len(answer.ids) for answer in chosen), list[Token]()
    call.announce([price(session.study, session.vlm, session.pair, total)], 1)
    means: list[AnswerMeans | None] = [None] * len(chosen)
    if averages(options.kinds):
        with stages("Averaging reference pairs") as advance:
            means = [_means_of(session, answer, advance) for answer in chosen]
    with stages(CHANGING) as advance:
        runner = TokenRunner(session.study, session.vlm, call.store, total, advance)
        for answer, mean in zip(chosen, means, strict=True):
            names = runner.names(session.pair, answer, options.reference)
            tokens += runner.measured(lambda: session, answer, mean, names)
    floor = max(token.floor for token in tokens)
    return Traced(session, tuple(tokens), own, origin=origin(VERB, session, floor))


def _spoken(session: Session) -> tuple[tuple[Answer, Answer], tuple[Answer, ...]]:
    """Return what each run says itself, and the answers that both are made to say."""
    options = session.study.trace
    own = own_answers(session, options.tokens, needed=options.answer is None)
    if options.answer is not None:
        return own, (given_answer(session, options.answer, options.tokens),)
    return own, {"with": own[:1], "without": own[1:], "both": own}[options.forced]


def _means_of(session: Session, answer: Answer, on_progress: OnProgress) -> AnswerMeans:
    """Average z over both runs of each reference pair, made to say the same words as the pair.

    Token t is looked at from the position where the prompt and the answer's first t tokens have
    been read; so z is averaged at that position of the reference pairs' runs, after the question
    and the same t tokens. What is averaged away is the picture; the words stay.
    """
    words = answer.ids[:-1]
    count = len(answer.ids)
    asked = session.study.trace.reference
    means = mean_z(session, on_progress, asked, words=words, last=count)["lm"]
    return [[z[index - count].clone() for z in means] for index in range(count)]


def _over_pairs(pairs: Pairs, call: Call, store: Store) -> TracedPairs:
    study, entries, stages = pairs.study, pairs.entries, call.stages
    what = "Reading the answers"
    with stages(what) as advance:
        said: Said = list(
            each_pair(
                pairs, call, what, lambda session, _: _spoken(session)[1], advance,
                sections=("trace",), count=0,
            )
        )  # fmt: skip
    slots = [slots_of([chosen[source] for chosen in said]) for source in range(len(said[0]))]
    count = sum(len(answer.ids) for answers in said for answer in answers)
    call.announce([price(study, pairs.vlm, entries, count)], len(entries))
    means = None
    if averages(study.trace.kinds):
        with stages("Averaging z over the pairs") as advance:
            means = average(pairs, call, said, slots, advance)
    with stages(CHANGING) as advance:
        names = _measure(pairs, call, said, means, count, advance)
    averaged, total = list[SlotMean](), sum(map(len, slots))
    with stages("Averaging over the pairs") as advance:
        for source, slot in ((place, slot) for place, own in enumerate(slots) for slot in own):
            tokens = [
                _read(store, said[pair][source], slot.tokens[pair], names[pair][source])
                for pair in slot.answers
            ]
            of_pairs = [entries[pair].name for pair in slot.answers]
            scenes = pairs.survey.scenes[list(slot.answers)]
            averaged.append(mean_of(study, slot, tokens, of_pairs, scenes))
            advance(len(averaged), total)
    floor = max(slot_mean.floor for slot_mean in averaged)
    where = origin(VERB, pairs, floor)
    return TracedPairs(closed(pairs.survey), tuple(averaged), origin=where)


def _measure(
    pairs: Pairs,
    call: Call,
    said: Said,
    means: AlignedMeans | None,
    total: int,
    on_progress: OnProgress,
) -> list[list[list[str]]]:
    """Measure every token, of `total`, that is not finished; pairs without any are not opened.

    Return, by pair and answer, the name under which each token is kept.
    """
    survey, vlm, entries, store = pairs.survey, pairs.vlm, pairs.entries, call.store
    assert store is not None
    runner = TokenRunner(pairs.study, vlm, store, total, on_progress)
    reference = None if means is None else means.name
    names = [
        [runner.names(survey.as_compared(entry.pair()), answer, reference) for answer in answers]
        for entry, answers in zip(entries, said, strict=True)
    ]
    places = {entry.name: place for place, entry in enumerate(entries)}

    def measure(session: Session, _: OnProgress) -> int:
        """Measure a pair's tokens, which are kept one by one; return how many they are."""
        pair, measured = places[session.pair.name], 0
        session = replace(session, pair=survey.as_compared(session.pair))
        for source, answer in enumerate(said[pair]):
            mean = None if means is None else means.of(pair, source)
            own = runner.measured(lambda: session, answer, mean, names[pair][source])
            measured += sum(1 for _ in own)
        return measured

    opened = survey.open(pairs.study, vlm, pairs.positions, pairs.vision)
    keys = [f"{''.join(of_pair[0][:1])}-all" for of_pair in names]
    tokens = each_unit(
        entries, opened, CHANGING, lambda: keys, measure,
        store=store, share=pairs.share, near=survey.held, count=0,
    )  # fmt: skip
    for entry, own, _ in zip(entries, names, tokens, strict=True):
        if any(store.get(name) is None for name in chain.from_iterable(own)):  # one has gone
            measure(opened(entry), on_progress)
    return names


def _read(store: Store, answer: Answer, index: int | None, names: Sequence[str]) -> Token:
    """Read back a token that was measured."""
    assert index is not None
    saved = store.get(names[index])
    if saved is None:
        raise RunError(f"--out: a finished token has gone from {store.folder}")
    return Token.from_saved(answer, index, saved)


QUESTION = Trace()


@overload
def trace(
    session: Session,
    on_progress: Progress = None,
    *,
    keep: str | Path | None = None,
    **options: Unpack[TraceKeywords],
) -> Traced: ...
@overload
def trace(
    session: Pairs,
    on_progress: Progress = None,
    *,
    keep: str | Path | None = None,
    **options: Unpack[TraceKeywords],
) -> TracedPairs: ...
def trace(
    session: Session | Pairs,
    on_progress: Progress = None,
    *,
    keep: str | Path | None = None,
    **options: Unpack[TraceKeywords],
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
