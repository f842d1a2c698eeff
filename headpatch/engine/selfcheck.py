"""The fast paths against the plain one, on a few heads: whether they may be used for a model."""

from collections.abc import Callable, Mapping, Sequence
from itertools import chain
from typing import TypeAlias, cast, get_args

from headpatch.engine.comparison import TOLERANCE, Check, Comparison
from headpatch.engine.interventions import (
    Direction,
    Intervention,
    VisionPositions,
    tower_of,
    vision_positions,
)
from headpatch.engine.patching import WITH, Baseline, Outcome, Read
from headpatch.engine.vision import patch_vision
from headpatch.engine.widen import widen
from headpatch.heads import HeadSet, Tower
from headpatch.models.spans import Positions
from headpatch.models.vlm import VLM

__all__ = ["MOST", "TOLERANCE", "Check", "Checks", "check", "check_vision"]

Shape: TypeAlias = tuple[str, tuple[int, ...]]
"""Tower, and what of a run a fast path could hang on: lengths of the prompt and of the suffix, or
the shape of the tower's z."""
MOST = 2  # pairs of a shape that are compared: it takes both to refuse a fast path for the shape


class Checks:
    """How the fast paths of a model did, by shape, on the first pair of each.

    Where they are refused there, the next pair of the shape is compared, too: a path is used for a
    shape if either agrees, but never on a pair on which it did not. Pairs must come in the order of
    their table, so that the outcome is the dataset's own; then they are `decided`, and what is
    asked of another shape is compared for itself alone, whenever that is.
    """

    def __init__(self, made: Mapping[Shape, Mapping[str, Check]] | None = None) -> None:
        # by shape, then by the pair's name: at most `MOST`
        self._made = {shape: dict(pairs) for shape, pairs in (made or {}).items()}
        self._open = True

    def decided(self) -> "Checks":
        """Return what was compared, to which nothing is added any more."""
        found = Checks(self._made)
        found._open = False
        return found

    def opened(self) -> "Checks":
        """Return what was compared, to which more can be added."""
        return Checks(self._made)

    @property
    def refused(self) -> Mapping[tuple[Tower, str], Check]:
        """Return, by tower and pair's name, the comparisons that refused a fast path."""
        return {
            (cast("Tower", tower), pair): one
            for (tower, _), pairs in self._made.items()
            for pair, one in pairs.items()
            if not one.exact
        }

    @property
    def widens(self) -> bool:
        """Whether the widening pass agreed wherever it was compared, and was compared at all."""
        lm = [one.exact for shape, made in self._made.items() if shape[0] == "lm"
              for one in made.values()]  # fmt: skip
        return bool(lm) and all(lm)

    def lm(
        self,
        vlm: VLM,
        base: Baseline,
        positions: Positions,
        pair: str,
        compared: Callable[[], Baseline] | None = None,
    ) -> Check:
        """Return how the widening pass does for prompts of this length and suffix.

        `compared` gives two runs that differ, of the same shape, where those of `base` do not.
        """
        lengths = dict.fromkeys((one.tokens, one.start) for one in base.trace.prefills)
        shape = "lm", tuple(chain(*lengths))
        runs = compared or (lambda: base)
        return self._of(shape, pair, lambda: check(vlm, runs(), positions))

    def vision(
        self,
        vlm: VLM,
        base: Baseline,
        pair: str,
        compared: Callable[[], Baseline] | None = None,
    ) -> Check:
        """Return how resumed passes of the vision tower do for pictures of this shape; see `lm`."""
        runs = compared or (lambda: base)
        shape = "vision", (base.prompt.spans.length, *base.trace.z["vision"][0].shape)
        return self._of(shape, pair, lambda: check_vision(vlm, runs()))

    def _of(self, shape: Shape, pair: str, compare: Callable[[], Check]) -> Check:
        made = self._made.get(shape, {})
        if pair in made:
            return made[pair]
        if used := next((one for one in made.values() if one.exact), None):
            return used
        if len(made) == MOST:
            return next(iter(made.values()))
        found = compare()
        if self._open:
            self._made.setdefault(shape, {})[pair] = found
        return found


def check(vlm: VLM, base: Baseline, positions: Positions) -> Check:
    """Compare the widening pass with the plain path on heads of the first, middle and last layer.

    Both directions and two kinds; a model whose layers need more than headpatch hands them, or
    whose prompt is not read causally, shows here. One direction takes the answers' logits alone,
    the other the whole vocabulary's. `base` must keep z.
    """
    if why := base.trace.prefills[0].refused:
        return Check(float("inf"), TOLERANCE, why)
    grid = vlm.lm.grid
    layers = sorted({0, grid.layers // 2, grid.layers - 1})

    def asked(sets: Sequence[HeadSet]) -> list[Intervention]:
        return [
            Intervention(one, kind, way, positions)
            for way in get_args(Direction)
            for one in sets
            for kind in ("zero", "resample")
        ]

    def fast(changes: list[Intervention], read: Read) -> list[Outcome]:
        whole = [one for one in changes if one.direction == "noising"]
        alone = [one for one in changes if one.direction != "noising"]
        told = widen(vlm, base, whole, read=read)
        return [*told, *widen(vlm, base, alone, answers_only=True)]

    where = base.seen_from(WITH).prompt.spans.positions(positions)
    return Comparison(vlm, base, "lm", layers, grid.layers, where, asked, fast).outcome()


def check_vision(vlm: VLM, base: Baseline, positions: VisionPositions = "all") -> Check:
    """Compare resumed passes of the vision tower with whole ones, on a head of up to three layers.

    Both directions, each head in a batch of its own, which starts at its layer. Of the layers that
    the language model reads, the second, the middle and the last: none is left out below the first.
    What is left out does not hang on `positions`. `base` must keep z of the tower.
    """
    grid = tower_of(vlm).grid
    last = grid.layers - 1 if vlm.feature_layer is None else vlm.feature_layer
    layers = sorted({min(1, last), (last + 1) // 2, last})
    ways: tuple[tuple[str, Direction], ...] = (("zero", "noising"), ("resample", "denoising"))

    def asked(sets: Sequence[HeadSet]) -> list[Intervention]:
        return [Intervention(one, *way, vision_positions=positions) for one in sets for way in ways]

    def fast(changes: list[Intervention], _: Read) -> list[Outcome]:
        return patch_vision(vlm, base, changes, batch=2)

    where = vision_positions(vlm, base, positions)
    return Comparison(vlm, base, "vision", layers, last + 1, where, asked, fast).outcome()
