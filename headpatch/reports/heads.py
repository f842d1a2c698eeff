"""What is known of every head: where it looks, what changing it does, and its verdict.

Several runs may say something of a head: one pair's, a dataset's mean, a verdict. Each is a
*view*, and the page lets the reader choose; the first is the one over most pairs.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from math import nan
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from headpatch.core.output.folder import Part, Results, load, read, reading_of
from headpatch.core.question import COMPARED_BY
from headpatch.kinds import BY_PLACE, kind_label
from headpatch.pairs.region import BY_IMAGE
from headpatch.present.panel import ASKED
from headpatch.stats.rankings import descending

Map = Float[np.ndarray, "layers_with_heads heads"]
Places = Int[np.ndarray, "layers_with_heads heads"]
Layers = tuple[int, ...]
"""Numbers of the layers that have heads."""

_WAYS = {"necessity": "noising", "sufficiency": "denoising"}
_ENDS = ("low", "high")
_JUDGED = dict.fromkeys(
    ["layer", "head", "attention_diff"]
    + [f"{way}{end}" for way in _WAYS for end in ("", "_low", "_high")],
    "number",
)
_RANKED = ("diff", "with", "without", "diff_raw", "with_raw", "without_raw")


@dataclass(frozen=True, eq=False)
class Look:
    """Where heads look, in one view.

    `figures` has ``diff`` (share of image attention, with minus without), and where known ``low``
    and ``high`` of its interval, ``with``, ``without``, each ``…_raw``, and ``q``. `rank` is 1 for
    the largest difference; of a verdict, on the pairs that it does not judge on.
    """

    label: str
    figures: dict[str, Map]
    rank: Places
    layers: Layers

    @property
    def by_image(self) -> bool:
        """Whether figures are of the whole image, as parts of all attention."""
        return BY_IMAGE in self.label

    @property
    def diff(self) -> Map:
        """Attention difference."""
        return self.figures["diff"]


@dataclass(frozen=True, eq=False)
class Effect:
    """What changing each head alone does, in one view.

    `figures` has ``normalized``, and where known ``effect`` (logits), ``low``, ``high``, ``q``.
    """

    kind: str
    direction: str
    where: str
    figures: dict[str, Map]
    floor: float  # the noise floor, in normalized units; NaN if unknown
    many: bool  # a mean over pairs of pictures
    layers: Layers

    @property
    def normalized(self) -> Map:
        """Normalized effect."""
        return self.figures["normalized"]

    @property
    def label(self) -> str:
        """What it is a figure of."""
        return f"{self.kind}, {self.direction} ({ASKED[self.direction]}) · {self.where}"


@dataclass(frozen=True, eq=False)
class Heads:
    """Every head of the language model: its views, the preferred one first."""

    shape: tuple[int, int]
    layers: Layers
    looks: tuple[Look, ...]
    effects: tuple[Effect, ...]
    verdict: np.ndarray | None  # class of every head
    top: int  # heads that count as those that look most

    def name(self, flat: int) -> str:
        """Name a head by its place."""
        layer, head = divmod(int(flat), self.shape[1])
        return f"{self.layers[layer]}.{head}"


def heads_of(results: Results) -> Heads | None:
    """Gather what the runs say of every head; None if they say nothing."""
    views = [*_judged(results), *_ranked(results), *_swept(results)]
    if not views:
        return None
    shapes = [(next(iter(view.figures.values())).shape, view.layers) for view in views]
    shape, layers = shapes[0]
    views = [view for view, own in zip(views, shapes, strict=True) if own == shapes[0]]
    looks: dict[str, Look] = {}
    for view in views:
        if isinstance(view, Look):
            looks.setdefault(view.label, view)
    effects = tuple(view for view in views if isinstance(view, Effect))
    verdicts = _verdicts(results, shape)
    verb, table = ("rank", "heads.csv") if verdicts is None else ("verdict", "verdicts.csv")
    options = (results.first(table) or results.main).study.get(verb, {})
    top = min(int(options.get("top", 20)), shape[0] * shape[1])
    return Heads(shape, layers, tuple(looks.values()), effects, verdicts, top)


def _places(diff: Map) -> Places:
    """Rank heads by their difference, the largest first."""
    place = np.empty(diff.size, dtype=np.int64)
    place[descending(diff)] = np.arange(1, diff.size + 1)
    return place.reshape(diff.shape)


def _judged(results: Results) -> Iterator[Look | Effect]:
    """The verdict's means over pairs."""
    part = results.first("verdicts.csv")
    table = results.table("verdicts.csv", _JUDGED | {"verdict": "text"})
    if table is None or part is None:
        return
    where = f"mean over {judged_on(results)}"
    looks = f"{where}{_by(part)}"
    with reading_of(part, "verdicts.csv"):
        columns = {f"attention_diff_{end}": end for end in ("q", *_ENDS)}
        maps = _maps(table, {"attention_diff": "diff", **columns, "attention_rank": "rank"})
        rank, layers = maps.pop("rank", None), _layers(table)
        place = _places(maps["diff"]) if rank is None else rank.astype(np.int64)
        yield Look(looks, maps, place, layers)
        for name, direction in _WAYS.items():
            columns = {f"{name}_{end}": end for end in (*_ENDS, "q")}
            maps = _maps(table, {name: "normalized", **columns})
            yield Effect(BY_PLACE[0], direction, where, maps, nan, True, layers)


def _by(part: Part) -> str:
    """Say what heads are compared by, where that is not attention to regions that are named."""
    words = part.run.get(COMPARED_BY)
    return f", by {words}" if isinstance(words, str) else ""


def _verdicts(results: Results, shape: tuple[int, ...]) -> np.ndarray | None:
    table = results.table("verdicts.csv", {"layer": "number", "head": "number", "verdict": "text"})
    if table is None or len(table) != shape[0] * shape[1]:
        return None
    found = np.full(shape, "undecided", dtype=object)
    found[_at(table)] = table["verdict"]
    return found


def _ranked(results: Results) -> Iterator[Look]:
    """Rankings: of one pair, or of a dataset."""
    for part in results.having("heads.csv"):
        table = read(part, "heads.csv", dict.fromkeys(["layer", "head", *_RANKED], "number"))
        columns = {name: name for name in _RANKED} | {f"diff_{end}": end for end in _ENDS}
        with reading_of(part, "heads.csv"):
            many = "pairs" in table
            where = f"mean over {int(table['pairs'].iloc[0]):,} pairs" if many else "this pair"
            where += _by(part)
            maps = _maps(table, columns | {"rank": "rank"})
            rank = maps.pop("rank", None)
            place = _places(maps["diff"]) if rank is None else rank.astype(np.int64)
            yield Look(where, maps, place, _layers(table))


def _swept(results: Results) -> Iterator[Look | Effect]:
    """Sweeps over every head, and the attention differences that they kept."""
    needed = {"noise_floor": 0, "ld_with": 0, "ld_without": 0}
    loaded = [(part, load(part, "sweep.pt", needed)) for part in results.having("sweep.pt")]
    swept = [(part, saved) for part, saved in loaded if saved.get("tower", "lm") == "lm"]
    for part, saved in swept:
        with reading_of(part, "sweep.pt"):
            maps = {way: np.asarray(one, np.float64) for way, one in saved["normalized"].items()}
            if not maps or next(iter(maps.values())).ndim != 2:
                continue  # a list of sets
            known = ~np.isnan(np.stack(list(maps.values()))).all((0, 2))  # layers that have heads
            layers = tuple(np.flatnonzero(known).tolist())
            many = "normalized_by_pair" in saved
            where = f"mean over {len(saved.get('pair_names', ())):,} pairs" if many else "this pair"
            gap = abs(saved["ld_with"] - saved["ld_without"])
            floor = saved["noise_floor"] / gap if gap else nan
            positions = str(saved["positions"])
            shown = where if positions == "answer" else f"{where}, z changed at: {positions}"
            if len(swept) > 1 and part.name:
                shown = f"{shown} ({part.name})"
            for way in sorted(maps, key=_order):
                kind, _, direction = way.rpartition("_")
                figures = {"normalized": maps[way], "effect": np.asarray(saved["effect"][way])}
                figures |= {
                    end: np.asarray(saved[f"normalized_{end}"][way], np.float64)
                    for end in _ENDS
                    if f"normalized_{end}" in saved
                }
                figures = {name: values[known] for name, values in figures.items()}
                named = kind_label(kind, saved), direction, shown
                yield Effect(*named, figures, floor, many, layers)
            if "attention_diff" in saved:
                diff = np.asarray(saved["attention_diff"], np.float64)[known]
                yield Look(f"{where}{_by(part)}", {"diff": diff}, _places(diff), layers)


def _order(way: str) -> tuple[int, bool]:
    kind, _, direction = way.rpartition("_")
    return BY_PLACE.index(kind), direction != "noising"


def _maps(table: Any, columns: dict[str, str]) -> dict[str, Map]:
    """Lay columns out as layers × heads."""
    shape = len(_layers(table)), int(table["head"].max()) + 1
    if len(table) != shape[0] * shape[1]:
        raise ValueError(f"it has {len(table):,} rows for {shape[0]} × {shape[1]} heads")
    found = {}
    for column, name in columns.items():
        if column in table:
            values = found[name] = np.full(shape, np.nan)
            values[_at(table)] = table[column].to_numpy().astype(float)
    return found


def _layers(table: Any) -> Layers:
    return tuple(np.unique(table["layer"].to_numpy().astype(int)).tolist())


def _at(table: Any) -> tuple[Int[np.ndarray, " rows"], Int[np.ndarray, " rows"]]:
    """Return where in a map each row belongs."""
    layer, head = (table[name].to_numpy().astype(int) for name in ("layer", "head"))
    return np.searchsorted(_layers(table), layer), head


def judged_on(results: Results) -> str:
    """Say on how many pairs the verdict judges heads: those that did not choose them."""
    part = results.first("faithfulness.csv")
    curves = results.table("faithfulness.csv", {"pairs": "number"})
    if part is None or curves is None or curves.empty:
        return "the pairs"
    with reading_of(part, "faithfulness.csv"):
        return f"{int(curves['pairs'].iloc[0]):,} pairs"
