"""Where a result comes from: the facts that go into its ``run.yaml`` and its titles."""

from typing import Any

from headpatch.core.dataset import Pairs
from headpatch.core.output.provenance import dataset_facts, pair_facts
from headpatch.core.question import Context, Opened, Origin
from headpatch.core.session import Session
from headpatch.core.verb import Verb


def origin(verb: Verb, opened: Opened, noise_floor: float | None = None, **facts: Any) -> Origin:
    """Describe where a result comes from, without holding the model or the pictures.

    Parameters
    ----------
    noise_floor
        In logits; None where nothing was changed.
    facts
        What else ``run.yaml`` says of the run.
    """
    study = opened.study
    section = getattr(study, verb.name, None)
    options = {} if section is None else section.model_dump()
    whole = study.model_dump(by_alias=True)
    if isinstance(opened, Session):
        pair = opened.pair
        context = Context(
            pair.question,
            pair.region.name,
            opened.valid,
            noise_floor=noise_floor,
            level=study.pairs.level,
            options=options,
            study=whole,
            facts=facts,
        )
        return Origin(verb, study, {**pair_facts(opened, noise_floor), **facts}, context)
    assert isinstance(opened, Pairs)
    survey = opened.survey
    context = Context(
        survey.question,
        survey.region_name,
        survey.valid,
        len(survey.entries),
        study.pairs.level,
        noise_floor,
        options,
        whole,
        facts,
    )
    run = dataset_facts(study, opened.vlm, survey, noise_floor, **facts)
    return Origin(verb, study, run, context, survey.gate_columns())
