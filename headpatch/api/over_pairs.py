"""What the calls of `headpatch.api.one_pair` and `headpatch.api.follow_ups` do with many pairs.

Figures are means over the pairs that pass the gate, with intervals over pairs; kind ``mean`` puts
the pairs' own mean in a head's place.
"""

from collections.abc import Iterable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from headpatch.api.asking import (
    asked,
    asked_to_sweep,
    sets_of,
)
from headpatch.core.dataset import Pairs, closed, ready
from headpatch.core.keeping import store_in
from headpatch.core.progress_bars import Progress, stages_of
from headpatch.engine.patching import ZMeans
from headpatch.errors import InputError
from headpatch.heads import HeadSet
from headpatch.questions.sweep import many as sweeps
from headpatch.questions.sweep.finished_rows import NAME, FinishedRows, keys_of_pairs
from headpatch.questions.sweep.listed import Listed
from headpatch.questions.sweep.plan import opening, refuse
from headpatch.questions.trace import many as traces
from headpatch.report.figures import Words
from headpatch.text import user_path


def sweep(
    pairs: Pairs,
    sets: Iterable[HeadSet | str] | None,
    means: ZMeans | None,
    on_progress: Progress,
    keep: str | Path | None = None,
    **options: Any,
) -> sweeps.Sweeps:
    """Change every head, or every set, on every pair."""
    _refuse_means(means)
    pairs = asked_to_sweep(pairs, options)
    study, vlm, stages = pairs.study, pairs.vlm, stages_of(on_progress)
    refuse(study, vlm)
    listed = sets_of(sets)
    if listed is None and study.sweep.sets is not None:
        grid = vlm.stack(study.sweep.tower).grid
        listed = list(Listed.read(Path(study.sweep.sets)).within(grid))
    with ExitStack() as kept:
        keeper = None
        if keep is not None:
            keys = keys_of_pairs(study, vlm, [one.entry for one in pairs.survey.gated], listed)
            place = user_path(keep, "keep") / NAME
            store = kept.enter_context(store_in(place, "rows", "sweep", keys.values()))
            keeper = FinishedRows(store, keys)
        pairs = ready(pairs, *opening(study), stages=stages)
        with stages("Changing heads") as advance:
            return sweeps.sweep(study, vlm, pairs.survey, listed, advance, keeper=keeper)


def trace(
    pairs: Pairs, on_progress: Progress, keep: str | Path | None = None, **options: Any
) -> traces.TracedPairs:
    """Trace the answer of every pair."""
    pairs, stages = asked(pairs, "trace", options), stages_of(on_progress)
    with store_in(keep, "tokens", "trace") as store:
        return traces.run(pairs.study, pairs.vlm, closed(pairs.survey), store, stages)


def _words(pairs: Pairs) -> Words:
    study, said = pairs.study, pairs.survey.words
    return Words(**said, level=study.pairs.level)


def _refuse_means(means: ZMeans | None) -> None:
    if means is not None:
        raise InputError(
            "means", "given, and many pairs", "none: kind mean puts the pairs' own mean there"
        )
