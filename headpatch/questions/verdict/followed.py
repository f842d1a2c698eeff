"""What claims need beside a verdict, measured pair by pair: see `headpatch.stats.followed`."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from headpatch.core.finished_pairs import measured
from headpatch.core.session import Session
from headpatch.core.store import Store, unit_key
from headpatch.core.study import Study
from headpatch.engine.patching import OnProgress
from headpatch.engine.selfcheck import Checks
from headpatch.models.vlm import VLM
from headpatch.pairs.manifest import Entry
from headpatch.questions.verdict.followed_pair import Figures, measure_pair
from headpatch.questions.verdict.halves import halve
from headpatch.stats.followed import Ask, Followed

COLUMNS = ("what", "figure", "pair", "value", "why_not")
"""Of ``followed.csv``, but for those that say of what its rows are."""


def pairs_followed(study: Study, passed: Sequence[Entry]) -> tuple[Entry, ...]:
    """Return the pairs on which claims are followed up: the first of those that judge.

    Raises
    ------
    InputError
        If the pairs are too few for a verdict.
    """
    return halve(study, passed).confirmation[: study.verdict.followed]


def passes(study: Study, ask: Ask, vision_layers: int) -> int:
    """Return how many forward passes an ask takes at most, on one pair.

    Parameters
    ----------
    vision_layers
        Of the model.
    """
    match ask.kind:
        case "together":
            return 2 * len(ask.heads) + 1
        case "interaction":
            return 2 * (len(ask.heads) + 1)
        case "vision span":
            first, last = ask.layers
            return 1 + vision_layers // (last + 1 - first)
        case "cut":
            return 2 * (2 + study.cut.controls)
        case _:
            return 1


def follow(
    study: Study,
    vlm: VLM,
    entries: Sequence[Entry],
    asks: Sequence[Ask],
    store: Store,
    on_progress: OnProgress | None = None,
) -> dict[str, Followed]:
    """Do to every pair what is asked; return what came of it, by the name of each ask.

    Parameters
    ----------
    store
        Where finished pairs are kept; those that are there are not run again.
    on_progress
        Called with (done, total), in pairs.
    """
    keys = {entry.name: _key(study, vlm, entry, asks) for entry in entries}
    found: list[Mapping[str, Figures]] = []
    why_not: dict[str, str] = {}

    checks = Checks()

    def measure(session: Session) -> Mapping[str, Any]:
        return dict(measure_pair(session, asks, checks))

    for _, saved in measured(
        study, vlm, entries, keys, study.verdict.positions, store, measure, checks
    ):
        found.append(saved["figures"])
        why_not |= saved["why_not"]
        if on_progress:
            on_progress(len(found), len(entries))
    return {
        one.name: Followed({}, why_not[one.name])
        if one.name in why_not
        else Followed(_columns([figures[one.name] for figures in found]))
        for one in asks
    }


def _columns(rows: Sequence[Figures]) -> dict[str, np.ndarray]:
    everywhere = [name for name in rows[0] if all(name in row for row in rows)]
    return {name: np.array([row[name] for row in rows]) for name in everywhere}


def _key(study: Study, vlm: VLM, entry: Entry, asks: Sequence[Ask]) -> str:
    asked = {
        "followed": [one.name for one in asks],
        "positions": study.verdict.positions,
        "controls": study.cut.controls,
    }
    return unit_key(study, vlm, entry.pair(), asked)


def table_of(followed: Mapping[str, Followed], pairs: Sequence[str]) -> pd.DataFrame:
    """Return the columns of ``followed.csv``: a row for each pair and figure."""
    rows = []
    for what, one in followed.items():
        for figure, values in one.figures.items():
            each = zip(pairs, values.tolist(), strict=True)
            rows += [(what, figure, pair, value, "") for pair, value in each]
        if one.why_not:
            rows.append((what, "", "", float("nan"), one.why_not))
    return pd.DataFrame(rows, columns=list(COLUMNS))


def from_table(table: pd.DataFrame) -> dict[str, Followed]:
    """Read back what `table_of` gave."""
    texts = table.astype({"figure": object, "why_not": object})  # an empty column is read as NaN
    found = {}
    for what, rows in texts.fillna({"figure": "", "why_not": ""}).groupby("what", sort=False):
        figures = {
            str(name): one["value"].to_numpy(dtype=np.float64)
            for name, one in rows.groupby("figure", sort=False)
            if name
        }
        found[str(what)] = Followed(figures, str(rows["why_not"].iloc[0]))
    return found
