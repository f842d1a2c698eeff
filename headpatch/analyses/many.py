"""Rank, ablate and sweep over a dataset: means over its pairs, with bootstrap intervals.

The pair is the unit: all figures of a pair are resampled together. A mean is that of the dataset's
pairs; its interval says how far it might move with other pairs like them.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor

from headpatch.analyses import ablate as one_ablation
from headpatch.analyses import rank as one_ranking
from headpatch.analyses import sweep as one_sweep
from headpatch.analyses.dataset import sessions
from headpatch.analyses.reference import mean_z
from headpatch.analyses.session import Session
from headpatch.analyses.survey import LEAST, Survey
from headpatch.engine.interventions import Intervention
from headpatch.engine.patching import OnOutcome, OnProgress, Outcome, ZMeans
from headpatch.heads import Head, HeadSet
from headpatch.measures.intervals import mean_interval
from headpatch.models.vlm import VLM
from headpatch.study import AblateOptions, Study, SweepOptions

Values = Float[np.ndarray, "pairs rows"]
_KEYS = ["heads", "kind", "direction", "positions", "role"]


def rank(study: Study, survey: Survey) -> dict[str, list[int | float]]:
    """Rank every head by its mean attention difference over the pairs.

    Returns
    -------
    The columns of ``heads.csv``: means over pairs, then the interval of each difference
    (``diff_low``, ``diff_high``, …) and the number of pairs.
    """
    figures = {name: values.mean(0) for name, values in survey.masses.items()}
    for name in ("diff", "diff_raw"):
        values = survey.masses[name]
        _, low, high = _intervals(study, values.reshape(len(values), -1))
        shape = values.shape[1:]
        figures |= {f"{name}_low": low.reshape(shape), f"{name}_high": high.reshape(shape)}
    columns = one_ranking.columns_of(figures)
    columns["pairs"] = [len(survey.entries)] * len(columns["rank"])
    return columns


@dataclass(frozen=True, eq=False)
class Ablations:
    """What `ablate` found.

    Attributes
    ----------
    effects
        The rows of every pair, as `headpatch.analyses.ablate.Ablation` has them.
    means
        One row for each named set × kind × direction: the columns of ``effects_mean.csv``.
    noise_floor
        The largest effect, in logits, of patching a named set with its own z, over all pairs.
    """

    effects: pd.DataFrame
    means: pd.DataFrame
    noise_floor: float


def ablate(
    study: Study,
    vlm: VLM,
    survey: Survey,
    heads: Sequence[Head],
    on_progress: OnProgress | None = None,
) -> Ablations:
    """Change each head alone, then all of them together, on every pair.

    Parameters
    ----------
    survey
        Of the positions of the study's ``ablate``.
    """
    options = study.ablate
    tables: list[pd.DataFrame] = []
    gathered, floor = _Gathered("effect", "normalized", "control_mean"), 0.0
    for session, means, advance in _walk(study, vlm, survey, options, on_progress):
        found = one_ablation.ablate(session, heads, means, advance)
        tables.append(found.effects)
        gathered.add(found.named)
        floor = max(floor, found.noise_floor)
        del session
    return Ablations(pd.concat(tables, ignore_index=True), gathered.means(study), floor)


@dataclass(frozen=True, eq=False)
class Sweeps:
    """What `sweep` found.

    Attributes
    ----------
    means
        One row for each set × kind × direction: the columns of ``effects_mean.csv``.
    saved
        What ``sweep.pt`` holds: the means under the names that a sweep of one pair has, their
        intervals under ``…_low`` and ``…_high``, and ``normalized_by_pair`` (``[pairs, sets]``).
    noise_floor
        The largest effect, in logits, of patching a set with its own z, over all pairs.
    """

    means: pd.DataFrame
    saved: dict[str, Any]
    noise_floor: float

    def top(self, count: int) -> list[dict[str, Any]]:
        """Return each direction's heads or sets with the largest mean effects, one dict each."""
        kinds = set(self.means["kind"])
        first = next(kind for kind in ("resample", "mean", "zero") if kind in kinds)
        found: list[dict[str, Any]] = []
        for _, rows in self.means[self.means["kind"] == first].groupby("direction", sort=False):
            size = rows["effect"].abs().sort_values(ascending=False, kind="stable")
            listed = rows.loc[size.index[:count]].to_dict("records")
            found += [
                {"place": place} | {str(name): value for name, value in row.items()}
                for place, row in enumerate(listed, start=1)
            ]
        return found


@runtime_checkable
class Keeper(Protocol):
    """Keeps finished outcomes by pair, such as `headpatch.journal.Journal`."""

    def finished(self, pair: str) -> dict[Intervention, Outcome]:
        """Return what an earlier run has finished of a pair."""

    def writing(self, pair: str) -> AbstractContextManager[OnOutcome]:
        """Give a function that keeps an outcome."""


def sweep(
    study: Study,
    vlm: VLM,
    survey: Survey,
    sets: Sequence[HeadSet] | None = None,
    on_progress: OnProgress | None = None,
    on_plan: Callable[[Session, one_sweep.Plan], None] | None = None,
    on_pair: Callable[[one_sweep.Sweep], None] | None = None,
    keeper: Keeper | None = None,
) -> Sweeps:
    """Change every head, or every set, on every pair.

    Parameters
    ----------
    survey
        Of the positions of the study's ``sweep``.
    sets
        None takes those of the study's file, and every head alone if it names none.
    on_plan
        Called with each pair before it is swept, and with what is planned.
    on_pair
        Called with each pair's sweep, in order; they are not kept.
    keeper
        Whose finished outcomes are taken as they are, and which gets the others.
    """
    gathered, floor, job = _Gathered("effect", "normalized"), 0.0, None
    for session, reference, advance in _walk(study, vlm, survey, study.sweep, on_progress):
        name = session.pair.name
        job = one_sweep.plan(session, sets)
        if on_plan:
            on_plan(session, job)
        finished = keeper.finished(name) if keeper else {}
        with keeper.writing(name) if keeper else nullcontext() as add:
            found = one_sweep.run(session, job, reference, advance, add, finished)
        if on_pair:
            on_pair(found)
        gathered.add(found.named)
        floor = max(floor, found.noise_floor)
        del session
    assert job is not None  # a survey holds pairs
    means = _with_attention(gathered.means(study), survey)
    return Sweeps(means, _saved(study, survey, job, gathered, means, floor), floor)


def _walk(
    study: Study,
    vlm: VLM,
    survey: Survey,
    options: AblateOptions | SweepOptions,
    on_progress: OnProgress | None,
) -> Iterator[tuple[Session, ZMeans | None, OnProgress]]:
    """Open the pairs again, each with the mean z that its kinds need, and its progress."""
    judged = study.model_copy(update={"force": True})  # the survey was the gate
    done_pairs, pairs = 0, len(survey.entries)

    def advance(done: int, total: int) -> None:
        if on_progress:
            on_progress(done_pairs * total + done, pairs * total)

    for session in sessions(judged, vlm, survey.entries, options.positions):
        means = None
        if "mean" in options.kinds:
            known = survey.reference
            means = known.of(session) if known else mean_z(session, reference=options.reference)
        yield session, means, advance
        done_pairs += 1
        del session  # its caches go before the next pair's are made


class _Gathered:
    """The named rows of one pair after the other, as arrays.

    Parameters
    ----------
    columns
        Gathered, beside the share of pairs whose answer changed.
    """

    def __init__(self, *columns: str) -> None:
        self.keys = pd.DataFrame()
        self._columns = columns
        self._rows: dict[str, list[Float[np.ndarray, " rows"]]] = {
            name: [] for name in (*columns, "answer_changed")
        }

    def add(self, named: pd.DataFrame) -> None:
        """Take in a pair's rows; each pair has the same."""
        self.keys = named[_KEYS]
        for name in self._columns:
            self._rows[name].append(named[name].to_numpy(dtype=np.float64))
        changed = named["answer_before"] != named["answer_after"]
        self._rows["answer_changed"].append(changed.to_numpy(dtype=np.float64))

    def values(self, name: str) -> Values:
        """Return a column of every pair."""
        return np.stack(self._rows[name])

    def means(self, study: Study) -> pd.DataFrame:
        """Return each row's means over pairs and their intervals.

        Beside the gathered columns, ``…_low`` and ``…_high``: the share of pairs whose first
        answer token changed, and the number of pairs of ``normalized``, which is not defined for
        a pair without a difference in LD.
        """
        table = self.keys.copy()
        for name in self._columns:
            table[name], table[f"{name}_low"], table[f"{name}_high"] = _intervals(
                study, self.values(name)
            )
        table["answer_changed"] = self.values("answer_changed").mean(0)
        table["pairs"] = int(np.isfinite(self.values("normalized")).all(1).sum())
        return table


def _intervals(study: Study, values: Values) -> tuple[Any, Any, Any]:
    """Mean over pairs, low and high; over the pairs that have all figures, NaN where none has."""
    there = ~np.isnan(values).all(0)
    mean, low, high = np.full((3, values.shape[1]), np.nan)
    pairs = np.isfinite(values[:, there]).all(1)
    if pairs.sum() >= LEAST and there.any():
        options = study.pairs
        rng = np.random.default_rng(study.seed % 2**64)  # numpy takes no negative seed
        found = mean_interval(values[pairs][:, there], options.level, options.resamples, rng)
        mean[there], low[there], high[there] = found.mean, found.low, found.high
    return mean, low, high


def _with_attention(means: pd.DataFrame, survey: Survey) -> pd.DataFrame:
    """Add each head's rank by mean attention difference; a set has none."""
    rank = one_ranking.ranks(survey.masses["diff"].mean(0))
    found = []
    for heads in means["heads"]:
        members = HeadSet.parse(str(heads))
        single = members.heads[0] if len(members) == 1 else None
        found.append(None if single is None else int(rank[single.layer, single.head]))
    return means.assign(attention_rank=pd.Series(found, dtype=object, index=means.index))


def _saved(
    study: Study,
    survey: Survey,
    job: one_sweep.Plan,
    gathered: _Gathered,
    means: pd.DataFrame,
    floor: float,
) -> dict[str, Any]:
    shape: tuple[int, ...] = (len(job.sets),)
    diff = survey.masses["diff"].mean(0)
    if job.every:
        shape = diff.shape

    ways = (means["kind"] + "_" + means["direction"]).to_numpy()

    def by_way(values: Float[np.ndarray, "*pairs rows"], *first: int) -> dict[str, Tensor]:
        """Cut rows into one tensor a kind and direction."""
        return {
            way: torch.from_numpy(
                values[..., ways == way].astype(np.float32).reshape(*first, *shape)
            )
            for way in dict.fromkeys(ways)
        }

    saved: dict[str, Any] = {
        name: by_way(means[name].to_numpy(dtype=np.float64))
        for column in ("normalized", "effect")
        for name in (column, f"{column}_low", f"{column}_high")
    }
    pairs = len(survey.entries)
    passed = {one.entry.name: one for one in survey.gated}
    saved |= {
        "normalized_by_pair": by_way(gathered.values("normalized"), pairs),
        "pair_names": [entry.name for entry in survey.entries],
        "heads": list(map(str, job.sets)),
        "positions": study.sweep.positions,
        "noise_floor": floor,
        "level": study.pairs.level,
        "ld_with": float(np.mean([passed[entry.name].ld_with for entry in survey.entries])),
        "ld_without": float(np.mean([passed[entry.name].ld_without for entry in survey.entries])),
        "valid": survey.valid,
        "question": survey.question,
        "region_name": survey.region_name,
    }
    if job.every:
        saved["attention_diff"] = torch.from_numpy(diff).float()
        saved["attention_rank"] = torch.from_numpy(one_ranking.ranks(diff))
    return saved
