"""The second walk over a dataset: the pairs that are run, each with what its changes need."""

from collections.abc import Iterator

from headpatch.core.baseline_runs import Survey
from headpatch.core.mean_activations import mean_z
from headpatch.core.session import Session, towers_of
from headpatch.core.study import Study
from headpatch.core.study.changes import Changes
from headpatch.engine.patching import OnProgress, ZMeans
from headpatch.kinds import averages
from headpatch.models.spans import Positions
from headpatch.models.vlm import VLM


def walk(
    study: Study,
    vlm: VLM,
    survey: Survey,
    options: Changes,
    positions: Positions | None,
    vision: bool,
    on_progress: OnProgress | None,
) -> Iterator[tuple[Session, ZMeans | None, OnProgress]]:
    """Yield the run pairs open, each with the mean z that its kinds need, and its progress."""
    done_pairs, pairs = 0, len(survey.entries)

    def advance(done: int, total: int) -> None:
        if on_progress:
            on_progress(done_pairs * total + done, pairs * total)

    for session in survey.opened(study, vlm, positions, vision):
        means = None
        if averages(options.kinds):
            known, towers = survey.reference, towers_of(positions, vision)
            means = known.of(session) if known else mean_z(session, None, options.reference, towers)
        yield session, means, advance
        done_pairs += 1
        del session  # its caches go before the next pair's are made
