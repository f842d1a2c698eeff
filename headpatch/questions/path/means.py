"""The views of many pairs, row by row: what each pair showed, means and their intervals.

Pairs are aligned by what a row is about (`headpatch.questions.path.rows.KEYS`): by classes of
tokens, not by the tokens' places, since the region lies elsewhere in other pairs. A row that some
pairs do not have is a mean over those that do.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float

from headpatch.core.aggregate import Row, Values, intervals
from headpatch.core.study import Study
from headpatch.present.head_columns import with_head_columns
from headpatch.questions.path.rows import KEYS, curves, labels, tensor
from headpatch.questions.path.words import HALF
from headpatch.stats.intervals import Interval

_ENDS = ("", "_low", "_high")


@dataclass(frozen=True, eq=False)
class OverPairs:
    """The views of many pairs.

    Attributes
    ----------
    keys
        What each row is about: the columns `KEYS`.
    normalized, effect
        ``[pairs, rows]``: shares, and logits; NaN where a pair has no such row.
    """

    study: Study
    keys: pd.DataFrame
    normalized: Values
    effect: Values

    @classmethod
    def of(cls, study: Study, tables: Sequence[pd.DataFrame]) -> "OverPairs":
        """Align the rows of one pair after the other."""
        asked = [list(zip(*(table[name] for name in KEYS), strict=True)) for table in tables]
        place = {key: row for row, key in enumerate(dict.fromkeys(k for one in asked for k in one))}
        shape = len(tables), len(place)
        found = {name: np.full(shape, np.nan) for name in ("normalized", "effect")}
        for pair, (table, rows) in enumerate(zip(tables, asked, strict=True)):
            at = [place[key] for key in rows]
            for name, values in found.items():
                values[pair, at] = table[name].to_numpy(dtype=np.float64)
        return cls(study, pd.DataFrame(list(place), columns=list(KEYS)), **found)

    def of_rows(self, rows: Bool[np.ndarray, " rows"]) -> Float[np.ndarray, "pairs chosen"]:
        """Return the shares of some rows, of the pairs that have them all."""
        found = self.normalized[:, rows]
        whole: Float[np.ndarray, "pairs chosen"] = found[np.isfinite(found).all(1)]
        return whole

    def curve(self, **where: str) -> Float[np.ndarray, "pairs layers"]:
        """Return a curve over the layers, of the pairs that have it; by columns of `keys`."""
        return self.of_rows(self.rows(**where))

    def rows(self, **where: str) -> Bool[np.ndarray, " rows"]:
        """Say which rows have these values in these columns of `keys`."""
        found: Bool[np.ndarray, " rows"] = np.ones(len(self.keys), dtype=bool)
        for name, value in where.items():
            found &= (self.keys[name] == value).to_numpy()
        return found

    def interval(self, values: Float[np.ndarray, "pairs columns"]) -> Interval:
        """Return means over pairs and the study's intervals; NaN if pairs are too few."""
        return Interval(*intervals(self.study, values))

    @cached_property
    def table(self) -> pd.DataFrame:
        """The columns of ``path_mean.csv``: a row for each figure.

        `KEYS`; means and interval ends of ``effect`` (logits) and ``normalized``; ``pairs`` that
        have the row, and ``half``: how many of them have a share of one half or more.
        """
        table = self.keys.copy()
        for name, values in (("effect", self.effect), ("normalized", self.normalized)):
            for end, column in zip(_ENDS, self._intervals(values), strict=True):
                table[f"{name}{end}"] = column
        table["pairs"] = np.isfinite(self.normalized).sum(0)
        table["half"] = (self.normalized >= HALF).sum(0)
        return with_head_columns(table, "head_layer")

    def saved(self) -> dict[str, Any]:
        """Return what ``path.pt`` holds of the means: as of one pair, ``…_low`` and ``…_high``."""
        found: dict[str, Any] = {}
        for end in _ENDS:
            here = curves(self.table, f"normalized{end}")
            found |= {f"{name}{end}": values for name, values in here.items()}
        heads = self.curve(view="direct", where="head")
        if heads.size:
            layers = self.keys.loc[self.rows(view="direct", where="head"), "layer"].nunique()
            sums = self.interval(heads.reshape(len(heads), layers, -1).sum(-1))
            for end, values in zip(_ENDS, (sums.mean, sums.low, sums.high), strict=True):
                found[f"attribution_layers{end}"] = tensor(values)
        return found | labels(self.table)

    def _intervals(self, values: Values) -> tuple[Row, Row, Row]:
        """Return means, low and high ends; each row over the pairs that have it."""
        low, high, mean = np.full((3, values.shape[1]), np.nan)
        there = np.isfinite(values)
        for pattern in np.unique(there, axis=1).T:
            rows = (there == pattern[:, None]).all(0)
            mean[rows], low[rows], high[rows] = intervals(self.study, values[:, rows])
        return mean, low, high
