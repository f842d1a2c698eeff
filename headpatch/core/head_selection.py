"""Which heads a question about a few looks into: named ones, or the first of rankings.

Over many pairs a ranking picks heads on one half of the pairs, and they are judged on the other, so
that an effect is not also what selected its head. Named heads are judged on every pair.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias

import numpy as np
from jaxtyping import Float

from headpatch.core.baseline_runs import LEAST
from headpatch.core.cost import widened
from headpatch.core.dataset import Pairs
from headpatch.core.effects import intervene, normalized
from headpatch.core.outlook import Stage
from headpatch.core.over_pairs import each_pair
from headpatch.core.question import Call
from headpatch.core.session import Session
from headpatch.core.study.options import Candidates
from headpatch.core.study.study import Study
from headpatch.engine.interventions import Direction, Intervention
from headpatch.engine.patching import OnProgress
from headpatch.errors import InputError
from headpatch.heads import Grid, Head, HeadSet, Selection
from headpatch.models.spans import Positions
from headpatch.models.vlm import VLM
from headpatch.pairs.manifest import Entry
from headpatch.pairs.pair import Pair
from headpatch.pairs.same_scene import need_scenes
from headpatch.stats.scenes import by_scene

Heads: TypeAlias = str | Head | Iterable[Head]
"""``24.17,23.20`` or ``24.0-24.31`` or ``layer:24`` or ``top:5`` (of the attention ranking), a
`Head`, or several."""
Singles: TypeAlias = Float[np.ndarray, "directions layers heads"]
"""The normalized effect of each head alone: noising, denoising."""
DIRECTIONS: tuple[Direction, ...] = ("noising", "denoising")


def named(heads: Heads | None) -> dict[str, str]:
    """Write heads as the study does."""
    if heads is None:
        return {}
    several = [heads] if isinstance(heads, str | Head) else heads
    return {"heads": ",".join(map(str, several))}


def single_effects(
    session: Session, positions: Positions, on_progress: OnProgress | None = None
) -> Singles:
    """Return the exact normalized effect of resampling each head alone: noising, denoising."""
    grid = session.vlm.lm.grid
    asked = [
        Intervention(HeadSet.of(head), "resample", direction, positions)
        for direction in DIRECTIONS
        for head in grid
    ]
    outcomes = intervene(session, asked, on_progress=on_progress, answers_only=True)
    effects = normalized(session, outcomes)
    return grid.spread(effects.reshape(len(DIRECTIONS), -1, grid.heads))


def check_candidates(grid: Grid, options: Candidates) -> None:
    """Refuse, before any picture is run, heads that the model does not have."""
    nothing = np.zeros((len(DIRECTIONS), grid.layers, grid.heads))
    choose(grid, options, lambda: nothing, lambda: tuple(grid))


def choose(
    grid: Grid,
    options: Candidates,
    effects: Callable[[], Singles],
    order: Callable[[], Sequence[Head]],
) -> tuple[Head, ...]:
    """Return the heads that a study names, or the first of its rankings, each once.

    `effects` gives what `single_effects` does, if it is needed: the heads with the largest of each
    direction come first. `order` gives the heads by attention, if they are needed.
    """
    if options.heads is not None:
        selection = Selection.parse(options.heads)
        return selection.resolve(grid, order() if selection.needs_ranking else ())
    if options.top > len(grid):
        expected = f"at most {len(grid)} heads in this model"
        raise InputError("--top", str(options.top), expected)
    heads = list(grid)
    chosen: dict[Head, None] = {}
    if "effect" in options.by:
        for sizes in np.abs(grid.there(effects())).reshape(len(DIRECTIONS), -1):
            first = np.argsort(-np.nan_to_num(sizes), kind="stable")[: options.top]
            chosen.update(dict.fromkeys(heads[int(index)] for index in first))
    if "attention" in options.by:
        chosen.update(dict.fromkeys(order()[: options.top]))
    return tuple(chosen)


def ranking_price(
    study: Study, vlm: VLM, options: Candidates, pairs: Pair | Sequence[Entry]
) -> tuple[int, list[Stage]]:
    """Return how many heads are chosen at most, and what ranking them over the pairs takes."""
    grid = vlm.lm.grid
    if options.heads is not None:
        return len(Selection.parse(options.heads).resolve(grid, tuple(grid))), []
    count = options.top * (2 * ("effect" in options.by) + ("attention" in options.by))
    if "effect" not in options.by:
        return count, []
    half = 1 if isinstance(pairs, Pair) else -(-len(pairs) // 2)
    rows = 2 * len(grid) * half
    return count, [Stage("Ranking heads by effect", rows, widened(study, vlm, pairs, rows))]


@dataclass(frozen=True, eq=False)
class Chosen:
    """Heads, and the pairs of pictures on which they are judged."""

    heads: tuple[Head, ...]
    entries: tuple[Entry, ...]
    chosen_on: int


def choose_heads(
    pairs: Pairs,
    call: Call,
    options: Candidates,
    on_progress: OnProgress | None = None,
) -> Chosen:
    """Pick heads as `options` ask; those of rankings by their means over one half of the pairs."""
    study, vlm, survey = pairs.study, pairs.vlm, pairs.survey
    entries = survey.entries
    if options.heads is not None and not Selection.parse(options.heads).needs_ranking:
        return Chosen(Selection.parse(options.heads).resolve(vlm.lm.grid), entries, 0)

    def need(count: int) -> None:
        if count < 2 * LEAST:
            why = "heads are picked on one half of them and judged on the other"
            words, hint = "pairs that pass the gate", "Add pairs, or name the heads by --heads."
            raise InputError("--pairs", f"{count} {words}", f"at least {2 * LEAST}: {why}", hint)

    need_scenes(entries, need)
    drawn = np.random.default_rng(study.seed % 2**64).permutation(int(survey.scenes.max()) + 1)
    first, second = (
        np.flatnonzero(np.isin(survey.scenes, half)).tolist() for half in np.array_split(drawn, 2)
    )
    masses = {name: values[first] for name, values in survey.masses.items()}
    picking = tuple(entries[index] for index in first)
    half, positions = replace(survey, entries=picking, masses=masses), pairs.positions
    assert positions is not None

    def effects() -> Singles:
        by_pair = each_pair(
            pairs, call, "Ranking heads by effect",
            lambda session, _: single_effects(session, positions), on_progress,
            entries=picking, count=0,
        )  # fmt: skip
        there = vlm.lm.grid.there(np.stack(list(by_pair)))
        return vlm.lm.grid.spread(np.asarray(np.nanmean(by_scene(there, half.scenes), 0)))

    heads = choose(vlm.lm.grid, options, effects, lambda: half.order(study.rank.by))
    return Chosen(heads, tuple(entries[index] for index in second), len(first))
