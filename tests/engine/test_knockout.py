"""Knockouts against eager transformers with a mask of one's own, whole passes and resumed ones."""

from collections.abc import Sequence
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from headpatch.engine import knockout
from headpatch.engine.forward import Keep, forward
from headpatch.engine.interventions import Cut, ZEdit
from headpatch.engine.knockout import Knockout, disagreement, knock_out
from headpatch.engine.patching import WITH, WITHOUT, Baseline, OnProgress, Outcome, run_pair
from headpatch.heads import Head, HeadSet
from headpatch.models.vlm import VLM
from tests.engine.oracle import Edges, Oracle
from tests.tiny import every_shape, tiny_model, tiny_pair, tiny_prompt, tiny_vlm

CLOSE = 2e-5  # logits; float32 with two implementations of attention


def resume(
    vlm: VLM, base: Baseline, asked: Sequence[Knockout], on_progress: OnProgress | None = None
) -> list[Outcome[Knockout]]:
    return knock_out(vlm, base, asked, on_progress, resumed=True)


def opened(shape: str = "plain", start: int = 0) -> tuple[VLM, Baseline]:
    return tiny_pair(shape, suffix=start, exact=True)


def layer(vlm: VLM, *layers: int) -> HeadSet:
    return HeadSet(tuple(head for head in vlm.lm.grid if head.layer in layers))


def by_hand(asked: Knockout) -> list[Edges]:
    """The same edges one query and one head at a time; a query's own position is left out."""
    return [
        Edges(head, [query], [key for key in asked.keys.tolist() if asked.own or key != query])
        for head in asked.heads
        for query in asked.queries.tolist()
        if asked.own or asked.keys.tolist() != [query]
    ]


def various(vlm: VLM, base: Baseline) -> list[Knockout]:
    spans = base.prompt.spans
    answer, question, image = torch.tensor([spans.answer]), spans.question, spans.image
    last = vlm.lm.grid.layers - 1
    one = HeadSet.of(Head(0, 1))
    return [
        Knockout(WITH, one, answer, image[:5]),
        Knockout(WITHOUT, layer(vlm, 0, 1), question, image[2:9]),
        Knockout(WITH, layer(vlm, last), question, question),  # keeps its own position
        Knockout(WITH, layer(vlm, last), question, question, own=True),
        Knockout(WITHOUT, HeadSet.of(Head(0, 0), Head(last, 3)), answer, question),
        Knockout(WITH, layer(vlm, *range(last + 1)), question, torch.arange(spans.length)),
    ]


def effects(vlm: VLM, base: Baseline, asked: Sequence[Knockout]) -> list[float]:
    """By the oracle."""
    oracle, prompt = Oracle(vlm), base.prompt
    plain = [oracle.ld(prompt, run) for run in (WITH, WITHOUT)]
    return [oracle.ld(prompt, one.run, edges=by_hand(one)) - plain[one.run] for one in asked]


def found(outcomes: Sequence[Outcome[Knockout]]) -> list[float]:
    return [one.effect for one in outcomes]


@every_shape
def test_both_paths_equal_an_eager_mask(shape: str) -> None:
    vlm, base = opened(shape)
    asked = various(vlm, base)
    expected = effects(vlm, base, asked)
    assert min(map(abs, expected)) > 1e-4  # a test of cuts that change nothing proves nothing
    for path in (knock_out, resume):
        shifts = path(vlm, base, asked)
        assert found(shifts) == pytest.approx(expected, abs=CLOSE)
        for one, shift in zip(asked, shifts, strict=True):
            untouched = base.ld_with if one.run == WITH else base.ld_without
            assert shift.ld == pytest.approx(untouched + shift.effect, abs=1e-9)


@every_shape
def test_resuming_from_the_question_on_is_resuming_from_the_start(shape: str) -> None:
    vlm, whole = opened(shape)
    spans = whole.prompt.spans
    late = run_pair(vlm, whole.prompt, Keep(suffix=int(spans.question[0])), exact=True)
    asked = various(vlm, whole)
    expected = pytest.approx(found(resume(vlm, whole, asked)), abs=CLOSE)
    assert found(resume(vlm, late, asked)) == expected


def test_queries_inside_the_image() -> None:
    vlm, base = opened()
    image = base.prompt.spans.image
    asked = [Knockout(run, layer(vlm, 0, 1), image, image[:6]) for run in (WITH, WITHOUT)]
    expected = effects(vlm, base, asked)
    assert min(map(abs, expected)) > 1e-4
    for path in (knock_out, resume):
        assert found(path(vlm, base, asked)) == pytest.approx(expected, abs=CLOSE)


def test_several_heads_of_one_cut_are_several_cuts() -> None:
    vlm, base = opened()
    prompt = base.prompt.select(WITH)
    queries, keys = base.prompt.spans.question, base.prompt.spans.image[:7]
    heads = HeadSet.parse("0.1+0.2+1.3+2.0")
    together = forward(vlm, prompt, cuts=[Cut(0, heads, queries, keys)])
    apart = forward(vlm, prompt, cuts=[Cut(0, head, queries, keys) for head in heads])
    assert torch.equal(together.logits, apart.logits)


def test_a_query_without_any_key_has_z_zero() -> None:
    vlm, base = opened()
    spans = base.prompt.spans
    prompt, heads = base.prompt.select(WITH), HeadSet.parse("1.0+1.2")
    where = torch.tensor([7, spans.answer])
    every = torch.arange(spans.length)
    cut = forward(vlm, prompt, cuts=[Cut(0, heads, where, every)])
    zeroed = forward(vlm, prompt, [ZEdit(0, head, where, None) for head in heads])
    torch.testing.assert_close(cut.logits, zeroed.logits, atol=1e-6, rtol=0)
    spared = forward(vlm, prompt, cuts=[Cut(0, heads, where, every, own=False)])
    assert (spared.logits - zeroed.logits).abs().max() > 1e-3


@pytest.mark.parametrize("path", [knock_out, resume])
def test_cutting_nothing_or_the_future_changes_nothing(path) -> None:
    vlm, base = opened()
    spans = base.prompt.spans
    none = torch.tensor([], dtype=torch.long)
    heads = layer(vlm, 0, 1, 2)
    asked = [
        Knockout(WITH, heads, torch.arange(spans.length), none),
        Knockout(WITHOUT, heads, spans.image, spans.question),
        Knockout(WITH, heads, torch.arange(spans.length), torch.tensor([spans.answer])),
    ]
    assert found(path(vlm, base, asked)) == pytest.approx([0] * 3, abs=5e-6)


def test_rows_of_a_batch_do_not_feel_each_other() -> None:
    vlm, base = opened()
    asked = various(vlm, base)
    seen: list[tuple[int, int]] = []
    for path in (knock_out, resume):
        together = found(path(vlm, base, asked, lambda *call: seen.append(call)))
        alone = [path(vlm, base, [one])[0].effect for one in asked]
        assert together == pytest.approx(alone, abs=5e-6)
        assert seen[-1] == (len(asked), len(asked))


def test_a_wrong_resumption_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    vlm, base = opened()
    assert disagreement(vlm, base, various(vlm, base)) < CLOSE

    def off(*arguments: object) -> Tensor:
        logits = original(*arguments)
        logits[1:, base.prompt.answers.yes] += 0.01
        return logits

    original = knockout._resumed
    monkeypatch.setattr(knockout, "_resumed", off)
    assert disagreement(vlm, base, various(vlm, base)) == pytest.approx(0.01, abs=1e-3)

    def broken(*_: object) -> Tensor:
        raise TypeError("a layer that takes something else")

    monkeypatch.setattr(knockout, "_resumed", broken)
    assert disagreement(vlm, base, various(vlm, base)) == float("inf")


def test_what_cannot_be_resumed_is_refused() -> None:
    vlm, base = opened(start=20)
    early = Knockout(WITH, HeadSet.of(Head(0, 0)), torch.tensor([5, 25]), torch.tensor([1]))
    with pytest.raises(ValueError, match="too short a suffix"):
        knock_out(vlm, base, [early], resumed=True)
    assert disagreement(vlm, base, [early]) == float("inf")
    bare = run_pair(vlm, base.prompt, exact=True)
    with pytest.raises(ValueError, match="too short a suffix"):
        resume(vlm, bare, [replace(early, queries=torch.tensor([25]))])


def test_low_precision_is_resumed_in_float32() -> None:
    """Over the low-precision weights, as whole passes are."""
    low = VLM(tiny_model(dtype=torch.bfloat16), tiny_vlm().processor, "tiny", "")
    rounded = VLM(tiny_model(dtype=torch.bfloat16).float(), low.processor, "tiny", "")
    shifts = []
    for vlm in (low, rounded):
        base = run_pair(vlm, tiny_prompt(vlm), Keep(suffix=0), exact=True)
        spans = base.prompt.spans
        asked = [Knockout(WITH, layer(vlm, 1), spans.question, spans.image)]
        shifts.append(knock_out(vlm, base, asked)[0].effect)
        assert disagreement(vlm, base, asked) < CLOSE
        assert resume(vlm, base, asked)[0].effect == pytest.approx(shifts[-1], abs=CLOSE)
    assert shifts[0] == pytest.approx(shifts[1], abs=1e-4)
    assert abs(shifts[0]) > 1e-2
