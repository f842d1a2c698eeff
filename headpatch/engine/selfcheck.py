"""The fast paths against the plain one, on a few heads: whether they may be used for a model."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import torch

from headpatch.engine.interventions import Direction, Intervention, VisionPositions, tower_of
from headpatch.engine.patching import Baseline, Outcome, patch
from headpatch.engine.vision import patch_vision
from headpatch.engine.widen import widen
from headpatch.errors import InputError, RunError
from headpatch.heads import Head, HeadSet
from headpatch.models.spans import Positions
from headpatch.models.vlm import VLM

Shape: TypeAlias = tuple[str, tuple[int, ...]]
"""Tower, and what of a run a fast path could hang on: lengths of the prompt and of the suffix, or
the shape of the tower's z."""
MOST = 2  # pairs of a shape that are compared: it takes both to refuse a fast path for the shape
TOLERANCE = 1e-4  # logits by which a fast path may differ from the plain path in float32


@dataclass(frozen=True)
class Check:
    """How a fast path compares with the plain path on a few heads."""

    # largest difference of an effect, in logits; infinite if it cannot run, for `reason`
    worst: float
    # What rounding explains: `TOLERANCE` in float32, in low precision a twentieth of the largest of
    # the plain path's own effects.
    allowed: float
    reason: str = ""

    @property
    def exact(self) -> bool:
        """Whether the fast path may be used for this model."""
        return self.worst <= self.allowed

    @property
    def why(self) -> str:
        """Why it may not, in a few words."""
        return self.reason or f"it is off by {self.worst:.1e} logits"


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
    def widens(self) -> bool:
        """Whether the widening pass agreed wherever it was compared, and was compared at all."""
        lm = [one.exact for shape, made in self._made.items() if shape[0] == "lm"
              for one in made.values()]  # fmt: skip
        return bool(lm) and all(lm)

    def lm(self, vlm: VLM, base: Baseline, positions: Positions, pair: str) -> Check:
        """Return how the widening pass does for prompts of this length and suffix."""
        prefill = base.trace.prefills[0]
        shape = "lm", (prefill.tokens, prefill.start)
        return self._of(shape, pair, lambda: check(vlm, base, positions))

    def vision(self, vlm: VLM, base: Baseline, pair: str) -> Check:
        """Return how resumed passes of the vision tower do for pictures of this shape."""
        shape = "vision", (base.prompt.spans.length, *base.trace.z["vision"][0].shape)
        return self._of(shape, pair, lambda: check_vision(vlm, base))

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
    the other the whole vocabulary's.
    """
    if why := base.trace.prefills[0].refused:
        return Check(float("inf"), TOLERANCE, why)
    grid = vlm.lm.grid
    layers = sorted({0, grid.layers // 2, grid.layers - 1})
    heads = [Head(layer, layer % grid.heads) for layer in layers]
    kinds = ("zero", "resample")
    directions: tuple[Direction, ...] = ("noising", "denoising")
    whole, alone = (
        [Intervention(HeadSet.of(head), kind, way, positions) for head in heads for kind in kinds]
        for way in directions
    )
    return _compare(
        vlm,
        patch(vlm, base, [*whole, *alone]),
        lambda: [*widen(vlm, base, whole), *widen(vlm, base, alone, answers_only=True)],
    )


def check_vision(vlm: VLM, base: Baseline, positions: VisionPositions = "all") -> Check:
    """Compare resumed passes of the vision tower with whole ones, on a head of up to three layers.

    Both directions, each head in a batch of its own, which starts at its layer. Of the layers that
    the language model reads, the second, the middle and the last: none is left out below the first.
    What is left out does not hang on `positions`. `base` must keep z of the tower.
    """
    grid = tower_of(vlm).grid
    last = grid.layers - 1 if vlm.feature_layer is None else vlm.feature_layer
    layers = sorted({min(1, last), (last + 1) // 2, last})
    heads = [HeadSet.of(Head(layer, layer % grid.heads, "vision")) for layer in layers]
    ways: tuple[tuple[str, Direction], ...] = (("zero", "noising"), ("resample", "denoising"))
    asked = [Intervention(one, *way, vision_positions=positions) for one in heads for way in ways]
    return _compare(vlm, patch(vlm, base, asked), lambda: patch_vision(vlm, base, asked, batch=2))


def _compare(vlm: VLM, slow: Sequence[Outcome], fast: Callable[[], list[Outcome]]) -> Check:
    try:
        found = fast()
    except (torch.OutOfMemoryError, InputError):
        raise  # the plain path takes more memory, not less
    except RunError as error:
        return Check(float("inf"), TOLERANCE, str(error))
    except (RuntimeError, TypeError, ValueError, IndexError, AttributeError) as error:
        # The model's layers cannot be run like this.
        said = str(error).strip().partition("\n")[0]
        return Check(float("inf"), TOLERANCE, f"{type(error).__name__}: {said}".rstrip(": "))
    apart = [abs(a.effect - b.effect) for a, b in zip(slow, found, strict=True)]
    worst = float(np.max(apart))  # NaN if any is: then it is not exact
    share = 0.0 if vlm.dtype == torch.float32 else 0.05
    return Check(worst, max(TOLERANCE, share * max(abs(one.effect) for one in slow)))
