"""Rows of one pair after the other, and their means over pairs with intervals.

The scene is the unit (`headpatch.stats.scenes`): a pair of its own, or pairs that share pictures. A
mean is that of the scenes' means, so that it is the middle of its interval; all figures of a scene
are resampled together. The interval says how far the mean might move with other scenes like them.
"""

from collections.abc import Hashable, Sequence
from typing import Literal, TypeAlias

import numpy as np
import pandas as pd
from jaxtyping import Float, Int

from headpatch.core.baseline_runs import LEAST
from headpatch.core.ratio_columns import gaps_of, ratio_columns
from headpatch.core.study.study import Study
from headpatch.present.column import Schema
from headpatch.present.head_columns import with_head_columns
from headpatch.stats.intervals import mean_interval
from headpatch.stats.scenes import Scenes, by_scene

Values = Float[np.ndarray, "pairs rows"]
Row: TypeAlias = Float[np.ndarray, " rows"]
Places: TypeAlias = Int[np.ndarray, " own_rows"]


def intervals(study: Study, values: Values, scenes: Scenes) -> tuple[Row, Row, Row]:
    """Return mean, low and high over the scenes of the pairs that have all figures.

    NaN where no pair has one, or where fewer than `LEAST` scenes are left.
    """
    there = ~np.isnan(values).all(0)
    mean, low, high = np.full((3, values.shape[1]), np.nan)
    known = np.asfortranarray(values) if there.all() else values[:, there]
    pairs = np.isfinite(known).all(1)
    each = by_scene(known if pairs.all() else values[pairs][:, there], scenes[pairs])
    if len(each) >= LEAST and there.any():
        options = study.pairs
        rng = np.random.default_rng(study.seed % 2**64)  # numpy takes no negative seed
        found = mean_interval(each, options.level, options.resamples, rng)
        mean[there], low[there], high[there] = found.mean, found.low, found.high
    return mean, low, high


Gaps: TypeAlias = Literal["pair", "pattern"]
"""What is done with a row that a pair lacks or has no figure of: with ``pair`` the pair is left out
of all intervals of the column; with ``pattern`` of those of the rows that it lacks."""


def aggregate(
    tables: Sequence[pd.DataFrame],
    schema: Schema,
    study: Study,
    scenes: Scenes,
    *,
    gaps: Gaps = "pattern",
    ld_gaps: Float[np.ndarray, " pairs"] | None = None,
) -> pd.DataFrame:
    """Return means over pairs with intervals: the one place where pairs become one figure.

    Rows of the tables, one a pair, are aligned by the schema's keys; columns that it marks with
    ``interval`` are averaged over scenes. Of one scene there is no interval. Returns keys, then
    ``…``, ``…_low`` and ``…_high`` of each column, and ``pairs``: those that have a figure in the
    last column. Columns marked with ``ratio`` get what `headpatch.core.ratio_columns` says;
    `ld_gaps` are the pairs' LD_with - LD_without (logits), None where the tables have both.
    """
    keys = [name for name in schema.keys if name != "pair" and name in tables[0]]
    asked, place = _places(tables, keys)
    found = pd.DataFrame(place, columns=keys)
    values: Values = np.full((len(tables), len(place)), np.nan)
    ld_gaps = gaps_of(tables) if ld_gaps is None else ld_gaps
    averaged = ((one.name, one.ratio) for one in schema if one.interval and one.name in tables[0])
    for column, ratio in averaged:
        values = np.full((len(tables), len(place)), np.nan)
        for pair, (table, rows) in enumerate(zip(tables, asked, strict=True)):
            values[pair, rows] = table[column].to_numpy(dtype=np.float64)
        over = intervals if gaps == "pair" else _by_pattern
        ends = over(study, values, scenes)
        found[column], found[f"{column}_low"], found[f"{column}_high"] = ends
        if ratio and ld_gaps is not None:
            names = [str(table["pair"].iloc[0]) for table in tables]
            beside = ratio_columns(study, values, ld_gaps, names, gaps == "pair", scenes)
            found = found.assign(**{f"{column}{end}": value for end, value in beside.items()})
    found["pairs"] = np.isfinite(values).sum(0)
    layer = "head_layer" if "layer" in keys else "layer"
    return with_head_columns(found, layer) if "heads" in keys else found


def scene_mean(tables: Sequence[pd.DataFrame], schema: Schema, column: str, scenes: Scenes) -> Row:
    """Return a column's mean over scenes without an interval, by the rows of `aggregate`."""
    keys = [name for name in schema.keys if name != "pair" and name in tables[0]]
    rows = pd.concat(
        table[[*keys, column]].assign(_scene=scene)
        for table, scene in zip(tables, scenes.tolist(), strict=True)
    )
    by_scene_and_row = rows.groupby([*keys, "_scene"], sort=False, dropna=False)[column].mean()
    by_row = by_scene_and_row.groupby(keys, sort=False, dropna=False)
    return np.asarray(by_row.mean())


def _places(
    tables: Sequence[pd.DataFrame], keys: Sequence[str]
) -> tuple[list[Places], list[tuple[Hashable, ...]]]:
    """Return the place of each table's rows among all that differ, and what these are about."""
    place: dict[tuple[Hashable, ...], int] = {}
    found: list[Places] = []
    last: pd.DataFrame | None = None
    for table in tables:
        own = table[list(keys)]
        if last is None or not own.equals(last):  # most pairs have the same rows
            at = [place.setdefault(key, len(place)) for key in _keys_of(own)]
            found.append(np.array(at, dtype=np.int64))
            last = own
        else:
            found.append(found[-1])
    return found, list(place)


def _keys_of(table: pd.DataFrame) -> list[tuple[Hashable, ...]]:
    """Return what each row is about; nothing is None, since NaN is not itself."""
    cells = table.astype(object).where(table.notna(), None)
    return list(cells.itertuples(index=False, name=None))


def answer_changed(tables: Sequence[pd.DataFrame], schema: Schema) -> Row:
    """Return the share of pairs whose first answer token changed, by the rows of `aggregate`."""
    keys = [name for name in schema.keys if name != "pair" and name in tables[0]]
    asked, place = _places(tables, keys)
    changed, count = np.zeros((2, len(place)))
    for table, rows in zip(tables, asked, strict=True):
        differs = (table["answer_before"] != table["answer_after"]).to_numpy(dtype=np.float64)
        changed += np.bincount(rows, differs, len(place))
        count += np.bincount(rows, minlength=len(place))
    return changed / count


def _by_pattern(study: Study, values: Values, scenes: Scenes) -> tuple[Row, Row, Row]:
    mean, low, high = np.full((3, values.shape[1]), np.nan)
    there = np.isfinite(values)
    for pattern in np.unique(there, axis=1).T:
        rows = (there == pattern[:, None]).all(0)
        mean[rows], low[rows], high[rows] = intervals(study, values[:, rows], scenes)
    return mean, low, high
