"""The information path over a dataset of pairs of pictures.

Every view is measured on every pair. Heads that rankings pick are picked on one half of the pairs,
once for all, and the paths to them are patched on the other half, so that an effect is not also
what selected its head. Paths to named heads are patched on every pair.

What is finished of a pair is kept, whole or not at all, so that a killed run goes on later and
finds the same.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch

from headpatch.core.baseline_runs import Survey
from headpatch.core.dataset_selection import choose_heads
from headpatch.core.finished_pairs import measured
from headpatch.core.head_selection import DIRECTIONS, choose
from headpatch.core.progress import Stages, reporting
from headpatch.core.session import Session
from headpatch.core.store import Store, unit_key
from headpatch.core.study import Study
from headpatch.engine.selfcheck import Checks
from headpatch.errors import InputError
from headpatch.heads import Head
from headpatch.models.vlm import VLM
from headpatch.pairs.manifest import Entry
from headpatch.present.head_columns import with_head_columns
from headpatch.questions.path.edges import check_window
from headpatch.questions.path.many_words import sentences
from headpatch.questions.path.means import OverPairs
from headpatch.questions.path.rows import rows_of, scale_of
from headpatch.questions.path.views import measure


@dataclass(frozen=True, eq=False)
class FollowedPaths:
    """All views of many pairs.

    Attributes
    ----------
    table
        The columns of ``path.csv``: a row for each figure of each pair.
    means
        The columns of ``path_mean.csv``: a row for each figure, with its interval over pairs.
    saved
        What ``path.pt`` holds.
    noise_floor
        The largest over views and pairs, in logits.
    summary
        Plain sentences.
    whole
        Pairs on which every swapped stream took a whole forward pass.
    why_not
        Why there is no direct attribution; empty if there is.
    """

    table: pd.DataFrame
    means: pd.DataFrame
    saved: dict[str, Any]
    noise_floor: float
    summary: tuple[str, ...]
    whole: int
    why_not: str


@dataclass(frozen=True, eq=False)
class KeptPair:
    """What is kept of a pair: its rows of ``path.csv``, and what `FollowedPaths` says besides."""

    table: pd.DataFrame
    noise_floor: float
    resumed: bool
    why_not: str

    @classmethod
    def measured(cls, session: Session, heads: tuple[Head, ...]) -> "KeptPair":
        """Measure every view of a pair; paths to `heads`, if there are any."""
        views = measure(session, heads, reporting(None))
        table, resumed = rows_of(session, views), views.stream.resumed
        return cls(table, views.noise_floor, resumed, views.why_not)

    def to_saved(self) -> dict[str, Any]:
        """Return plain tensors, numbers and texts."""
        columns = {
            str(name): torch.tensor(values.to_numpy(dtype=np.float64))
            if name in ("effect", "normalized")
            else list(values)
            for name, values in self.table.items()
        }
        rest = {"noise_floor": self.noise_floor, "resumed": self.resumed, "why_not": self.why_not}
        return {"columns": columns, **rest}

    @classmethod
    def from_saved(cls, saved: Mapping[str, Any]) -> "KeptPair":
        """Read back what `to_saved` gave, bit for bit."""
        columns = {
            name: values.numpy() if torch.is_tensor(values) else values
            for name, values in saved["columns"].items()
        }
        rest = saved["noise_floor"], saved["resumed"], saved["why_not"]
        return cls(pd.DataFrame(columns), *rest)


def check(study: Study, vlm: VLM) -> None:
    """Refuse, before any pair runs, heads and layers that the model does not have.

    Raises
    ------
    InputError
        If so.
    """
    grid = vlm.lm.grid
    check_window(study.path, grid)
    nothing = np.zeros((len(DIRECTIONS), grid.layers, grid.heads))
    choose(grid, study.path, lambda: nothing, lambda: tuple(grid))


def follow(
    study: Study,
    vlm: VLM,
    survey: Survey,
    store: Store,
    stages: Stages | None = None,
) -> FollowedPaths:
    """Follow the object through the model on every pair.

    Parameters
    ----------
    survey
        Of positions ``answer``.
    store
        Where finished pairs are taken from, and kept.
    stages
        Told what is done; None tells nobody.

    Raises
    ------
    InputError
        If a pair cannot be run, or rankings pick heads and there are too few pairs to pick on some
        and judge on others.
    """
    options, stages = study.path, stages or reporting(None)
    check(study, vlm)
    with stages("Ranking heads by effect") as advance:
        chosen = choose_heads(study, options, "answer", vlm, survey, advance)
    judged = {entry.name for entry in chosen.entries}
    heads = {entry.name: chosen.heads if entry.name in judged else () for entry in survey.entries}
    with stages("Following the object") as advance:
        found = []
        for one in _followed(study, vlm, survey, heads, store):
            found.append(one)
            advance(len(found), len(survey.entries))
    over = OverPairs.of(study, [one.table for one in found])
    floor = max(one.noise_floor for one in found)
    gated = [one for one in survey.gated if one.entry.name in heads]
    saved = (
        over.saved()
        | scale_of(study, vlm)
        | {
            "pairs": len(found),
            "pairs_heads": len(chosen.entries),
            "level": study.pairs.level,
            "noise_floor": floor,
            "ld_with": float(np.mean([one.ld_with for one in gated])),
            "ld_without": float(np.mean([one.ld_without for one in gated])),
            "valid": survey.valid,
            "question": survey.question,
            "region_name": survey.region_name,
        }
    )
    return FollowedPaths(
        with_head_columns(pd.concat([one.table for one in found], ignore_index=True), "head_layer"),
        over.table,
        saved,
        floor,
        sentences(over, chosen.chosen_on, survey.valid, floor),
        sum(not one.resumed for one in found),
        next((one.why_not for one in found if one.why_not), ""),
    )


def _followed(
    study: Study,
    vlm: VLM,
    survey: Survey,
    heads: Mapping[str, tuple[Head, ...]],
    store: Store,
) -> Iterator[KeptPair]:
    """Yield every pair, in order: as it was finished before, or measured and kept now."""
    entries = survey.entries
    rows = {entry.name: entry.where for entry in entries}
    keys = {entry.name: _key(study, vlm, entry, heads[entry.name]) for entry in entries}

    def measure(session: Session) -> dict[str, Any]:
        name = session.pair.name
        try:
            return KeptPair.measured(session, heads[name]).to_saved()
        except InputError as error:
            where = f"{rows[name]}, {error.argument}"
            raise InputError(where, error.found, error.expected, error.hint) from None

    for _, saved in measured(study, vlm, entries, keys, "answer", store, measure, Checks()):
        yield KeptPair.from_saved(saved)


def _key(study: Study, vlm: VLM, entry: Entry, heads: tuple[Head, ...]) -> str:
    options = {"edges": study.path.edges, "window": study.path.window}
    asked = {"path to": [str(head) for head in heads], **options}
    return unit_key(study, vlm, entry.pair(), asked)
