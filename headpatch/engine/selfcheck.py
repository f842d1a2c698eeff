"""The fast paths against the plain one, on a few heads: whether they may be used for a model."""

from collections.abc import Callable, Sequence
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

Saved: TypeAlias = Sequence[tuple[str, tuple[int, ...], tuple[float, float, str]]]
"""Comparisons: tower, shape of what is run, and the fields of a `Check`."""
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
    """A model's comparisons, each made once for a shape of what is run."""

    def __init__(self) -> None:
        self._made: dict[tuple[str, tuple[int, ...]], Check] = {}

    def lm(self, vlm: VLM, base: Baseline, positions: Positions, known: Check | None) -> Check:
        """Compare the widening pass, unless that was done for a prompt of this length and suffix.

        What is `known` of this one already is kept for the others.
        """
        prefill = base.trace.prefills[0]
        key = "lm", (prefill.tokens, prefill.start)
        if key not in self._made:
            self._made[key] = known or check(vlm, base, positions)
        return known or self._made[key]

    def vision(self, vlm: VLM, base: Baseline, known: Check | None = None) -> Check:
        """Compare the resumed pass of the vision tower, unless done for pictures of this shape."""
        key = "vision", (base.prompt.spans.length, *base.trace.z["vision"][0].shape)
        if key not in self._made:
            self._made[key] = known or check_vision(vlm, base)
        return known or self._made[key]

    def saved(self) -> Saved:
        """Return what was compared, as plain values that can be kept."""
        by_tower = sorted(self._made.items(), key=lambda item: item[0][0])
        return [(*key, (one.worst, one.allowed, one.reason)) for key, one in by_tower]

    def recall(self, saved: Saved) -> None:
        """Take comparisons that an earlier run made; what is known already stays."""
        for tower, key, values in saved:
            self._made.setdefault((tower, tuple(key)), Check(*values))


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
