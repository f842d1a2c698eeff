"""The widening pass against its slow twin, the plain path: every row exact."""

from collections.abc import Iterator
from itertools import product
from typing import Any, get_args

import pytest
import torch

from headpatch.engine.forward import forward
from headpatch.engine.interventions import Direction, Intervention
from headpatch.engine.patching import Baseline, Outcome, patch
from headpatch.engine.prefill import Prefill
from headpatch.engine.selfcheck import check
from headpatch.engine.walk_plan import Chunk
from headpatch.engine.widen import _one_ahead, passes, widen
from headpatch.engine.widening import walk
from headpatch.errors import InputError
from headpatch.heads import HeadSet
from headpatch.models.spans import Positions
from headpatch.models.vlm import VLM
from tests.engine.oracle import blend
from tests.tiny import PLAIN, every_shape, tiny_pair, tiny_vlm

KINDS, DIRECTIONS, SCOPES = PLAIN, get_args(Direction), get_args(Positions)
every_scope = pytest.mark.parametrize("scope", SCOPES)


def pair_of(shape: str, scope: Positions) -> tuple[VLM, Baseline]:
    return tiny_pair(shape, "lm", suffix=scope, rows=True)


def low_pair(shape: str, scope: Positions, dtype: torch.dtype) -> tuple[VLM, Baseline]:
    return tiny_pair(shape, "lm", suffix=scope, dtype=dtype, exact=True)


@pytest.mark.parametrize("room", [1, 4])
def test_out_of_memory_halves_the_chunk_and_goes_on(
    room: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A device with room for a few rows: as many outcomes, each once, with the same numbers."""
    vlm, base = pair_of("plain", "question")
    asked, means = everything(vlm, "question"), blend(base.trace.z)
    roomy = widen(vlm, base, asked, means)

    def cramped(vlm: VLM, prefill: Prefill, chunks: list[Chunk], *rest: Any) -> Iterator[Any]:
        for chunk in chunks:
            if len(chunk.order) > room:
                raise torch.OutOfMemoryError("as asked")
            yield from walk(vlm, prefill, [chunk], *rest)

    monkeypatch.setattr("headpatch.engine.widen.walk", cramped)
    told: list[Outcome] = []
    tight = widen(vlm, base, asked, means, rows=64, on_outcome=told.append)
    assert len(told) == len({one.intervention for one in told}) == len(asked)
    for ours, theirs in zip(tight, roomy, strict=True):
        assert ours.effect == pytest.approx(theirs.effect, abs=1e-5)


def test_what_was_walked_is_not_lost_where_the_next_walk_fails() -> None:
    seen, walked = list[str](), list[str]()

    def walks() -> Iterator[Any]:
        for one in "abc":
            walked.append(one)
            yield one
        raise InputError("a GPU", "too little memory", "more")

    ahead = _one_ahead(walks())
    for count in (2, 3, 3):
        seen.append(next(ahead))
        assert len(walked) == count
    with pytest.raises(InputError, match="too little memory"):
        next(ahead)
    assert seen == ["a", "b", "c"]


def test_no_room_for_one_row_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    vlm, base = pair_of("plain", "answer")

    def full(*_: Any) -> Iterator[Any]:
        raise torch.OutOfMemoryError("as asked")
        yield

    monkeypatch.setattr("headpatch.engine.widen.walk", full)
    with pytest.raises(InputError, match="--device: cpu has too little memory for one row"):
        widen(vlm, base, everything(vlm, "answer")[:4], blend(base.trace.z), rows=3)


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
def test_every_row_equals_the_plain_path(shape: str, scope: Positions) -> None:
    vlm, base = pair_of(shape, scope)
    asked, means = everything(vlm, scope), blend(base.trace.z)
    assert check(vlm, base, scope).exact  # else analyses would fall back to the plain path
    fast = widen(vlm, base, asked, means)
    slow = patch(vlm, base, asked, means, batch=64)
    assert [one.intervention for one in fast] == asked
    for ours, theirs in zip(fast, slow, strict=True):
        expected = pytest.approx((theirs.effect, theirs.ld), abs=2e-5)
        assert (ours.effect, ours.ld) == expected, ours.intervention
        assert (ours.token, ours.token_before) == (theirs.token, theirs.token_before)
    assert max(abs(one.effect) for one in slow) > 0.1


@pytest.mark.parametrize("rows", [1, 2, 5, 1000])
def test_the_size_of_a_chunk_does_not_matter(rows: int) -> None:
    vlm, base = pair_of("grouped-query", "question")
    asked, means = everything(vlm, "question"), blend(base.trace.z)
    calls: list[tuple[int, int]] = []
    chunked = widen(
        vlm, base, asked, means, rows=rows, on_progress=lambda *call: calls.append(call)
    )
    for ours, theirs in zip(chunked, widen(vlm, base, asked, means), strict=True):
        assert ours.intervention == theirs.intervention
        assert ours.effect == pytest.approx(theirs.effect, abs=1e-5)
    assert calls[-1] == (len(asked), len(asked))


def test_the_check_finds_a_layer_that_does_not_add_up() -> None:
    """A baseline of other weights: the walk goes on from states that this model never had."""
    vlm, base = pair_of("plain", "answer")
    other = tiny_vlm(seed=1)
    assert not check(other, base, "answer").exact
    assert check(vlm, base, "answer").exact


@every_scope
def test_keeping_a_suffix_changes_nothing(scope: Positions) -> None:
    vlm, base = pair_of("plain", scope)
    assert torch.equal(base.trace.logits, forward(vlm, base.prompt).logits)
    assert len(base.trace.prefills) == 2


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
    heads: str, kind: str, scopes: list[Positions], message: str
) -> None:
    vlm, base = pair_of("plain", "answer")
    asked = [Intervention(HeadSet.parse(heads), kind, "noising", scope) for scope in scopes]
    with pytest.raises(ValueError, match=message):
        widen(vlm, base, asked)


@every_scope
@pytest.mark.parametrize("shape", ["plain", "grouped-query", "wide-heads"])
@pytest.mark.parametrize(("dtype", "rounding"), [(torch.bfloat16, 2**-8), (torch.float16, 2**-11)])
def test_low_precision_rows_carry_the_error_of_their_own_products(
    dtype: torch.dtype, rounding: float, shape: str, scope: Positions
) -> None:
    """Against float32 over the same weights: some twenty products in a row, each rounded."""
    vlm, base = low_pair(shape, scope, dtype)
    asked, means = everything(vlm, scope), blend(base.trace.z)
    slow = torch.tensor([one.effect for one in patch(vlm, base, asked, means, batch=64)])
    fast = torch.tensor([one.effect for one in widen(vlm, base, asked, means)])
    assert (fast - slow).abs().max() < 16 * rounding * slow.abs().max()
    selves = torch.tensor([one.kind == "self" for one in asked])
    assert fast[selves].abs().max() < 1e-6  # a row that changes nothing deviates by nothing


@every_scope
@pytest.mark.parametrize("size", [1, 5, 1000])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_price_is_the_work_done(dtype: torch.dtype, size: int, scope: Positions) -> None:
    """Weights × positions that every linear module of the decoder's layers was called with."""
    vlm, base = low_pair("grouped-query", scope, dtype)
    asked = [one for one in everything(vlm, scope) if one.kind == "zero"][::2]
    spent: list[int] = []

    def count(module: torch.nn.Module, inputs: tuple[torch.Tensor], _: object) -> None:
        spent.append(inputs[0][..., 0].numel() * module.weight.numel())

    modules = [module for layer in vlm.lm.layers for module in layer.modules()]
    linears = [one for one in modules if isinstance(one, torch.nn.Linear)]
    hooks = [module.register_forward_hook(count) for module in linears]
    widen(vlm, base, asked, rows=size)
    for hook in hooks:
        hook.remove()
    layers = vlm.lm.grid.layers
    one_layer = sum(one.weight.numel() for one in linears) / layers
    paid = sum(
        passes(prefill, [one.heads for one in asked if one.direction == direction], layers, size)
        * prefill.tokens
        for prefill, direction in zip(base.trace.prefills, DIRECTIONS, strict=True)
    )
    # A layer's norms are weights as well, which are not multiplied with: a little off.
    assert paid == pytest.approx(sum(spent) / one_layer / layers, rel=0.02)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_answers_alone_are_unembedded(
    dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    vlm, base = low_pair("plain", "answer", dtype)
    asked, means = everything(vlm, "answer"), blend(base.trace.z)
    whole = widen(vlm, base, asked, means)
    shapes: list[tuple[int, ...]] = []

    def measured(*arguments: Any) -> Iterator[Any]:
        for chunk, logits in walk(*arguments):
            shapes.append(tuple(logits.shape))
            yield chunk, logits

    monkeypatch.setattr("headpatch.engine.widen.walk", measured)
    alone = widen(vlm, base, asked, means, answers_only=True)
    assert {width for _, width in shapes} == {2}
    answers = base.prompt.answers
    for ours, theirs in zip(alone, whole, strict=True):
        assert ours.effect == pytest.approx(theirs.effect, abs=2e-5)
        assert ours.token == (answers.yes if ours.ld > 0 else answers.no)
        assert ours.token_before in (answers.yes, answers.no)
    with pytest.raises(ValueError, match="whole vocabulary"):
        widen(vlm, base, asked, means, read=lambda logits: logits[:, :1], answers_only=True)
