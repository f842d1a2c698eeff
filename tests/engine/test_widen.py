"""The widening pass against its slow twin, the plain path: every row exact."""

from functools import lru_cache
from itertools import product
from typing import get_args

import pytest
import torch

from headpatch.engine.forward import Keep, forward
from headpatch.engine.interventions import Direction, Intervention, Kind
from headpatch.engine.patching import Baseline, ZMeans, patch, run_pair
from headpatch.engine.sweep import check, suffix_start, widen
from headpatch.heads import HeadSet
from headpatch.models.spans import Positions
from headpatch.models.vlm import VLM
from tests.engine.test_attention import state_of
from tests.tiny import SHAPES, Shape, tiny_prompt, tiny_vlm

KINDS, DIRECTIONS, SCOPES = get_args(Kind), get_args(Direction), get_args(Positions)
every_shape = pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
every_scope = pytest.mark.parametrize("scope", SCOPES)


@lru_cache
def pair_of(shape: Shape, scope: Positions) -> tuple[VLM, Baseline]:
    vlm = tiny_vlm(shape)
    prompt = tiny_prompt(vlm)
    keep = Keep(lm_rows=True, z=("lm",), suffix=suffix_start(prompt.spans, scope))
    return vlm, run_pair(vlm, prompt, keep)


def means_of(base: Baseline) -> ZMeans:
    return {"lm": [z.mean(0) + 0.1 for z in base.trace.z["lm"]]}


def everything(vlm: VLM, scope: Positions) -> list[Intervention]:
    """Every head alone, and sets within a layer, across layers and of all heads."""
    grid = list(vlm.lm.grid)
    sets = [HeadSet.of(head) for head in grid]
    sets += [HeadSet.parse("0.1+0.3"), HeadSet.parse("1.0+0.2"), HeadSet(tuple(grid))]
    return [
        Intervention(heads, kind, direction, scope)
        for heads, kind, direction in product(reversed(sets), KINDS, DIRECTIONS)
    ]


@every_scope
@every_shape
def test_every_row_equals_the_plain_path(shape: Shape, scope: Positions) -> None:
    vlm, base = pair_of(shape, scope)
    asked, means = everything(vlm, scope), means_of(base)
    fast = widen(vlm, base, asked, means)
    slow = patch(vlm, base, asked, means, batch=64)
    assert [one.intervention for one in fast] == asked
    for ours, theirs in zip(fast, slow, strict=True):
        assert ours.effect == pytest.approx(theirs.effect, abs=2e-5), ours.intervention
        assert ours.ld == pytest.approx(theirs.ld, abs=2e-5)
        assert (ours.token, ours.token_before) == (theirs.token, theirs.token_before)
    assert max(abs(one.effect) for one in slow) > 0.1


@pytest.mark.parametrize("rows", [1, 2, 5, 1000])
def test_the_size_of_a_chunk_does_not_matter(rows: int) -> None:
    vlm, base = pair_of(SHAPES["grouped-query"], "question")
    asked, means = everything(vlm, "question"), means_of(base)
    calls: list[tuple[int, int]] = []
    chunked = widen(
        vlm, base, asked, means, rows=rows, on_progress=lambda *call: calls.append(call)
    )
    for ours, theirs in zip(chunked, widen(vlm, base, asked, means), strict=True):
        assert ours.intervention == theirs.intervention
        assert ours.effect == pytest.approx(theirs.effect, abs=1e-5)
    assert calls[-1] == (len(asked), len(asked))


@every_scope
@every_shape
def test_the_check_finds_it_exact(shape: Shape, scope: Positions) -> None:
    """Without this, analyses would fall back to the plain path, and be right but slow."""
    vlm, base = pair_of(shape, scope)
    assert check(vlm, base, scope).exact


def test_the_check_finds_a_layer_that_does_not_add_up() -> None:
    """A baseline of other weights: the walk goes on from states that this model never had."""
    vlm, base = pair_of(SHAPES["plain"], "answer")
    other = tiny_vlm(SHAPES["plain"], seed=1)
    assert not check(other, base, "answer").exact
    assert check(vlm, base, "answer").exact


@every_scope
def test_keeping_a_suffix_changes_nothing(scope: Positions) -> None:
    vlm, base = pair_of(SHAPES["plain"], scope)
    assert torch.equal(base.trace.logits, forward(vlm, base.prompt).logits)
    assert len(base.trace.prefills) == 2


def test_the_model_is_left_as_found() -> None:
    vlm, base = pair_of(SHAPES["plain"], "answer")
    before = state_of(vlm.model)
    widen(vlm, base, everything(vlm, "answer"), means_of(base))
    run_pair(vlm, base.prompt, Keep(suffix=5))
    assert state_of(vlm.model) == before
    with pytest.raises(IndexError):  # in the middle of a walk
        widen(vlm, base, [Intervention(HeadSet.parse("1.99"), "zero", "noising")])
    assert state_of(vlm.model) == before


@pytest.mark.parametrize(
    ("heads", "kind", "scopes", "message"),
    [
        ("1.1", "mean", ["answer"], "means"),
        ("v1.1", "zero", ["answer"], "language-model heads"),
        ("1.1", "zero", ["answer", "all"], "one scope"),
        ("1.1", "zero", ["all"], "suffix"),
    ],
)
def test_what_would_give_wrong_numbers_is_refused(
    heads: str, kind: Kind, scopes: list[Positions], message: str
) -> None:
    vlm, base = pair_of(SHAPES["plain"], "answer")
    asked = [Intervention(HeadSet.parse(heads), kind, "noising", scope) for scope in scopes]
    with pytest.raises(ValueError, match=message):
        widen(vlm, base, asked)
