"""Every figure of the views as a row of one table, over pairs, and its curves as tensors.

Pairs are aligned by what a row is about: by classes of tokens, not by the tokens' places, since the
region lies elsewhere in other pairs. A row that some pairs lack is a mean over those that have it.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypeAlias

import numpy as np
import pandas as pd
import torch
from jaxtyping import Bool, Float
from numpy.typing import ArrayLike
from torch import Tensor

from headpatch.core.aggregate import Values, aggregate, intervals
from headpatch.core.session import Session
from headpatch.core.stream_swaps import Curves
from headpatch.core.study import Study
from headpatch.heads import Head, Tower
from headpatch.questions.path.columns import PATH
from headpatch.questions.path.heads import HeadPaths
from headpatch.questions.path.views import Attribution, Views
from headpatch.stats.intervals import Interval

HALF = 0.5
"""The share of the difference that counts as carrying it."""
ENDS = ("", "_low", "_high")
KEYS = PATH.keys
"""Columns that say what a row is about; the same for every pair of pictures."""
ByDirection: TypeAlias = dict[str, Tensor]
_VISION = "keys+values from region of the vision layer"


def rows_of(session: Session, views: Views) -> pd.DataFrame:
    """Return the columns of ``path.csv`` but the parts of ``heads``.

    ``effect`` is in logits, ``normalized`` a share of the difference between the pair's runs.
    """
    rows = [
        row
        for tower, effects in views.stream.effects.items()
        for row in _over_layers("stream", tower, effects, views.stream.shares[tower])
    ]
    rows += _over_layers("edge", "lm", views.edges.effects, views.edges.shares)
    if views.attribution is not None:
        rows += _direct(views.attribution, session.base.ld_with - session.base.ld_without)
    if views.heads is not None:
        rows += _head_paths(views.heads)
    table = pd.DataFrame(rows, columns=[*KEYS, "effect", "normalized"])
    table.insert(0, "pair", session.pair.name)
    return table


def _over_layers(
    view: str, tower: Tower, effects: Curves, shares: Curves
) -> Iterator[tuple[Any, ...]]:
    for where, by_way in effects.items():
        for way, curve in by_way.items():
            figures = zip(curve, shares[where][way], strict=True)
            for layer, (effect, share) in enumerate(figures):
                yield view, tower, layer, where, "", way, effect, share


def _direct(parts: Attribution, gap: float) -> Iterator[tuple[Any, ...]]:
    for layer, shares in enumerate(parts.heads):
        named = [("head", str(Head(layer, head)), share) for head, share in enumerate(shares)]
        named += [("mlp", "", parts.mlps[layer]), ("rest", "", parts.rest[layer])]
        for where, heads, share in named:
            yield "direct", "lm", layer, where, heads, "", share * gap, share


def _head_paths(paths: HeadPaths) -> Iterator[tuple[Any, ...]]:
    names = [str(members) for members in paths.sets]
    for way, effects in paths.effects.items():
        for (index, place), effect in np.ndenumerate(effects):
            where = " from ".join(paths.ways[index])
            share = paths.shares[way][index, place]
            yield "head path", "lm", "", where, names[place], way, effect, share
    for way, effects in paths.vision_effects.items():
        for (layer, place), effect in np.ndenumerate(effects):
            share = paths.vision_shares[way][layer, place]
            yield "head path", "vision", layer, _VISION, names[place], way, effect, share


@dataclass(frozen=True, eq=False)
class OverPairs:
    """The rows of one pair or of many.

    Attributes
    ----------
    keys
        What each row is about: the columns `KEYS`.
    shares
        NaN where a pair has no such row.
    """

    study: Study
    tables: Sequence[pd.DataFrame]
    keys: pd.DataFrame
    shares: Values

    @classmethod
    def of(cls, study: Study, tables: Sequence[pd.DataFrame]) -> "OverPairs":
        """Align the rows of one pair after the other."""
        asked = [list(zip(*(table[name] for name in KEYS), strict=True)) for table in tables]
        place = {
            key: row for row, key in enumerate(dict.fromkeys(k for keys in asked for k in keys))
        }
        shares = np.full((len(tables), len(place)), np.nan)
        for pair, (table, rows) in enumerate(zip(tables, asked, strict=True)):
            shares[pair, [place[key] for key in rows]] = table["normalized"].to_numpy(np.float64)
        return cls(study, tables, pd.DataFrame(list(place), columns=KEYS), shares)

    @property
    def many(self) -> bool:
        """Whether figures are means over pairs, with intervals."""
        return len(self.tables) > 1

    def of_rows(self, rows: Bool[np.ndarray, " rows"]) -> Float[np.ndarray, "pairs chosen"]:
        """Return the shares of some rows, of the pairs that have them all."""
        shares = self.shares[:, rows]
        whole: Float[np.ndarray, "pairs chosen"] = shares[np.isfinite(shares).all(1)]
        return whole

    def curve(self, **where: str) -> Float[np.ndarray, "pairs layers"]:
        """Return a curve over the layers, of the pairs that have it; by columns of `keys`."""
        return self.of_rows(self.rows(**where))

    def rows(self, **where: str) -> Bool[np.ndarray, " rows"]:
        """Say which rows have these values in these columns of `keys`."""
        held: Bool[np.ndarray, " rows"] = np.ones(len(self.keys), dtype=bool)
        for name, value in where.items():
            held &= (self.keys[name] == value).to_numpy()
        return held

    def interval(self, values: Float[np.ndarray, "pairs columns"]) -> Interval:
        """Return means over pairs and the study's intervals; NaN if pairs are too few.

        Of one pair all three are its own figures.
        """
        if not self.many and len(values):
            return Interval(values[0], values[0], values[0])
        return Interval(*intervals(self.study, values))

    @cached_property
    def means(self) -> pd.DataFrame:
        """The columns of ``path_mean.csv``: a row for each figure."""
        half = (self.shares >= HALF).sum(0)
        return aggregate(self.tables, PATH, self.study).assign(half=half)

    def saved(self) -> dict[str, Any]:
        """Return the curves that ``path.pt`` holds; of many pairs with ``…_low``, ``…_high``."""
        if not self.many:
            (table,) = self.tables
            return curves(table, "normalized") | _labels(table)
        saved: dict[str, Any] = {}
        for end in ENDS:
            by_name = curves(self.means, f"normalized{end}")
            saved |= {f"{name}{end}": values for name, values in by_name.items()}
        heads = self.curve(view="direct", where="head")
        if heads.size:
            layers = self.keys.loc[self.rows(view="direct", where="head"), "layer"].nunique()
            sums = self.interval(heads.reshape(len(heads), layers, -1).sum(-1))
            for end, values in zip(ENDS, (sums.mean, sums.low, sums.high), strict=True):
                saved[f"attribution_layers{end}"] = _tensor(values)
        return saved | _labels(self.means)


def curves(table: pd.DataFrame, column: str) -> dict[str, Any]:
    """Return a column of one pair's rows, or of their means, as ``path.pt`` holds it.

    Curves over the layers by tokens (or edge) and direction, and what named heads hear by
    direction; ``attribution_…`` where LD was attributed.
    """
    view, tower = table["view"], table["tower"]
    direct, paths = table[view == "direct"], table[view == "head path"]
    by_name: dict[str, Any] = {
        "stream": _by_layer(table[(view == "stream") & (tower == "lm")], column),
        "vision": _by_layer(table[(view == "stream") & (tower == "vision")], column),
        "edges": _by_layer(table[view == "edge"], column),
        "head_paths": _by_set(paths[paths["tower"] == "lm"], column),
        "head_paths_from_vision": _by_set(paths[paths["tower"] == "vision"], column),
    }
    if len(direct):
        parts = {name: _tensor(rows[column]) for name, rows in direct.groupby("where", sort=False)}
        layers = len(parts["mlp"])
        by_name["attribution_heads"] = parts["head"].view(layers, -1)
        by_name["attribution_mlps"], by_name["attribution_rest"] = parts["mlp"], parts["rest"]
    return by_name


def _labels(table: pd.DataFrame) -> dict[str, Any]:
    """Return what stands along the axes of ``head_paths``: sets of heads, and ways."""
    paths = table[(table["view"] == "head path") & (table["tower"] == "lm")]
    ways = (str(where).partition(" from ") for where in paths["where"].unique())
    return {
        "heads": [str(heads) for heads in paths["heads"].unique()],
        "ways": [[inputs, sender] for inputs, _, sender in ways],
    }


def _tensor(values: ArrayLike) -> Tensor:
    return torch.tensor(np.asarray(values, dtype=np.float64), dtype=torch.float32)


def _by_layer(table: pd.DataFrame, column: str) -> dict[str, ByDirection]:
    by_name: dict[str, ByDirection] = {}
    for (where, way), rows in table.groupby(["where", "direction"], sort=False):
        by_name.setdefault(str(where), {})[str(way)] = _tensor(rows[column])
    return by_name


def _by_set(table: pd.DataFrame, column: str) -> ByDirection:
    """Cut rows into one tensor a direction: ``[ways or vision layers, sets]``."""
    return {
        str(way): _tensor(rows[column]).view(-1, rows["heads"].nunique())
        for way, rows in table.groupby("direction", sort=False)
    }
