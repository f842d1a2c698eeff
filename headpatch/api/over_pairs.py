"""What the calls of `headpatch.api.one_pair` and `headpatch.api.follow_ups` do with many pairs.

Figures are means over the pairs that pass the gate, with intervals over pairs; kind ``mean`` puts
the pairs' own mean in a head's place.
"""

from pathlib import Path
from typing import Any

from headpatch.api.asking import (
    asked,
)
from headpatch.core.dataset import Pairs, closed
from headpatch.core.keeping import store_in
from headpatch.core.progress_bars import Progress, stages_of
from headpatch.engine.patching import ZMeans
from headpatch.errors import InputError
from headpatch.questions.trace import many as traces
from headpatch.report.figures import Words


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
