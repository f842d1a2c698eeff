"""Combinations of heads and self-repair over a dataset of pairs of pictures."""

from collections.abc import Iterator, Sequence

from headpatch.core.baseline_runs import Survey
from headpatch.core.gate import sessions
from headpatch.core.head_selection import Chosen
from headpatch.core.mean_activations import mean_z
from headpatch.core.session import Session
from headpatch.core.study import Study
from headpatch.engine.patching import OnProgress, ZMeans
from headpatch.heads import HeadSet
from headpatch.kinds import averages
from headpatch.models.vlm import VLM
from headpatch.pairs.manifest import Entry
from headpatch.questions.combine import judge as combine_judge
from headpatch.questions.combine import one as combine
from headpatch.questions.combine import selfrepair


def run(
    study: Study,
    vlm: VLM,
    survey: Survey,
    chosen: Chosen,
    on_progress: OnProgress | None = None,
) -> combine_judge.Combinations:
    """Change every head, every two and all together, on every pair of pictures.

    Raises
    ------
    InputError
        If there are fewer than two heads.
    """
    plan, found = combine.Plan.of(study, chosen.heads), []
    for session, means in _with_means(study, vlm, survey, chosen.entries):
        found.append(combine.measure(session, plan, means))
        if on_progress:
            on_progress(len(found), len(chosen.entries))
        del session
    return combine_judge.judge(study, plan, found)


def repair(
    study: Study,
    vlm: VLM,
    survey: Survey,
    chosen: Chosen,
    sets: Sequence[HeadSet],
    on_progress: OnProgress | None = None,
) -> selfrepair.SelfRepair:
    """Measure the self-repair of `sets` on every pair of pictures.

    Raises
    ------
    RunError
        If LD cannot be attributed to this model's parts.
    """
    asked, found = selfrepair.plan(study, sets), []
    for session, means in _with_means(study, vlm, survey, chosen.entries):
        found.append(selfrepair.measure(session, asked, means))
        if on_progress:
            on_progress(len(found), len(chosen.entries))
        del session
    return selfrepair.judge(study, found)


def _with_means(
    study: Study, vlm: VLM, survey: Survey, entries: Sequence[Entry]
) -> Iterator[tuple[Session, ZMeans | None]]:
    """Open pairs of pictures, each with the mean z that the study's kinds need."""
    options, known = study.combine, survey.reference
    judged = study.model_copy(update={"force": True})  # the survey was the gate
    for session in sessions(judged, vlm, entries, options.positions):
        means = None
        if averages(options.kinds):
            means = known.of(session) if known else mean_z(session, reference=options.reference)
        yield session, means
        del session
