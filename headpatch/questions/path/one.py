"""Where the information about the object is, layer by layer, and when it moves.

Four views of one pair of pictures, each exact:

- *The stream.* The residual stream of one run is put into the other, at one class of tokens of one
  layer (`headpatch.questions.path.stream`). 1 means: at this depth these tokens hold all that tells
  the runs apart.
- *Edges.* Attention from some tokens to others is cut in windows of layers
  (`headpatch.questions.path.edges`): when is it read?
- *Direct attribution.* What each head and MLP writes straight into LD = logit(Yes) - logit(No), in
  the with-run less the without-run: a sum, exactly (`headpatch.questions.path.direct`).
- *Paths to heads.* What named heads hear, input by input (`headpatch.questions.path.heads`).

Over many pairs: `headpatch.questions.path.many`.
"""

from dataclasses import dataclass
from typing import Any

import pandas as pd

from headpatch.core.edges import Ends
from headpatch.core.head_selection import choose, single_effects
from headpatch.core.progress import Stages, reporting
from headpatch.core.ranking import order
from headpatch.core.session import Session
from headpatch.present.head_columns import with_head_columns
from headpatch.questions.path.edges import check_window
from headpatch.questions.path.rows import curves, labels, rows_of, scale_of
from headpatch.questions.path.stream import token_classes
from headpatch.questions.path.views import measure
from headpatch.questions.path.words import sentences


@dataclass(frozen=True, eq=False)
class FollowedPath:
    """All views of one pair of pictures.

    Attributes
    ----------
    table
        The columns of ``path.csv``: a row for each figure.
    saved
        What ``path.pt`` holds.
    noise_floor
        The largest of the views, in logits.
    summary
        Plain sentences.
    resumed
        Whether passes with a swapped stream were resumed at that layer, or all were whole.
    why_not
        Why there is no direct attribution; empty if there is.
    """

    table: pd.DataFrame
    saved: dict[str, Any]
    noise_floor: float
    summary: tuple[str, ...]
    resumed: bool
    why_not: str


def follow(session: Session, stages: Stages | None = None) -> FollowedPath:
    """Follow the object through the model on one pair.

    Parameters
    ----------
    session
        Opened with positions ``answer``.
    stages
        Told what is done; None tells nobody.

    Raises
    ------
    InputError
        If the model has no such heads or layers, or the prompt no such positions.
    """
    study, grid = session.study, session.vlm.lm.grid
    stages = stages or reporting(None)
    check_window(study.path, grid)
    token_classes(session)  # a region without tokens is refused here, one without others below
    for edge in study.path.edges:
        Ends.of(session, edge)
    with stages("Ranking heads by effect") as advance:
        chosen = choose(
            grid,
            study.path,
            lambda: single_effects(session, "answer", advance),
            lambda: order(session),
        )
    views = measure(session, chosen, stages)
    table = rows_of(session, views)
    saved = (
        curves(table, "normalized")
        | labels(table)
        | scale_of(study, session.vlm)
        | {
            "noise_floor": views.noise_floor,
            "ld_with": session.base.ld_with,
            "ld_without": session.base.ld_without,
            "valid": session.valid,
            "question": session.pair.question,
            "region_name": session.pair.region.name,
        }
    )
    return FollowedPath(
        with_head_columns(table, "head_layer"),
        saved,
        views.noise_floor,
        sentences(session, views),
        views.stream.resumed,
        views.why_not,
    )
