"""Where a result comes from: the facts that go into its ``run.yaml`` and its titles."""

from typing import Any

from headpatch.core.dataset import Pairs
from headpatch.core.output.provenance import dataset_facts, pair_facts
from headpatch.core.question import Context, Opened, Origin
from headpatch.core.session import Session
from headpatch.core.verb import Verb


def origin(verb: Verb, opened: Opened, noise_floor: float | None = None, **facts: Any) -> Origin:
    """Describe where a result comes from; `facts` is what else ``run.yaml`` says."""
    study = opened.study
    section = getattr(study, verb.name, None)
    options = {} if section is None else section.model_dump()
    known: dict[str, Any] = {"level": study.pairs.level, "noise_floor": noise_floor, "facts": facts}
    known |= {"options": options, "study": study.model_dump(by_alias=True)}
    if isinstance(opened, Session):
        pair = opened.pair
        context = Context(pair.question, pair.region.name, opened.valid, **known)
        return Origin(verb, study, {**pair_facts(opened, noise_floor), **facts}, context)
    assert isinstance(opened, Pairs)
    survey, title = opened.survey, (opened.survey.question, opened.survey.region_name)
    context = Context(*title, survey.valid, len(survey.entries), **known)
    run = dataset_facts(study, opened.vlm, survey, noise_floor, **facts)
    return Origin(verb, study, run, context, survey.gate_columns())
