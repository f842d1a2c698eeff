"""Statistics of many pairs in bounded memory: bootstrap draws, and columns (heads) block by block.

Neither changes a figure. Draws are those of ``Generator.multinomial``, held as small counts and
turned into weights some resamples at a time. A matrix product has the same bits however its rows
are split, and its columns too where blocks hold a multiple of `ALIGNED`; sums over pairs go pair by
pair in every column. Only `cubes` of very many pairs are other than those of few.
"""

import pickle
from collections import OrderedDict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from jaxtyping import Float, Shaped, UInt

BLOCK = 1 << 23
"""Values held at a time, beside those that are given: 64 MiB in float64."""
ALIGNED: Final = 64
"""Columns in a block, or a multiple: no kernel of a matrix product takes more at once."""
MANY: Final = 2000
_KEPT: Final = 1 << 28  # bytes of the last draws, which other columns of the same pairs need again


@dataclass(frozen=True, eq=False)
class Resamples:
    """How often each resample holds each of `units` that are drawn with replacement, as many."""

    units: int
    counts: tuple[UInt[np.ndarray, "_ units"], ...]  # some resamples after the other

    @classmethod
    def draw(cls, units: int, resamples: int, rng: np.random.Generator) -> "Resamples":
        """Draw as ``rng.multinomial`` does; what was drawn lately in the same state is kept."""
        key = units, resamples, pickle.dumps(rng.bit_generator.state)
        if key in _lately:
            found, rng.bit_generator.state = _lately[key]
            _lately.move_to_end(key)
            return found
        even = np.full(units, 1 / units)
        drawn = (rng.multinomial(units, even, size=length(one)) for one in blocks(resamples, units))
        found = cls(units, tuple(one.astype(np.min_scalar_type(one.max())) for one in drawn))
        _lately[key] = found, rng.bit_generator.state
        while len(_lately) > 1 and sum(one.size for one, _ in _lately.values()) > _KEPT:
            _lately.popitem(last=False)
        return found

    @property
    def size(self) -> int:
        """In bytes."""
        return sum(one.nbytes for one in self.counts)

    def weights(self) -> Iterator[Float[np.ndarray, "some units"]]:
        """Yield the weight of each unit in some resamples after the other."""
        return (one.astype(np.float64) / self.units for one in self.counts)

    def means(
        self, values: Float[np.ndarray, "units columns"]
    ) -> Float[np.ndarray, "resamples columns"]:
        """Return each resample's mean of every column."""
        return np.concatenate([weights @ values for weights in self.weights()])


_lately: OrderedDict[tuple[int, int, bytes], tuple[Resamples, Any]] = OrderedDict()


def blocks(count: int, width: int, multiple: int = 1) -> Iterator[slice]:
    """Cut `count` rows (or columns) of `width` values into blocks of at most `BLOCK` values.

    All in one if they fit; else a block holds a multiple of so many, or what is left.
    """
    fit = max(BLOCK // max(width, 1), 1)
    step = max(count, 1) if count <= fit else max(fit // multiple, 1) * multiple
    return (slice(start, min(start + step, count)) for start in range(0, count, step))


def cubes(values: Float[np.ndarray, "pairs *rest"]) -> Float[np.ndarray, "pairs *rest"]:
    """Return third powers; of more than `MANY` pairs by two products, ten times as fast.

    They differ from what ``**`` gives in the last bit.
    """
    return values**3 if len(values) <= MANY else values * values * values


def length(block: slice) -> int:
    """Return how many rows (or columns) a block holds."""
    return int(block.stop - block.start)


def by_columns(
    function: Callable[[Float[np.ndarray, "pairs *rest"]], Shaped[np.ndarray, "*some"]],
    values: Float[np.ndarray, "pairs *rest"],
) -> Shaped[np.ndarray, "*some"]:
    """Return `function` of values, whose temporary arrays would be large, block by block.

    It takes columns one by one: its last axes are those of the values without pairs.
    """
    if values.size <= BLOCK or values.ndim < 2:
        return function(values)
    flat = values.reshape(len(values), -1)
    found = [function(flat[:, here]) for here in blocks(flat.shape[1], len(flat), ALIGNED)]
    joined = np.concatenate(found, axis=-1)
    return joined.reshape(*joined.shape[:-1], *values.shape[1:])
