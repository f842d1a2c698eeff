"""What heads can be ranked by: figures of the attention that the answer position pays.

Each measure is an entry of `MEASURES`: what it measures of a pair, and which of its figures order
heads. Over pairs heads are ordered by the figures' means. A table of scores ranks them as well.
"""

import csv
import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal, TypeAlias, get_args

import numpy as np
from jaxtyping import Bool, Float, Int

from headpatch.errors import InputError
from headpatch.heads import Grid, Head
from headpatch.stats.attention_mass import mass
from headpatch.stats.spatial_entropy import neighbours, spatial_entropy
from headpatch.text import decimal_number, whole_number

By: TypeAlias = Literal["diff", "raw", "entropy", "localization", "text-image"]
NAMES: Final[tuple[By, ...]] = get_args(By)
PerHead: TypeAlias = Float[np.ndarray, "layers heads"]
Figures: TypeAlias = Mapping[str, PerHead]
Order: TypeAlias = Int[np.ndarray, " ranked"]
"""Flat indices of every head, the first first."""
SELECTED: Final = 10
"""Heads that the localization criterion selects on a pair, as its authors do."""


@dataclass(frozen=True, eq=False)
class Attended:
    """What the answer position attends to in the with-run, and where that lies."""

    rows: Float[np.ndarray, "layers_with_heads heads keys"]  # to every token of the prompt
    image: Int[np.ndarray, " patches"]  # which tokens are patches of the picture
    text: Bool[np.ndarray, " keys"]  # which are text, but for the first, which is a sink
    boxes: Float[np.ndarray, "patches 4"]  # places of the patches
    tau: float | None  # see `elbow`, which finds it if it is None
    grid: Grid

    @property
    def patches(self) -> Float[np.ndarray, "layers_with_heads heads patches"]:
        """Attention to the patches."""
        return self.rows[..., self.image]


@dataclass(frozen=True)
class Key:
    """A figure that orders heads."""

    name: str
    least_first: bool = False


@dataclass(frozen=True)
class Measure:
    """One way to rank heads."""

    name: str
    keys: tuple[Key, ...]  # the first decides, the next where heads are equal; then layer and head
    figures: Callable[[Attended], Figures]  # beside the masses that every ranking has
    heads: str  # heads that come first, after "the heads ": ``whose … rises most``
    ranking: str  # after "the ranking by"

    @property
    def own(self) -> tuple[str, ...]:
        """Names of its figures that other rankings have not."""
        return tuple(one.name for one in self.keys if one.name not in ("diff", "with_raw"))

    @property
    def picker(self) -> str:
        """What picks out its first heads, in a sentence."""
        return "attention" if self.name == "diff" else f"the ranking by {self.ranking}"

    def order(self, means: Figures, grid: Grid) -> Order:
        """Return the heads that are there, the first first; those without a figure come last."""
        keys = [(means[one.name] if one.least_first else -means[one.name]) for one in self.keys]
        return grid.flat[np.lexsort([grid.there(one).ravel() for one in reversed(keys)])]


def _nothing(_: Attended) -> Figures:
    return {}


def _entropy(attended: Attended) -> Figures:
    return {"entropy": spatial_entropy(attended.patches, neighbours(attended.boxes))}


def _localization(attended: Attended) -> Figures:
    """Of heads with enough image attention, those of the least entropy are selected."""
    entropy, sums = _entropy(attended)["entropy"], attended.patches.sum(-1)
    tau = elbow(sums.ravel()) if attended.tau is None else attended.tau
    enough = sums >= tau
    first = np.lexsort([entropy.ravel(), ~enough.ravel()])[: min(SELECTED, int(enough.sum()))]
    selected = np.zeros(sums.size)
    selected[first] = 1.0
    return {
        "selected": selected.reshape(sums.shape),
        "enough": enough.astype(np.float64),
        "entropy": entropy,
    }


def _text_image(attended: Attended) -> Figures:
    image = attended.patches.sum(-1)
    both = image + mass(attended.rows, attended.text)
    return {"image_share": image / np.where(both > 0, both, 1.0)}


def elbow(values: Float[np.ndarray, " n"]) -> float:
    """Return the value at which sorted values bend most: farthest from the line of their ends.

    How the authors of the localization criterion find its threshold in their code.
    """
    ascending = np.sort(values.astype(np.float64))
    rise, steps = ascending[-1] - ascending[0], len(ascending) - 1
    below = rise * np.arange(len(ascending)) - steps * (ascending - ascending[0])
    return float(ascending[np.abs(below).argmax()])


_ALL = (
    Measure(
        "diff", (Key("diff"),), _nothing, "whose attention to the region rises most",
        "attention difference",
    ),
    Measure(
        "raw", (Key("with_raw"),), _nothing, "that attend most to the region (raw)",
        "raw attention mass",
    ),
    Measure(
        "entropy", (Key("entropy", True),), _entropy,
        "whose attention to the image is most concentrated", "spatial entropy",
    ),
    Measure(
        "localization", (Key("selected"), Key("enough"), Key("entropy", True)), _localization,
        "that the localization criterion selects first", "the localization criterion",
    ),
    Measure(
        "text-image", (Key("image_share"),), _text_image,
        "that attend most to the image and least to text", "image against text attention",
    ),
)  # fmt: skip
MEASURES: Final[Mapping[str, Measure]] = {one.name: one for one in _ALL}


def measure_of(by: str) -> Measure:
    """Return a measure by its name, or one that reads a table of scores."""
    if by in MEASURES:
        return MEASURES[by]
    name = Path(by).name
    return Measure(
        by, (Key("score"),),
        lambda attended: {"score": attended.grid.there(read_scores(by, attended.grid))},
        f"with the largest scores in {name}", f"the scores of {name}",
    )  # fmt: skip


def is_table(by: str) -> bool:
    """Whether heads are ranked by a table of scores."""
    return by not in MEASURES


def ranking_name(by: str) -> str:
    """Name a ranking in tables of several."""
    return "attention" if by == "diff" else Path(by).name


def words_of(name: str) -> Measure:
    """Return the measure that such a table names."""
    return measure_of("diff" if name == "attention" else name)


def places(order: Order, grid: Grid) -> Int[np.ndarray, "layers heads"]:
    """Return each head's place in an order: 1 is the first; after the last, where none is there."""
    place = np.full(grid.layers * grid.heads, len(order) + 1)
    place[order] = np.arange(1, len(order) + 1)
    return place.reshape(grid.layers, grid.heads)


def hangs_on(names: tuple[str, ...], tau: float | None) -> list[str]:
    """Return what the figures of rankings hang on beside the pair; nothing of the default one."""
    more = [f"tau {tau}"] if "localization" in names else []
    for by in names:
        if by != "diff":
            more.append(_digest(by) if is_table(by) else by)
    return more


def check_table(by: str, grid: Grid | None = None) -> None:
    """Refuse a table of scores that cannot rank the heads, as far as the model is known."""
    if is_table(by):
        read_scores(by, grid)


def read_scores(path: str, grid: Grid | None = None) -> PerHead:
    """Read a table with columns layer, head and score, a row for each head or for some.

    NaN for heads that it leaves out. Without the model's grid it is read to see whether it can be.
    """
    expected = "a CSV table with columns layer, head, score: a row for each head, or for some"
    scores: dict[Head, float] = {}
    for number, row in enumerate(csv.DictReader(_text(path, expected).splitlines()), start=2):
        where = f"--by {path}, line {number}"
        if lacking := [name for name in ("layer", "head", "score") if row.get(name) is None]:
            raise InputError(where, f"no {' nor '.join(lacking)}", expected)
        layer, head = whole_number(row["layer"].strip()), whole_number(row["head"].strip())
        if layer is None or head is None or min(layer, head) < 0:
            found = f"layer {row['layer']!r}, head {row['head']!r}"
            raise InputError(where, found, "whole numbers that count from 0")
        one = Head(layer, head)
        if grid is not None:
            grid.check(one, where)
        if one in scores:
            raise InputError(where, f"head {one} a second time", "each head once")
        score = decimal_number(row["score"].strip())
        if score is None or not np.isfinite(score):
            raise InputError(where, f"score {row['score']!r}", "a finite number")
        scores[one] = score
    if not scores:
        raise InputError("--by", f"{path} holds no head", expected)
    if grid is None:
        return np.zeros((0, 0))
    table = np.full((grid.layers, grid.heads), np.nan)
    for one, score in scores.items():
        table[one.layer, one.head] = score
    return table


def _text(path: str, expected: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8-sig")
    except OSError as error:
        raise InputError("--by", f"{path}: {error.strerror}", expected) from None
    except UnicodeDecodeError:
        raise InputError("--by", f"{path} is not UTF-8 text", expected) from None


def _digest(path: str) -> str:
    return hashlib.sha256(_text(path, "a table of scores").encode()).hexdigest()
