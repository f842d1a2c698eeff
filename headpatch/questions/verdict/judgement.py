"""Which heads decide: the causal verdict of every head, over many pairs.

Heads are chosen on one part of the pairs (discovery) and judged on the other (confirmation), so
that the effect that is reported is not the one that selected the head.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float

from headpatch.core.baseline_runs import Survey
from headpatch.core.saved_verdict import halve, rule
from headpatch.core.store import Store
from headpatch.core.study.study import Study
from headpatch.engine.patching import OnProgress
from headpatch.heads import Grid, HeadSet
from headpatch.models.vlm import VLM
from headpatch.pairs.manifest import Entry
from headpatch.questions.verdict.discovery import Discovery, choose, curves, set_counts
from headpatch.questions.verdict.measure import Runner
from headpatch.questions.verdict.nulls import Null, failed, judge_nulls
from headpatch.questions.verdict.pair_record import DIRECTIONS, PairRecord, PerPair, Task
from headpatch.questions.verdict.redundant_sets import as_sets, random_members
from headpatch.stats.disattenuated_rank_correlation import true_correlation
from headpatch.stats.intervals import mean_interval
from headpatch.stats.rankings import correlation
from headpatch.stats.significance import adjusted, minimum_effect_test
from headpatch.stats.verdict_labels import Rule
from headpatch.stats.verdicts import Observed, Verdicts, judge


@dataclass(frozen=True, eq=False)
class Judgement:
    """What `run` found; the tables name the nulls that failed in a last column."""

    verdicts: Verdicts
    nulls: list[Null]
    faithfulness: pd.DataFrame
    vision: pd.DataFrame | None  # over the pairs on which layers were changed; None: too few
    noise_floor: float  # in logits, the largest of all pairs
    saved: dict[str, Any]  # what ``verdict.pt`` holds: every pair's arrays


def run(
    study: Study, vlm: VLM, survey: Survey, store: Store, on_progress: OnProgress | None = None
) -> Judgement:
    """Choose heads on the discovery pairs, judge every head on the others.

    The survey is of the positions of the study's ``verdict``. `on_progress` is called with (done,
    total), in heads or sets changed once; the total is an estimate.
    """
    survey.compare()
    halves, grid = halve(study, survey.entries), vlm.lm.grid
    total = cost(study, grid, len(survey.entries))
    runner = Runner(study, vlm, survey, store, on_progress, total)
    first, second = _tasks(study, grid, len(halves.discovery), len(halves.confirmation))
    discovery = list(runner.measured(halves.discovery, first))
    place = {entry.name: index for index, entry in enumerate(survey.entries)}

    def looks(entries: Sequence[Entry]) -> PerPair:
        return survey.masses["diff"][[place[entry.name] for entry in entries]]

    def noised(places: Sequence[int], sets: Sequence[HeadSet]) -> Float[np.ndarray, "pairs sets"]:
        return runner.noised([halves.discovery[place] for place in places], sets)

    choice = choose(study, grid, looks(halves.discovery), discovery, noised)
    second = [replace(task, sets=choice.sets) for task in second]
    confirmation = list(runner.measured(halves.confirmation, second))
    return _conclude(study, grid, choice, discovery, confirmation, looks(halves.confirmation))


def cost(study: Study, grid: Grid, pairs: int) -> int:
    """Return about how many rows a verdict over so many pairs takes: heads or sets changed once."""
    count = round(study.verdict.split * pairs)
    first, second = _tasks(study, grid, count, pairs - count, drawn=False)
    seeking, judging = set_counts(study, grid)
    sets = count * study.verdict.groups + min(study.verdict.search, count) * seeking
    return sum(task.rows(grid) for task in (*first, *second)) + sets + len(second) * judging


def _tasks(
    study: Study, grid: Grid, discovery: int, confirmation: int, drawn: bool = True
) -> tuple[list[Task], list[Task]]:
    """Return what to do with each pair that chooses, and each that judges, but for chosen sets.

    The random sets of the pairs that choose are there only if they are `drawn`.
    """
    options = study.verdict

    def random(place: int) -> tuple[HeadSet, ...]:
        if not drawn:
            return ()
        return as_sets(grid, random_members(grid, options.groups, study.seed, place))

    first = [Task(random(i), attribution=i < options.attribution) for i in range(discovery)]
    second = [Task(nulls=i < options.nulls, vision=i < options.vision) for i in range(confirmation)]
    return first, second


def _conclude(
    study: Study,
    grid: Grid,
    choice: Discovery,
    discovery: Sequence[PairRecord],
    confirmation: Sequence[PairRecord],
    attention: PerPair,
) -> Judgement:
    """Judge every head by what the confirmation pairs show."""
    by, every = rule(study), [*discovery, *confirmation]
    joint = dict(zip(choice.sets, np.stack([pair.sets for pair in confirmation], 1), strict=True))
    effects = _stacked(confirmation)
    necessity, sufficiency = effects["resample_noising"], effects["resample_denoising"]
    verdicts = judge(Observed(attention, necessity, sufficiency, joint, choice.partners), by)
    rank = np.empty(len(verdicts.heads), dtype=np.int64)
    rank[choice.rankings["attention"][0]] = np.arange(1, len(rank) + 1)
    verdicts.heads["attention_rank"] = rank
    for name, way in zip(("necessity", "sufficiency"), DIRECTIONS, strict=True):
        for column, values in _ends(f"{name}_mean_kind", effects[f"mean_{way}"], by).items():
            verdicts.heads[column] = values.ravel()
    random = np.array([joint[one] for one in choice.random]).reshape(-1, len(confirmation))
    own = joint[HeadSet(choice.chosen)] if choice.chosen else None
    nothing = max(pair.nothing / abs(pair.gap) for pair in every)
    nulls = judge_nulls(
        confirmation, attention, choice.picked, choice.chosen, random, own, nothing, by
    )
    gaps = np.array([pair.gap for pair in confirmation])
    faithfulness, vision = curves(grid, choice.rankings, joint, gaps, by), _vision(confirmation, by)
    for table in (verdicts.heads, verdicts.sets, faithfulness, vision):
        if table is not None:
            table["failed_nulls"] = ";".join(failed(nulls))
    flat = [
        values.reshape(len(values), -1)
        for values in (np.nan_to_num(attention), necessity, sufficiency)
    ]
    saved = {
        "positions": study.verdict.positions,
        "delta": study.verdict.delta,
        "level": study.pairs.level,
        "attention_diff": _tensor(attention),
        **{way: _tensor(values) for way, values in effects.items()},
        "sets": list(map(str, choice.sets)),
        "sets_noising": _tensor([pair.sets for pair in confirmation]),
        "pairs": [pair.name for pair in confirmation],
        "ld_with": _tensor([pair.ld_with for pair in confirmation]),
        "ld_without": _tensor([pair.ld_without for pair in confirmation]),
        "discovery": {
            "pairs": [pair.name for pair in discovery],
            **{way: _tensor(values) for way, values in _stacked(discovery).items()},
        },
        "picked": list(map(str, choice.picked)),
        "chosen": list(map(str, choice.chosen)),
        # of looking and deciding over heads: of the measured means, and of true values
        "rho": asdict(correlation(flat[0], flat[1], flat[2], by.level)),
        "true_rho": asdict(true_correlation(flat[0], flat[1], flat[2], by.level)),
    }
    floor = max(pair.floor for pair in every)
    return Judgement(verdicts, nulls, faithfulness, vision, floor, saved)


def _stacked(pairs: Sequence[PairRecord]) -> dict[str, PerPair]:
    return {way: np.stack([pair.effects[way] for pair in pairs]) for way in pairs[0].effects}


def _tensor(values: Any) -> torch.Tensor:
    return torch.from_numpy(np.asarray(values, dtype=np.float32))


def _ends(
    name: str, values: Float[np.ndarray, "pairs *rest"], by: Rule
) -> dict[str, Float[np.ndarray, "*rest"]]:
    """Return means over pairs and the ends of their intervals, as columns of that name."""
    rng = np.random.default_rng([by.seed % 2**64, 0])
    interval = mean_interval(values, by.level, by.resamples, rng)
    return {name: interval.mean, f"{name}_low": interval.low, f"{name}_high": interval.high}


def _vision(pairs: Sequence[PairRecord], by: Rule) -> pd.DataFrame | None:
    """Judge whole vision layers by the pairs on which they were changed."""
    effects = [pair.vision for pair in pairs if len(pair.vision)]
    if len(effects) < 2:
        return None
    values = np.stack(effects)
    columns = {"layer": np.arange(values.shape[1]), **_ends("necessity", values, by)}
    q = adjusted(minimum_effect_test(values))
    return pd.DataFrame({**columns, "necessity_q": q, "pairs": len(values)})
