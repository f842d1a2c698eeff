"""Which heads an analysis of a few looks into: named ones, or the first of rankings."""

from collections.abc import Callable, Sequence
from typing import TypeAlias

import numpy as np
from jaxtyping import Float

from headpatch.core.session import Session, intervene
from headpatch.core.study import CombineOptions, PathOptions
from headpatch.engine.interventions import Direction, Intervention
from headpatch.engine.patching import OnProgress
from headpatch.errors import InputError
from headpatch.heads import Grid, Head, HeadSet, Selection
from headpatch.models.spans import Positions
from headpatch.stats.effects import normalized_effect

Singles: TypeAlias = Float[np.ndarray, "directions layers heads"]
"""The normalized effect of each head alone: noising, denoising."""
DIRECTIONS: tuple[Direction, ...] = ("noising", "denoising")


def single_effects(
    session: Session, positions: Positions, on_progress: OnProgress | None = None
) -> Singles:
    """Return the exact normalized effect of resampling each head alone: noising, denoising."""
    grid, base = session.vlm.lm.grid, session.base
    asked = [
        Intervention(HeadSet.of(head), "resample", direction, positions)
        for direction in DIRECTIONS
        for head in grid
    ]
    outcomes = intervene(session, asked, on_progress=on_progress, answers_only=True)
    found = [
        normalized_effect(one.ld, base.ld_with, base.ld_without, one.intervention.direction)
        for one in outcomes
    ]
    return np.array(found).reshape(len(DIRECTIONS), grid.layers, grid.heads)


def choose(
    grid: Grid,
    options: CombineOptions | PathOptions,
    effects: Callable[[], Singles],
    order: Callable[[], Sequence[Head]],
) -> tuple[Head, ...]:
    """Return the heads that a study names, or the first of its rankings, each once.

    Parameters
    ----------
    effects
        Gives what `single_effects` does, if it is needed: the heads with the largest of each
        direction come first.
    order
        Gives the heads by attention, if they are needed.

    Raises
    ------
    InputError
        If the model has no such head.
    """
    if options.heads is not None:
        selection = Selection.parse(options.heads)
        return selection.resolve(grid, order() if selection.needs_ranking else ())
    if options.top > grid.layers * grid.heads:
        raise InputError(
            "--top", str(options.top), f"at most {grid.layers * grid.heads} heads in this model"
        )
    heads = list(grid)
    found: dict[Head, None] = {}
    if "effect" in options.by:
        for sizes in np.abs(effects()).reshape(len(DIRECTIONS), -1):
            first = np.argsort(-np.nan_to_num(sizes), kind="stable")[: options.top]
            found.update(dict.fromkeys(heads[int(index)] for index in first))
    if "attention" in options.by:
        found.update(dict.fromkeys(order()[: options.top]))
    return tuple(found)
