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
from headpatch.core.decision_rule import rule
from headpatch.core.split import halve
from headpatch.core.store import Store
from headpatch.core.study import Study
from headpatch.engine.patching import OnProgress
from headpatch.heads import Grid, HeadSet
from headpatch.models.vlm import VLM
from headpatch.pairs.manifest import Entry
from headpatch.questions.verdict import nulls as null
from headpatch.questions.verdict.banzhaf_screen import as_sets, random_members
from headpatch.questions.verdict.discovery import Discovery, choose, set_counts
from headpatch.questions.verdict.faithfulness import curves
from headpatch.questions.verdict.pair_record import DIRECTIONS, KINDS, PairRecord, Task
from headpatch.questions.verdict.runner import Runner, rows
from headpatch.questions.verdict.summary import Headline, summarize
from headpatch.stats.disattenuated_rank_correlation import true_correlation
from headpatch.stats.intervals import mean_interval
from headpatch.stats.rankings import correlation
from headpatch.stats.significance import adjusted, minimum_effect_test
from headpatch.stats.verdict_labels import Rule
from headpatch.stats.verdicts import Observed, Verdicts, judge


@dataclass(frozen=True, eq=False)
class Judgement:
    """What `run` found.

    Attributes
    ----------
    verdicts
        The columns of ``verdicts.csv``, and of ``partners.csv``. These and the tables below name
        the nulls that failed in a last column.
    nulls
        Every null's figures.
    faithfulness
        The columns of ``faithfulness.csv``.
    vision
        The columns of ``vision.csv``: necessity of all heads of each vision layer, over the pairs
        on which they were changed; None if there are too few.
    headline
        What the study says as a whole.
    noise_floor
        In logits, the largest of all pairs; see `headpatch.core.noise_floor.floor_of`.
    saved
        What ``verdict.pt`` holds: every pair's arrays.
    widened
        Whether heads were changed by widening passes.
    """

    verdicts: Verdicts
    nulls: list[null.Null]
    faithfulness: pd.DataFrame
    vision: pd.DataFrame | None
    headline: Headline
    noise_floor: float
    saved: dict[str, Any]
    widened: bool


def run(
    study: Study,
    vlm: VLM,
    survey: Survey,
    store: Store,
    on_progress: OnProgress | None = None,
) -> Judgement:
    """Choose heads on the discovery pairs, judge every head on the others.

    Parameters
    ----------
    survey
        Of the positions of the study's ``verdict``.
    store
        Where finished pairs are kept; those that are there are not run again.
    on_progress
        Called with (done, total), in heads or sets changed once; the total is an estimate.

    Raises
    ------
    InputError
        If the pairs are too few, or heads cannot be compared on the region of one.
    """
    survey.compare()
    halves, grid = halve(study, survey.entries), vlm.lm.grid
    runner = Runner(study, vlm, survey, store, on_progress)
    first, second = _tasks(study, grid, len(halves.discovery), len(halves.confirmation))
    runner.expect(cost(study, grid, len(survey.entries)))
    discovery = list(runner.measured(halves.discovery, first))

    def noised(places: Sequence[int], sets: Sequence[HeadSet]) -> Float[np.ndarray, "pairs sets"]:
        return runner.noised([halves.discovery[place] for place in places], sets)

    choice = choose(study, grid, _attention(survey, halves.discovery), discovery, noised)
    second = [replace(task, sets=choice.sets) for task in second]
    confirmation = list(runner.measured(halves.confirmation, second))
    looks = _attention(survey, halves.confirmation)
    return conclude(study, grid, choice, discovery, confirmation, looks)


def _attention(survey: Survey, entries: Sequence[Entry]) -> Float[np.ndarray, "pairs layers heads"]:
    """Attention differences of some of the survey's pairs."""
    place = {entry.name: index for index, entry in enumerate(survey.entries)}
    return survey.masses["diff"][[place[entry.name] for entry in entries]]


def cost(study: Study, grid: Grid, pairs: int) -> int:
    """Return about how many rows a verdict over so many pairs takes: heads or sets changed once."""
    count = round(study.verdict.split * pairs)
    first, second = _tasks(study, grid, count, pairs - count, drawn=False)
    seeking, judging = set_counts(study, grid)
    sets = count * study.verdict.groups + min(study.verdict.search, count) * seeking
    return sum(rows(task, grid) for task in (*first, *second)) + sets + len(second) * judging


def _tasks(
    study: Study, grid: Grid, discovery: int, confirmation: int, drawn: bool = True
) -> tuple[list[Task], list[Task]]:
    """Return what to do with each pair that chooses, and each that judges, but for chosen sets.

    Parameters
    ----------
    drawn
        Whether the random sets of the pairs that choose are drawn.
    """
    options = study.verdict

    def random(place: int) -> tuple[HeadSet, ...]:
        if not drawn:
            return ()
        return as_sets(grid, random_members(grid, options.groups, study.seed, place))

    first = [Task(random(i), attribution=i < options.attribution) for i in range(discovery)]
    second = [Task(nulls=i < options.nulls, vision=i < options.vision) for i in range(confirmation)]
    return first, second


def conclude(
    study: Study,
    grid: Grid,
    choice: Discovery,
    discovery: Sequence[PairRecord],
    confirmation: Sequence[PairRecord],
    attention: Float[np.ndarray, "pairs layers heads"],
) -> Judgement:
    """Judge every head by what the confirmation pairs show.

    Parameters
    ----------
    attention
        Attention differences of the confirmation pairs.
    """
    by, every = rule(study), [*discovery, *confirmation]
    joint = dict(zip(choice.sets, np.stack([pair.sets for pair in confirmation], 1), strict=True))
    necessity, sufficiency = (_stack(confirmation, f"resample_{way}") for way in DIRECTIONS)
    seen = Observed(attention, necessity, sufficiency, joint, choice.partners)
    verdicts = _more_columns(judge(seen, by), grid, choice, confirmation, by)
    own = HeadSet(choice.chosen) if choice.chosen else None
    found = null.judge_nulls(
        confirmation,
        attention,
        choice.picked,
        choice.chosen,
        np.array([joint[one] for one in choice.random]).reshape(-1, len(confirmation)),
        None if own is None else joint[own],
        max(pair.nothing / abs(pair.gap) for pair in every),
        by,
    )
    faithfulness, vision = curves(choice.points, joint, by), _vision(confirmation, by)
    for table in (verdicts.heads, verdicts.sets, faithfulness, vision):
        if table is not None:
            table["failed_nulls"] = ";".join(null.failed(found))
    saved = _saved(study, choice, discovery, confirmation, attention) | _correlations(seen, by)
    return Judgement(
        verdicts,
        found,
        faithfulness,
        vision,
        summarize(verdicts.heads, saved, study.verdict.top, len(confirmation)),
        max(pair.floor for pair in every),
        saved,
        all(pair.widened for pair in every),
    )


def _correlations(seen: Observed, by: Rule) -> dict[str, Any]:
    """Compare looking and deciding over heads: of the measured means, and of true values."""
    flat = [
        values.reshape(len(values), -1)
        for values in (np.nan_to_num(seen.attention), seen.necessity, seen.sufficiency)
    ]
    return {
        "rho": asdict(correlation(flat[0], flat[1], flat[2], by.level)),
        "true_rho": asdict(true_correlation(flat[0], flat[1], flat[2], by.level)),
    }


def _stack(pairs: Sequence[PairRecord], way: str) -> Float[np.ndarray, "pairs layers heads"]:
    return np.stack([pair.effects[way] for pair in pairs])


def _more_columns(
    verdicts: Verdicts, grid: Grid, choice: Discovery, pairs: Sequence[PairRecord], by: Rule
) -> Verdicts:
    """Add what the verdict does not rest on: attention rank, and the effects of kind mean."""
    table = verdicts.heads
    rank = np.empty(grid.layers * grid.heads, dtype=np.int64)
    rank[choice.rankings["attention"][0]] = np.arange(1, len(rank) + 1)
    table["attention_rank"] = rank
    for name, way in (("necessity", "noising"), ("sufficiency", "denoising")):
        rng = np.random.default_rng([by.seed % 2**64, 0])
        found = mean_interval(_stack(pairs, f"mean_{way}"), by.level, by.resamples, rng)
        table[f"{name}_mean_kind"] = found.mean.ravel()
        table[f"{name}_mean_kind_low"] = found.low.ravel()
        table[f"{name}_mean_kind_high"] = found.high.ravel()
    return verdicts


def _vision(pairs: Sequence[PairRecord], by: Rule) -> pd.DataFrame | None:
    """Judge whole vision layers by the pairs on which they were changed."""
    effects = [pair.vision for pair in pairs if len(pair.vision)]
    if len(effects) < 2:
        return None
    values = np.stack(effects)
    rng = np.random.default_rng([by.seed % 2**64, 0])
    found = mean_interval(values, by.level, by.resamples, rng)
    return pd.DataFrame(
        {
            "layer": np.arange(values.shape[1]),
            "necessity": found.mean,
            "necessity_low": found.low,
            "necessity_high": found.high,
            "necessity_q": adjusted(minimum_effect_test(values)),
            "pairs": len(values),
        }
    )


def _saved(
    study: Study,
    choice: Discovery,
    discovery: Sequence[PairRecord],
    confirmation: Sequence[PairRecord],
    attention: Float[np.ndarray, "pairs layers heads"],
) -> dict[str, Any]:
    def tensor(values: Any) -> torch.Tensor:
        return torch.from_numpy(np.asarray(values, dtype=np.float32))

    return {
        "positions": study.verdict.positions,
        "delta": study.verdict.delta,
        "level": study.pairs.level,
        "attention_diff": tensor(attention),
        **{
            f"{kind}_{way}": tensor(_stack(confirmation, f"{kind}_{way}"))
            for kind in KINDS
            for way in DIRECTIONS
        },
        "sets": list(map(str, choice.sets)),
        "sets_noising": tensor([pair.sets for pair in confirmation]),
        "pairs": [pair.name for pair in confirmation],
        "ld_with": tensor([pair.ld_with for pair in confirmation]),
        "ld_without": tensor([pair.ld_without for pair in confirmation]),
        "discovery": {
            "pairs": [pair.name for pair in discovery],
            **{
                f"{kind}_{way}": tensor(_stack(discovery, f"{kind}_{way}"))
                for kind in KINDS
                for way in DIRECTIONS
            },
        },
        "picked": list(map(str, choice.picked)),
        "chosen": list(map(str, choice.chosen)),
    }
