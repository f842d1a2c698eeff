"""Rows of one pair after the other, and their means over pairs with intervals.

The pair is the unit: all figures of a pair are resampled together. A mean is that of the dataset's
pairs; its interval says how far it might move with other pairs like them.
"""

from typing import TypeAlias

import numpy as np
import pandas as pd
from jaxtyping import Float

from headpatch.core.baseline_runs import LEAST
from headpatch.core.study import Study
from headpatch.present.head_columns import with_head_columns
from headpatch.stats.intervals import mean_interval

Values = Float[np.ndarray, "pairs rows"]
Row: TypeAlias = Float[np.ndarray, " rows"]
_KEYS = ["heads", "kind", "direction", "positions", "role"]


class Gathered:
    """The named rows of one pair after the other, as arrays.

    Parameters
    ----------
    columns
        Gathered, beside the share of pairs whose answer changed.
    """

    def __init__(self, *columns: str) -> None:
        self.keys = pd.DataFrame()
        self._columns = columns
        self._rows: dict[str, list[Row]] = {name: [] for name in (*columns, "answer_changed")}

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
            ends = intervals(study, self.values(name))
            table[name], table[f"{name}_low"], table[f"{name}_high"] = ends
        table["answer_changed"] = self.values("answer_changed").mean(0)
        table["pairs"] = int(np.isfinite(self.values("normalized")).all(1).sum())
        return with_head_columns(table)


def intervals(study: Study, values: Values) -> tuple[Row, Row, Row]:
    """Return mean over pairs, low and high.

    Over the pairs that have all figures; NaN in a column in which no pair has one.
    """
    there = ~np.isnan(values).all(0)
    mean, low, high = np.full((3, values.shape[1]), np.nan)
    pairs = np.isfinite(values[:, there]).all(1)
    if pairs.sum() >= LEAST and there.any():
        options = study.pairs
        rng = np.random.default_rng(study.seed % 2**64)  # numpy takes no negative seed
        found = mean_interval(values[pairs][:, there], options.level, options.resamples, rng)
        mean[there], low[there], high[there] = found.mean, found.low, found.high
    return mean, low, high
