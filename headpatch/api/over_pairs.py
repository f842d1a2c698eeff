"""What the calls of `headpatch.api.one_pair` and `headpatch.api.follow_ups` do with many pairs.

Figures are means over the pairs that pass the gate, with intervals over pairs; kind ``mean`` puts
the pairs' own mean in a head's place.
"""

from collections.abc import Iterable
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from headpatch.api.asking import (
    Heads,
    asked,
    asked_to_ablate,
    asked_to_sweep,
    sets_of,
)
from headpatch.core.dataset import Pairs, closed, ready
from headpatch.core.keeping import store_in
from headpatch.core.progress_bars import Progress, stages_of
from headpatch.core.towers import resolve
from headpatch.engine.patching import ZMeans
from headpatch.errors import InputError
from headpatch.heads import HeadSet, Selection
from headpatch.questions.ablate import many as ablations
from headpatch.questions.sweep import many as sweeps
from headpatch.questions.sweep.finished_rows import NAME, FinishedRows, keys_of_pairs
from headpatch.questions.sweep.listed import Listed
from headpatch.questions.sweep.plan import opening, refuse
from headpatch.questions.trace import many as traces
from headpatch.report.figures import Words
from headpatch.text import user_path


@dataclass(frozen=True, eq=False)
class AblatedPairs(ablations.Ablations):
    """What `headpatch.ablate` finds over pairs.

    Attributes
    ----------
    words
        What a figure says beside it.
    """

    words: Words = field(kw_only=True)


def ablate(
    pairs: Pairs,
    heads: Heads | None,
    means: ZMeans | None,
    on_progress: Progress,
    **options: Any,
) -> AblatedPairs:
    """Change heads, alone and together, on every pair."""
    _refuse_means(means)
    pairs = asked_to_ablate(pairs, heads, options)
    study, vlm, stages = pairs.study, pairs.vlm, stages_of(on_progress)
    selection = Selection.parse(study.ablate.heads)
    chosen = resolve(selection, vlm, pairs.survey.order)
    pairs = ready(pairs, study.ablate.positions, selection.names_vision, stages=stages)
    with stages("Changing heads") as advance:
        found = ablations.ablate(study, vlm, pairs.survey, chosen, advance)
    return AblatedPairs(**vars(found), words=_words(pairs))


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
