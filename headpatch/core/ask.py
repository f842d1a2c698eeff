"""Asking a question of a pair, or of many: the one way, for calls and for the command line."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

from headpatch.core.dataset import Pairs
from headpatch.core.dataset import ready as ready_pairs
from headpatch.core.keeping import store_in
from headpatch.core.progress import Stages
from headpatch.core.progress_bars import Progress, stages_of
from headpatch.core.question import Call, Needs, Opened, Question, Result
from headpatch.core.session import Session
from headpatch.core.session import ready as ready_session
from headpatch.core.study.together import refuse_both
from headpatch.engine.patching import ZMeans
from headpatch.errors import InputError
from headpatch.text import user_path

Found = TypeVar("Found", bound=Result)


def ask(
    question: Question[Found],
    opened: Opened,
    options: Mapping[str, Any],
    on_progress: Progress = None,
    keep: str | Path | None = None,
    **given: Any,
) -> Found:
    """Answer a question, with some of its options changed; None leaves one as it is.

    The pictures are opened again where the question changes heads that they were not opened for.
    `keep` is a folder for finished units, from which an interrupted call goes on; `given` is what
    the question is given in memory: means, sets of heads.
    """
    verb, stages = question.verb, stages_of(on_progress)
    refuse_both(options)
    opened = with_options(opened, {f"{verb.name}.{name}": one for name, one in options.items()})
    study, vlm = opened.study, opened.vlm
    question.check(study)
    question.check_model(study, vlm)
    needs, keys = question.needs(study), None
    units: Mapping[str, str] = {}
    if verb.keyed and keep is not None:
        keep = user_path(keep, "keep") / verb.kept_in
        entries = [] if isinstance(opened, Session) else [one.entry for one in opened.survey.gated]
        asked = opened.pair if isinstance(opened, Session) else entries
        units = question.units(study, vlm, asked, given)
        keys = units.values()
    if not verb.finished:
        return question.answer(ready(opened, needs, stages), Call(stages, given=given))
    with store_in(keep, verb.finished, verb.name, keys) as store:
        call = Call(stages, store=store, units=units, given=given)
        return question.answer(ready(opened, needs, stages), call)


def with_options(opened: Opened, options: Mapping[str, Any]) -> Opened:
    """Return a pair, or many, with options of the study changed, by dotted key."""
    if not any(value is not None for value in options.values()):
        return opened
    return replace(opened, study=opened.study.override(options))


def ready(opened: Opened, needs: Needs, stages: Stages) -> Opened:
    """Return a pair, or many, in which the heads in question can be changed."""
    if isinstance(opened, Pairs):
        needs = needs.of_pairs or needs
    if needs.positions is None and not needs.vision:
        return opened
    if isinstance(opened, Session):
        return ready_session(opened, needs.positions or opened.positions, needs.vision)
    assert isinstance(opened, Pairs)
    return ready_pairs(opened, needs.positions, needs.vision, stages=stages)


def refuse_means(opened: Opened, means: ZMeans | None) -> None:
    """Refuse a mean z that is given for many pairs."""
    if means is not None and isinstance(opened, Pairs):
        expected = "none: kind mean puts the pairs' own mean there"
        raise InputError("means", "given, and many pairs", expected)


def each_pair(
    pairs: Pairs, stages: Stages, what: str, measure: Callable[[Session], Any]
) -> list[Any]:
    """Measure every pair that is run, one after the other; `what` is done, for whoever watches."""
    measured = []
    with stages(what) as advance:
        for session in pairs.survey.opened(pairs.study, pairs.vlm, pairs.positions, pairs.vision):
            measured.append(measure(session))
            advance(len(measured), len(pairs.entries))
            del session  # its caches go before the next pair's are made
    return measured
