"""Asking a question of a pair, or of many: the one way; and where an answer comes from."""

from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

from headpatch.core.dataset import Pairs, of_one_length
from headpatch.core.dataset import ready as ready_pairs
from headpatch.core.labelled_rows import Rows
from headpatch.core.output.provenance import dataset_facts, pair_facts
from headpatch.core.progress import Progress, Stages, stages_of
from headpatch.core.question import (
    COMPARED_BY,
    Call,
    Context,
    Needs,
    Opened,
    Origin,
    Question,
    Result,
    Verb,
)
from headpatch.core.session import Session
from headpatch.core.session import ready as ready_session
from headpatch.core.share import ALONE, Share
from headpatch.core.store import Store, store_in
from headpatch.core.study.options import refuse_both
from headpatch.engine.patching import ZMeans
from headpatch.engine.replay import recorded
from headpatch.errors import InputError
from headpatch.models.prompt import need_one_length
from headpatch.models.vlm import VLM
from headpatch.text import user_path

Found = TypeVar("Found", bound=Result)
Target = TypeVar("Target")


def ask(
    question: Question[Found],
    opened: Session | Pairs | Rows,
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
    _refuse_ragged(verb, vlm)
    if verb.one_picture:
        every = [one.entry for one in opened.survey.gated] if isinstance(opened, Pairs) else []
        for one in (study, *map(study.of_pair, every)):
            one.check_one_picture(verb.name)
    if isinstance(opened, Session):
        question.check_one(study)
    if isinstance(opened, Pairs) and opened.crew is not None:
        answered: Found = by_workers(verb, opened, stages, keep, given)
        return answered
    question.check_model(study, vlm)
    needs, keys = question.needs(study), None
    share: Share = ALONE
    units: Mapping[str, str] = {}
    if not isinstance(opened, Session):
        keep, share = keep or opened.keep, opened.share
    target: Any = opened  # a question that asks labelled rows takes them, too
    with ExitStack() as stack:
        if not isinstance(opened, Session):
            stack.enter_context(recorded(vlm, study.pairs.record))
        if not verb.finished or keep is None:
            return question.answer(ready(target, needs, stages), Call(stages, given=given))
        keep = user_path(keep, "keep") / verb.kept_in
        if verb.keyed:
            entries = (
                [one.entry for one in target.survey.gated] if isinstance(opened, Pairs) else []
            )
            asked = opened.pair if isinstance(opened, Session) else entries
            units = question.units(study, vlm, asked, given)
            keys = units.values()
        store = stack.enter_context(store_in(keep, verb.finished, verb.name, keys, share.alone))
        call = Call(stages, store=store, units=units, given=given)
        return question.answer(ready(target, needs, stages, store), call)


def _refuse_ragged(verb: Verb, vlm: VLM) -> None:
    """Refuse a question that needs heads in every layer where layers of the model have none."""
    grid = vlm.lm.grid
    if grid.without and verb.every_layer:
        found = f"{len(grid.without)} of {grid.layers} layers of {vlm.name} have no attention heads"
        expected = f"a model with heads in every layer: {verb.every_layer}"
        some = ", ".join(map(str, grid.with_heads))
        hint = f"headpatch rank, verdict and ablate ask heads of layers {some}."
        raise InputError("--model", found, expected, hint)


def by_workers(
    verb: Verb, pairs: Pairs, stages: Stages, keep: str | Path | None, given: Mapping[str, Any]
) -> Any:
    """Have the workers that hold pairs answer a question of them."""
    from headpatch.core.workers.crew import warned

    assert pairs.crew is not None
    what = verb.finished or "pairs"
    keep = keep or pairs.keep
    keep = None if keep is None else user_path(keep, "keep").resolve() / verb.kept_in
    with store_in(keep, what, verb.name) as store:
        return pairs.crew.ask(verb.name, pairs, store, stages, warned, given)


def with_options(opened: Target, options: Mapping[str, Any]) -> Target:
    """Return a pair, or many, with options of the study changed, by dotted key."""
    if not isinstance(opened, Session | Pairs | Rows):
        expected = "what headpatch.open_session or headpatch.open_pairs returns"
        raise InputError("session", f"a {type(opened).__name__}", expected)
    if not any(value is not None for value in options.values()):
        return opened
    whole: Any = opened
    found: Target = replace(whole, study=whole.study.override(options))
    return found


def ready(
    opened: Session | Pairs | Rows, needs: Needs, stages: Stages, store: Store | None = None
) -> Any:
    """Return what is open so that the heads in question can be changed; rows are as they are."""
    if isinstance(opened, Session) and needs.one_length:
        need_one_length(opened.prompt)
    if isinstance(opened, Pairs):
        needs = needs.of_pairs or needs
        if needs.one_length:
            opened = of_one_length(opened)
        if not (needs.positions or needs.vision or opened.survey.knows(opened.study.rankings)):
            return ready_pairs(opened, opened.positions, opened.vision, stages=stages, store=store)
    if needs.positions is None and not needs.vision:
        return opened
    if isinstance(opened, Session):
        return ready_session(opened, needs.positions or opened.positions, needs.vision)
    assert isinstance(opened, Pairs)
    return ready_pairs(opened, needs.positions, needs.vision, stages=stages, store=store)


def refuse_means(opened: Opened, means: ZMeans | None) -> None:
    """Refuse a mean z that is given for many pairs."""
    if means is not None and isinstance(opened, Pairs):
        expected = "none: kind mean puts the pairs' own mean there"
        raise InputError("means", "given, and many pairs", expected)


def origin(verb: Verb, opened: Opened, noise_floor: float | None = None, **facts: Any) -> Origin:
    """Describe where a result comes from; `facts` is what else ``run.yaml`` says."""
    study = opened.study
    section = getattr(study, verb.name, None)
    options = {} if section is None else section.model_dump()
    level = facts.get("level", study.pairs.level)  # a question may have judged at another one
    known: dict[str, Any] = {"level": level, "noise_floor": noise_floor, "facts": facts}
    known |= {"options": options, "study": study.model_dump(by_alias=True)}
    region = opened.pair.region if isinstance(opened, Session) else opened.survey
    if region.yardstick:
        known["facts"] = facts = {**facts, COMPARED_BY: region.yardstick}
    if isinstance(opened, Session):
        pair = opened.pair
        asked = " / ".join(dict.fromkeys(pair.questions))
        context = Context(asked, pair.region.name, opened.valid, **known)
        return Origin(verb, study, {**pair_facts(opened, noise_floor), **facts}, context)
    assert isinstance(opened, Pairs)
    survey, title = opened.survey, (opened.survey.question, opened.survey.region_name)
    context = Context(*title, survey.valid, len(survey.entries), **known)
    run = dataset_facts(study, opened.vlm, survey, noise_floor, **facts)
    return Origin(verb, study, run, context, survey.gate_columns())
