"""A few heads for an analysis of many pairs, picked on one half of them and judged on the other.

So an effect is not also what selected its head. Named heads are judged on every pair.
"""

from dataclasses import dataclass, replace

import numpy as np

from headpatch.core.baseline_runs import LEAST, Survey
from headpatch.core.gate import sessions
from headpatch.core.head_selection import Singles, choose, single_effects
from headpatch.core.study import CombineOptions, PathOptions, Study
from headpatch.engine.patching import OnProgress
from headpatch.errors import InputError
from headpatch.heads import Head, Selection
from headpatch.models.spans import Positions
from headpatch.models.vlm import VLM
from headpatch.pairs.manifest import Entry


@dataclass(frozen=True, eq=False)
class Chosen:
    """Heads, and the pairs of pictures on which they are judged."""

    heads: tuple[Head, ...]
    entries: tuple[Entry, ...]
    chosen_on: int


def choose_heads(
    study: Study,
    options: CombineOptions | PathOptions,
    positions: Positions,
    vlm: VLM,
    survey: Survey,
    on_progress: OnProgress | None = None,
) -> Chosen:
    """Pick heads as `options` ask; those of rankings by their means over one half of the pairs.

    Parameters
    ----------
    positions
        Where each head is changed, if they are ranked by effect.

    Raises
    ------
    InputError
        If there are too few pairs to pick on some and judge on others.
    """
    entries = survey.entries
    if options.heads is not None and not Selection.parse(options.heads).needs_ranking:
        return Chosen(Selection.parse(options.heads).resolve(vlm.lm.grid), entries, 0)
    if len(entries) < 2 * LEAST:
        raise InputError(
            "--pairs",
            f"{len(entries)} pairs that pass the gate",
            f"at least {2 * LEAST}: heads are picked on one half of them and judged on the other",
            "Add pairs, or name the heads by --heads.",
        )
    drawn = np.random.default_rng(study.seed % 2**64).permutation(len(entries))
    first, second = (sorted(half.tolist()) for half in np.array_split(drawn, 2))
    picking = tuple(entries[index] for index in first)
    judged = study.model_copy(update={"force": True})  # the survey was the gate

    def effects() -> Singles:
        found = []
        for session in sessions(judged, vlm, picking, positions):
            found.append(single_effects(session, positions))
            if on_progress:
                on_progress(len(found), len(picking))
            del session  # its caches go before the next pair's are made
        return np.asarray(np.nanmean(found, 0))

    masses = {name: values[first] for name, values in survey.masses.items()}
    heads = choose(vlm.lm.grid, options, effects, replace(survey, masses=masses).order)
    return Chosen(heads, tuple(entries[index] for index in second), len(first))
