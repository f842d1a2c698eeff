"""What is known of every head: where it looks, what changing it does, and its verdict.

Several runs may say something of a head: one pair's, a dataset's mean, a verdict. Each is a
*view*, and the page lets the reader choose; the first is the one over most pairs.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from headpatch.core.output.folder import Results
from headpatch.core.output.part import load, read, reading
from headpatch.kinds import BY_PLACE, kind_label
from headpatch.questions.verdict.charts import CLASSES
from headpatch.stats.rankings import descending
from headpatch.stats.verdict_labels import CAUSAL

VERDICTS = tuple(CLASSES)
"""Classes of ``verdicts.csv``, the strongest first."""
__all__ = ["CAUSAL", "VERDICTS", "Effect", "Heads", "Look", "heads_of"]

DIRECTIONS = {"noising": "necessary?", "denoising": "sufficient?"}

Map = Float[np.ndarray, "layers heads"]


@dataclass(frozen=True, eq=False)
class Look:
    """Where heads look, in one view.

    Attributes
    ----------
    label
        What it is a figure of.
    figures
        ``diff`` (share of image attention, with minus without), and where known ``low`` and
        ``high`` of its interval, ``with``, ``without``, ``diff_raw``, ``with_raw``,
        ``without_raw``, ``q``.
    rank
        Place in the ranking, 1 = largest difference; of a verdict, on the pairs that it does not
        judge on.
    many
        Whether it is a mean over pairs of pictures.
    """

    label: str
    figures: dict[str, Map]
    rank: Int[np.ndarray, "layers heads"]
    many: bool

    @property
    def diff(self) -> Map:
        """Attention difference."""
        return self.figures["diff"]


@dataclass(frozen=True, eq=False)
class Effect:
    """What changing each head alone does, in one view.

    Attributes
    ----------
    kind, direction
        Of the intervention; ``positions`` where it is made.
    figures
        ``normalized``, and where known ``effect`` (logits), ``low``, ``high`` and ``q``.
    floor
        The noise floor, in normalized units; NaN if unknown.
    """

    kind: str
    direction: str
    positions: str
    where: str
    figures: dict[str, Map]
    floor: float
    many: bool

    @property
    def normalized(self) -> Map:
        """Normalized effect."""
        return self.figures["normalized"]

    @property
    def label(self) -> str:
        """What it is a figure of."""
        return f"{self.kind}, {self.direction} ({DIRECTIONS[self.direction]}) · {self.where}"


@dataclass(frozen=True, eq=False)
class Heads:
    """Every head of the language model.

    Attributes
    ----------
    shape
        (layers, heads).
    looks, effects
        Views, the preferred one first; either may be empty.
    verdict
        Class of every head; None without a verdict.
    top
        How many heads count as those that look most.
    """

    shape: tuple[int, int]
    looks: tuple[Look, ...]
    effects: tuple[Effect, ...]
    verdict: np.ndarray | None
    top: int

    @property
    def names(self) -> list[str]:
        """``24.17`` of every head, in layer-head order."""
        layers, heads = self.shape
        return [f"{layer}.{head}" for layer in range(layers) for head in range(heads)]

    def name(self, flat: int) -> str:
        """Name a head by its place."""
        return "{}.{}".format(*divmod(int(flat), self.shape[1]))


def heads_of(results: Results) -> Heads | None:
    """Gather what the runs say of every head; None if they say nothing."""
    found = [*_judged(results), *_ranked(results), *_swept(results)]
    if not found:
        return None
    shape = next(one for one in found).figures[_main(found[0])].shape
    found = [one for one in found if one.figures[_main(one)].shape == shape]
    looks = tuple(one for one in found if isinstance(one, Look))
    effects = tuple(one for one in found if isinstance(one, Effect))
    looks = tuple(one for i, one in enumerate(looks) if one.label not in _labels(looks[:i]))
    verdicts = _verdicts(results, shape)
    verb, table = ("rank", "heads.csv") if verdicts is None else ("verdict", "verdicts.csv")
    options = (results.first(table) or results.main).study.get(verb, {})
    top = min(int(options.get("top", 20)), shape[0] * shape[1])
    return Heads(shape, looks, effects, verdicts, top)


def _main(view: Look | Effect) -> str:
    return "diff" if isinstance(view, Look) else "normalized"


def _places(diff: Map) -> Int[np.ndarray, "layers heads"]:
    """Rank heads by their difference, the largest first."""
    place = np.empty(diff.size, dtype=np.int64)
    place[descending(diff)] = np.arange(1, diff.size + 1)
    return place.reshape(diff.shape)


def _labels(looks: tuple[Look, ...]) -> set[str]:
    return {look.label for look in looks}


_JUDGED = {
    "attention_diff": "diff",
    "attention_diff_q": "q",
    "attention_diff_low": "low",
    "attention_diff_high": "high",
}
_NEEDED = dict.fromkeys(
    [
        "layer",
        "head",
        "attention_diff",
        *(f"{way}{end}" for way in ("necessity", "sufficiency") for end in ("", "_low", "_high")),
    ],
    "number",
)


def _judged(results: Results) -> Iterator[Look | Effect]:
    """The verdict's means over pairs."""
    table = results.table("verdicts.csv", {**_NEEDED, "verdict": "text"})
    if table is None:
        return
    part = results.first("verdicts.csv")
    assert part is not None
    over = judged_on(results)
    options = part.study.get("verdict", {})
    positions = str(options.get("positions", "answer"))
    with reading(part.folder / "verdicts.csv"):
        maps = _maps(table, {**_JUDGED, "attention_rank": "rank"})
        rank = maps.pop("rank", None)
        places = _places(maps["diff"]) if rank is None else rank.astype(np.int64)
        yield Look(f"mean over {over}", maps, places, True)
        for name, direction in (("necessity", "noising"), ("sufficiency", "denoising")):
            columns = {name: "normalized"}
            columns |= {f"{name}_{end}": end for end in ("low", "high", "q")}
            maps = _maps(table, columns)
            yield Effect(BY_PLACE[0], direction, positions, f"mean over {over}", maps, nan(), True)


def _verdicts(results: Results, shape: tuple[int, int]) -> np.ndarray | None:
    table = results.table("verdicts.csv", {"layer": "number", "head": "number", "verdict": "text"})
    if table is None or len(table) != shape[0] * shape[1]:
        return None
    found = np.full(shape, "undecided", dtype=object)
    found[table["layer"].astype(int), table["head"].astype(int)] = table["verdict"]
    return found


_RANKED = ("diff", "with", "without", "diff_raw", "with_raw", "without_raw")


def _ranked(results: Results) -> Iterator[Look]:
    """Rankings: of one pair, or of a dataset."""
    for part in results.having("heads.csv"):
        table = read(part, "heads.csv", dict.fromkeys(["layer", "head", *_RANKED], "number"))
        columns = {name: name for name in _RANKED} | {"diff_low": "low", "diff_high": "high"}
        with reading(part.folder / "heads.csv"):
            many = "pairs" in table
            where = f"mean over {int(table['pairs'].iloc[0]):,} pairs" if many else "this pair"
            maps = _maps(table, columns)
            yield Look(where, maps, _places(maps["diff"]), many)


def _swept(results: Results) -> Iterator[Look | Effect]:
    """Sweeps over every head, and the attention differences that they kept."""
    needed = {"noise_floor": 0, "ld_with": 0, "ld_without": 0}
    loaded = [(part, load(part, "sweep.pt", needed)) for part in results.having("sweep.pt")]
    swept = [(part, saved) for part, saved in loaded if saved.get("tower", "lm") == "lm"]
    for part, saved in swept:
        with reading(part.folder / "sweep.pt"):
            maps = {way: np.asarray(one, np.float64) for way, one in saved["normalized"].items()}
            if not maps or next(iter(maps.values())).ndim != 2:
                continue  # a list of sets
            many = "normalized_by_pair" in saved
            pairs = len(saved.get("pair_names", ()))
            where = f"mean over {pairs:,} pairs" if many else "this pair"
            gap = abs(saved["ld_with"] - saved["ld_without"])
            floor = saved["noise_floor"] / gap if gap else nan()
            positions = str(saved["positions"])
            shown = where if positions == "answer" else f"{where}, z changed at: {positions}"
            if len(swept) > 1 and part.name:
                shown = f"{shown} ({part.name})"
            for way in sorted(maps, key=_order):
                kind, _, direction = way.rpartition("_")
                figures = {"normalized": maps[way], "effect": np.asarray(saved["effect"][way])}
                figures |= {
                    end: np.asarray(saved[f"normalized_{end}"][way], np.float64)
                    for end in ("low", "high")
                    if f"normalized_{end}" in saved
                }
                kind = kind_label(kind, saved)
                yield Effect(kind, direction, positions, shown, figures, floor, many)
            if "attention_diff" in saved:
                diff = np.asarray(saved["attention_diff"], np.float64)
                yield Look(where, {"diff": diff}, _places(diff), many)


def _order(way: str) -> tuple[int, bool]:
    kind, _, direction = way.rpartition("_")
    return BY_PLACE.index(kind), direction != "noising"


def _maps(table: Any, columns: dict[str, str]) -> dict[str, Map]:
    """Lay columns out as layers × heads."""
    layer, head = (table[name].to_numpy().astype(int) for name in ("layer", "head"))
    shape = int(layer.max()) + 1, int(head.max()) + 1
    if len(table) != shape[0] * shape[1]:
        raise ValueError(f"it has {len(table):,} rows for {shape[0]} × {shape[1]} heads")
    found = {}
    for column, name in columns.items():
        if column in table:
            values = np.full(shape, np.nan)
            values[layer, head] = table[column].to_numpy().astype(float)
            found[name] = values
    return found


def judged_on(results: Results) -> str:
    """Say on how many pairs the verdict judges heads: those that did not choose them."""
    curves = results.table("faithfulness.csv", {"pairs": "number"})
    if curves is None or curves.empty:
        return "the pairs"
    return f"{int(curves['pairs'].iloc[0]):,} pairs"


def nan() -> float:
    """Not a number: an unknown figure."""
    return float("nan")
