"""How far headpatch is from plain transformers in one family: what the tests assert and the table
of `benchmarks/family_table.py` prints.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product

import torch
from torch import Tensor

from headpatch.engine.forward import Keep, forward
from headpatch.engine.interventions import Direction, Intervention
from headpatch.engine.patching import Baseline, Outcome, patch, run_pair
from headpatch.engine.selfcheck import check
from headpatch.engine.vision import patch_vision
from headpatch.engine.widen import suffix_start, widen
from headpatch.errors import InputError
from headpatch.heads import Head, HeadSet, Tower
from headpatch.models.prompt import Prompt
from headpatch.models.spans import Positions
from headpatch.models.vlm import VLM
from tests.engine.oracle import Change, Oracle

SCOPES: tuple[Positions, ...] = ("answer", "question", "image", "all")
KINDS: tuple[str, ...] = ("zero", "resample")
DIRECTIONS: tuple[Direction, ...] = ("noising", "denoising")
TOWERS: tuple[Tower, ...] = ("lm", "vision")


@dataclass(frozen=True)
class Edited:
    """Edits of z against the oracle: the largest disagreement of an effect, and effect."""

    worst: float
    largest: float


@dataclass(frozen=True)
class Fast:
    """The widening pass against the plain one over every head, if its check allows it."""

    exact: bool
    worst: float
    refused: str


@dataclass(frozen=True)
class Measured:
    """One family's figures."""

    z: dict[Tower, float]  # the largest disagreement
    edits: dict[str, Edited]  # by scope, and of the vision tower
    rows: float  # the largest disagreement of the answer position's
    without_rows: list[int]  # layers
    fast: dict[Positions, Fast]  # by scope that the prompt has
    tower_rows: float | None  # the largest disagreement of what the tower's tokens receive
    vision_fast: float  # the resumed vision sweep against the plain one


def interventions(heads: Sequence[Head], scope: Positions) -> list[Intervention]:
    return [
        Intervention(HeadSet.of(head), kind, direction, scope)
        for head, kind, direction in product(heads, KINDS, DIRECTIONS)
    ]


def has(prompt: Prompt, scope: Positions) -> bool:
    try:
        prompt.spans.positions(scope)
    except InputError:
        return False
    return True


def measure(vlm: VLM, prompt: Prompt, among: Sequence[Positions] = SCOPES) -> Measured:
    """Compare z, edits of z, rows and the widening pass with plain transformers."""
    oracle = Oracle(vlm)
    base = run_pair(vlm, prompt, Keep(lm_rows=True, z=TOWERS))
    each = [oracle.z(prompt.select(run).inputs) for run in (0, 1)]
    z = [{t: [layer.flatten(0, -3) for layer in one[t]] for t in one} for one in each]
    rows, without = compare_rows(oracle, base)
    scopes = [scope for scope in among if has(prompt, scope)]
    edits = {scope: compare_edits(vlm, oracle, base, z, _few(vlm, "lm"), scope) for scope in scopes}
    edits["vision"] = compare_edits(vlm, oracle, base, z, _few(vlm, "vision"), "answer")
    return Measured(
        {tower: _worst_z(z, base, tower) for tower in TOWERS},
        edits,
        rows,
        without,
        {scope: compare_fast(vlm, prompt, scope) for scope in scopes},
        compare_tower_rows(vlm, prompt, oracle),
        compare_vision_fast(vlm, base),
    )


def compare_rows(oracle: Oracle, base: Baseline) -> tuple[float, list[int]]:
    assert base.trace.lm_rows is not None
    worst, without = 0.0, []
    for run in (0, 1):
        maps = oracle.lm_rows(base.prompt.select(run).inputs)
        for layer, found in enumerate(base.trace.lm_rows[run]):
            if found.isnan().all():
                without.append(layer)
            else:
                worst = max(worst, float((maps[layer][0, :, -1] - found).abs().max()))
    return worst, sorted(set(without))


def compare_tower_rows(vlm: VLM, prompt: Prompt, oracle: Oracle) -> float | None:
    """Mean rows of patch queries and of class tokens, over all tiles of a run; None if not kept."""
    trace, worst = forward(vlm, prompt, keep=Keep(vision_rows=True)), 0.0
    if trace.vision_patch_rows is None:
        return None
    tower = next(one for name, one in oracle.model.named_modules() if "vision" in name
                 or name.endswith("visual"))  # fmt: skip
    names = {name.rpartition(".")[2] for name, _ in tower.named_parameters()}
    has_class = bool(names & {"class_embedding", "cls_token"})
    assert (trace.vision_class_rows is not None) is has_class
    for run in (0, 1):
        inputs = prompt.select(run).inputs
        for layer, maps in enumerate(oracle.tower_maps(inputs)):
            tiles = inputs["pixel_values"].shape[:-3].numel() if has_class else 1
            first = torch.arange(maps.shape[-1]) % (maps.shape[-1] // tiles) == 0
            is_class = first & has_class
            off = maps[:, ~is_class].mean(1) - trace.vision_patch_rows[run, layer]
            worst = max(worst, float(off.abs().max()))
            if trace.vision_class_rows is not None:
                off = maps[:, is_class].mean(1) - trace.vision_class_rows[run, layer]
                worst = max(worst, float(off.abs().max()))
    return worst


def compare_edits(
    vlm: VLM,
    oracle: Oracle,
    base: Baseline,
    z: list[dict[str, list[Tensor]]],
    heads: Sequence[Head],
    scope: Positions,
) -> Edited:
    """Effects of `patch`, several to a batch, against a pass with hooks for each."""
    asked = interventions(heads, scope)
    untouched = [oracle.ld(base.prompt, run) for run in (0, 1)]
    worst = largest = 0.0
    for one, outcome in zip(asked, patch(vlm, base, asked, batch=5), strict=True):
        run = 0 if one.direction == "noising" else 1
        (head,) = one.heads
        other = z[1 - run][head.tower][head.layer]
        at = torch.arange(len(other))
        if head.tower == "lm":
            at = base.prompt.spans.positions(scope)
        value = None if one.kind == "zero" else other[at, head.head]
        effect = oracle.ld(base.prompt, run, [Change(head, at, value)]) - untouched[run]
        worst, largest = max(worst, abs(effect - outcome.effect)), max(largest, abs(effect))
    return Edited(worst, largest)


def compare_fast(vlm: VLM, prompt: Prompt, scope: Positions) -> Fast:
    """Every head by widening passes, against `patch`."""
    start = suffix_start(prompt.spans, scope)
    base = run_pair(vlm, prompt, Keep(z=("lm",), suffix=start))
    checked = check(vlm, base, scope)
    refused = base.trace.prefills[0].refused
    if not checked.exact:
        return Fast(False, checked.worst, refused)
    asked = interventions(list(vlm.lm.grid), scope)
    return Fast(True, worst_effect(patch(vlm, base, asked), widen(vlm, base, asked)), refused)


def compare_vision_fast(vlm: VLM, base: Baseline) -> float:
    """Two heads of every vision layer by `patch_vision`, against `patch`."""
    asked = interventions(_few(vlm, "vision"), "answer")
    return worst_effect(patch_vision(vlm, base, asked), patch(vlm, base, asked))


def worst_effect(first: Sequence[Outcome], second: Sequence[Outcome]) -> float:
    return max(abs(a.effect - b.effect) for a, b in zip(first, second, strict=True))


def _few(vlm: VLM, tower: Tower) -> list[Head]:
    """The first and last head of every layer."""
    grid = vlm.stack(tower).grid
    return [
        Head(layer, head, tower) for layer in range(grid.layers) for head in (0, grid.heads - 1)
    ]


def _worst_z(z: list[dict[str, list[Tensor]]], base: Baseline, tower: Tower) -> float:
    return max(
        float((exact - found[run]).abs().max())
        for run in (0, 1)
        for exact, found in zip(z[run][tower], base.trace.z[tower], strict=True)
    )
