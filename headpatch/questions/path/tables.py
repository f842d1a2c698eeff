"""Every view of a pair of pictures as rows of one table, and the rows of many pairs, aligned.

Four views, each exact:

- *The stream.* The residual stream of one run is put into the other, at one class of tokens of one
  layer (`headpatch.core.stream_swaps`). 1 means: at this depth these tokens hold all that tells the
  runs apart.
- *Edges.* Attention from some tokens to others is cut in windows of layers around every layer
  (`headpatch.core.edge_cuts`): it shows when an edge is read.
- *Direct attribution.* What each head and MLP writes straight into LD = logit(Yes) - logit(No), in
  the with-run less the without-run: a sum, exactly (`headpatch.engine.direct`).
- *Paths to heads.* What named heads hear, input by input (`headpatch.questions.path.heads`).

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
from headpatch.core.edge_cuts import CutTable, Cutting, cut_edges
from headpatch.core.progress import Stages
from headpatch.core.session import Session
from headpatch.core.stream_swaps import StreamCurves, streams
from headpatch.core.study.study import Study
from headpatch.engine.direct import take_apart
from headpatch.engine.patching import WITH, WITHOUT
from headpatch.errors import RunError
from headpatch.heads import Head
from headpatch.questions.path.columns import PATH
from headpatch.questions.path.heads import Row, head_paths
from headpatch.stats.intervals import Interval
from headpatch.stats.scenes import Scenes

HALF = 0.5
"""The share of the difference that counts as carrying it."""
KEYS = PATH.keys
"""Columns that say what a row is about; the same for every pair of pictures."""
ByDirection: TypeAlias = dict[str, Tensor]
_ENDS = ("", "_low", "_high")


@dataclass(frozen=True, eq=False)
class MeasuredPair:
    """What is kept of a pair.

    Attributes
    ----------
    table
        Its rows of ``path.csv``, but for the layer and number of heads.
    noise_floor
        The largest of the views', in logits.
    resumed
        Whether passes with a swapped stream were resumed at that layer, or all were whole.
    why_not
        Why LD cannot be attributed to the model's parts; empty if it is.
    """

    table: pd.DataFrame
    noise_floor: float
    resumed: bool
    why_not: str

    @classmethod
    def of(cls, session: Session, heads: Sequence[Head], stages: Stages) -> "MeasuredPair":
        """Measure every view; paths to `heads`, if there are any."""
        with stages("Swapping the stream") as advance:
            swapped = streams(session, advance)
        options = session.study.path
        with stages("Cutting edges") as advance:
            settings = Cutting(options.edges, options.window)
            cuts = cut_edges(session, settings, on_progress=advance)
        rows, why_not = [*_stream(swapped), *_edges(cuts)], ""
        floors = [swapped.noise_floor, cuts.noise_floor]
        try:
            rows += _direct(attribute(session), session.base.ld_with - session.base.ld_without)
        except RunError as error:
            why_not = str(error)
        if heads:
            with stages("Patching paths to heads") as advance:
                paths = head_paths(session, heads, advance)
            rows += paths.rows
            floors.append(paths.noise_floor)
        table = pd.DataFrame(rows, columns=[*KEYS, "effect", "normalized"])
        table.insert(0, "pair", session.pair.name)
        return cls(table, max(floors), swapped.resumed, why_not)


def attribute(session: Session) -> Float[np.ndarray, "layers parts"]:
    """Return what each head, the MLP and the rest of a layer write straight into LD, as shares.

    The with-run less the without-run, each with its own frozen scale of the final norm; they add up
    to 1. The rest are biases and, in layer 0, the embedding.
    """
    parts = take_apart(session.vlm, session.prompt).parts
    gap = float(parts.ld[WITH] - parts.ld[WITHOUT])

    def share(values: Tensor) -> Float[np.ndarray, "*shape"]:
        scaled = values.double() * parts.scale.double().view(-1, *[1] * (values.ndim - 1))
        return (scaled[WITH] - scaled[WITHOUT]).numpy() / (gap or np.nan)

    rest = share(parts.biases)
    rest[0] += share(parts.start[:, None])[0]
    return np.column_stack([share(parts.heads), share(parts.mlps), rest])


def _stream(swapped: StreamCurves) -> Iterator[Row]:
    for tower, by_name in swapped.effects.items():
        for where, by_way in by_name.items():
            for way, effects in by_way.items():
                shares = swapped.shares[tower][where][way]
                for layer, (effect, share) in enumerate(zip(effects, shares, strict=True)):
                    yield "stream", tower, layer, where, "", way, effect, share


def _edges(cuts: CutTable) -> Iterator[Row]:
    by_curve = cuts.named.groupby(["edge", "run"], sort=False)
    for (edge, run), rows in by_curve:
        way = "noising" if run == "with" else "denoising"
        for centre, *figures in rows[["centre", "effect", "normalized"]].to_numpy(np.float64):
            yield "edge", "lm", int(centre), edge, "", way, *figures


def _direct(parts: Float[np.ndarray, "layers parts"], gap: float) -> Iterator[Row]:
    for layer, shares in enumerate(parts):
        for part, share in enumerate(shares):
            where = {len(shares) - 2: "mlp", len(shares) - 1: "rest"}.get(part, "head")
            head = str(Head(layer, part)) if where == "head" else ""
            yield "direct", "lm", layer, where, head, "", share * gap, share


class OverPairs:
    """The rows of one pair or of many.

    Attributes
    ----------
    keys
        What each row is about: the columns `KEYS`.
    shares
        NaN where a pair has no such row.
    ld_gaps
        LD_with - LD_without of each pair (logits), for many.
    """

    def __init__(
        self,
        study: Study,
        tables: Sequence[pd.DataFrame],
        scenes: Scenes,
        ld_gaps: Float[np.ndarray, " pairs"] | None = None,
    ) -> None:
        self.study, self.tables, self.scenes, self.ld_gaps = study, tables, scenes, ld_gaps
        by_pair = pd.concat([table.set_index(KEYS)["normalized"] for table in tables], axis=1)
        self.keys = by_pair.index.to_frame(index=False)
        self.shares: Values = np.ascontiguousarray(by_pair.to_numpy(np.float64).T)

    @property
    def many(self) -> bool:
        """Whether figures are means over pairs, with intervals."""
        return len(self.tables) > 1

    def curve(self, **where: str) -> Float[np.ndarray, "pairs layers"]:
        """Return the rows with these values in these columns of `keys`, of pairs that have all."""
        return np.asarray(self.shares[self.whole(**where)][:, self.rows(**where)])

    def whole(self, **where: str) -> Bool[np.ndarray, " pairs"]:
        """Say which pairs have all rows with these values in these columns of `keys`."""
        return np.asarray(np.isfinite(self.shares[:, self.rows(**where)]).all(1))

    def rows(self, **where: str) -> Bool[np.ndarray, " rows"]:
        """Say which rows have these values in these columns of `keys`."""
        held: Bool[np.ndarray, " rows"] = np.ones(len(self.keys), dtype=bool)
        for name, value in where.items():
            held &= (self.keys[name] == value).to_numpy()
        return held

    def interval(self, values: Float[np.ndarray, "pairs columns"], **where: str) -> Interval:
        """Return means over scenes and the study's intervals; NaN if scenes are too few.

        `values` are of the pairs of `curve` for `where`. Of one pair all three are its own figures.
        """
        if not self.many and len(values):
            return Interval(values[0], values[0], values[0])
        return Interval(*intervals(self.study, values, self.scenes[self.whole(**where)]))

    @cached_property
    def means(self) -> pd.DataFrame:
        """The columns of ``path_mean.csv``: a row for each figure."""
        half = (self.shares >= HALF).sum(0)
        means = aggregate(self.tables, PATH, self.study, self.scenes, ld_gaps=self.ld_gaps)
        return means.assign(half=half)

    def saved(self) -> dict[str, Any]:
        """Return the curves that ``path.pt`` holds; of many pairs with ``…_low``, ``…_high``."""
        table = self.means if self.many else self.tables[0]
        saved: dict[str, Any] = {}
        for end in _ENDS if self.many else _ENDS[:1]:
            by_name = _curves(table, f"normalized{end}")
            saved |= {f"{name}{end}": values for name, values in by_name.items()}
        heads = self.curve(view="direct", where="head")
        if self.many and heads.size:
            layers = self.keys.loc[self.rows(view="direct", where="head"), "layer"].nunique()
            by_layer = heads.reshape(len(heads), layers, -1).sum(-1)
            sums = self.interval(by_layer, view="direct", where="head")
            for end, values in zip(_ENDS, (sums.mean, sums.low, sums.high), strict=True):
                saved[f"attribution_layers{end}"] = _tensor(values)
        paths = table[(table["view"] == "head path") & (table["tower"] == "lm")]
        ways = (str(where).partition(" from ") for where in paths["where"].unique())
        return saved | {
            "heads": [str(heads) for heads in paths["heads"].unique()],
            "ways": [[inputs, sender] for inputs, _, sender in ways],
        }


def _curves(table: pd.DataFrame, column: str) -> dict[str, Any]:
    """Return a column of one pair's rows, or of their means, as ``path.pt`` holds it.

    Curves over the layers by tokens (or edge) and direction, and what named heads hear by
    direction; ``attribution_…`` where LD was attributed.
    """
    view, tower = table["view"], table["tower"]
    direct, paths = table[view == "direct"], table[view == "head path"]
    stream = table[(view == "stream") & (tower == "lm")]
    by_name: dict[str, Any] = {
        "stream": _by_layer(stream, column),
        "vision": _by_layer(table[(view == "stream") & (tower == "vision")], column),
        "edges": _by_layer(table[view == "edge"], column, int(stream["layer"].max()) + 1),
        "head_paths": _by_set(paths[paths["tower"] == "lm"], column),
        "head_paths_from_vision": _by_set(paths[paths["tower"] == "vision"], column),
    }
    if len(direct):
        parts = {name: _tensor(rows[column]) for name, rows in direct.groupby("where", sort=False)}
        by_name["attribution_heads"] = parts["head"].view(len(parts["mlp"]), -1)
        by_name["attribution_mlps"], by_name["attribution_rest"] = parts["mlp"], parts["rest"]
    return by_name


def _tensor(values: ArrayLike) -> Tensor:
    return torch.tensor(np.asarray(values, dtype=np.float64), dtype=torch.float32)


def _by_layer(table: pd.DataFrame, column: str, layers: int = 0) -> dict[str, ByDirection]:
    """Cut rows into curves; NaN at those of so many `layers` (0: not known) that have no row."""
    by_name: dict[str, ByDirection] = {}
    for (where, way), rows in table.groupby(["where", "direction"], sort=False):
        curve = rows[column]
        if len(curve) < layers:
            curve = curve.set_axis(rows["layer"].astype(int)).reindex(range(layers))
        by_name.setdefault(str(where), {})[str(way)] = _tensor(curve)
    return by_name


def _by_set(table: pd.DataFrame, column: str) -> ByDirection:
    """Cut rows into one tensor a direction: ``[ways or vision layers, sets]``."""
    return {
        str(way): _tensor(rows[column]).view(-1, rows["heads"].nunique())
        for way, rows in table.groupby("direction", sort=False)
    }
