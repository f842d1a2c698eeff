"""One pass against plain transformers: logits, rows, z, edits and cuts, in both towers."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from headpatch.engine.forward import Keep, Trace, forward
from headpatch.engine.interventions import Cut, ZEdit
from headpatch.errors import RunError
from headpatch.heads import Head
from headpatch.models.prompt import Prompt
from headpatch.models.spans import find_spans
from tests.engine import numpy_llava
from tests.engine.oracle import Change, Edges, Oracle
from tests.engine.test_attention import state_of
from tests.tiny import SHAPES, every_shape, pad_left, tiny_prompt, tiny_vlm

ALL = Keep(lm_rows=True, vision_rows=True, z=("lm", "vision"))


def close(found: Tensor | None, expected: Tensor, tolerance: float) -> None:
    assert found is not None
    torch.testing.assert_close(found, expected, atol=tolerance, rtol=0)


@every_shape
@pytest.mark.parametrize("keep", [ALL, Keep(lm_rows=True, vision_rows=True)], ids=["z", "rows"])
def test_logits_rows_and_z_equal_eager_transformers(shape: str, keep: Keep) -> None:
    """Rows alone are computed together at the end of a pass, others as they come."""
    vlm = tiny_vlm(SHAPES[shape])
    prompt = tiny_prompt(vlm)
    trace, oracle = forward(vlm, prompt, keep=keep), Oracle(vlm)
    close(trace.logits, oracle.logits(prompt.inputs), 2e-5)
    lm, vision = torch.stack(oracle.lm_rows(prompt.inputs), 1), oracle.vision_rows(prompt.inputs)
    close(trace.lm_rows, lm[:, :, :, -1], 1e-6)
    close(trace.vision_class_rows, vision[:, :, :, 0], 1e-6)
    close(trace.vision_patch_rows, vision[:, :, :, 1:].mean(3), 1e-6)
    assert list(trace.z) == list(keep.z)
    for tower, layers in trace.z.items():
        for ours, theirs in zip(layers, oracle.z(prompt.inputs)[tower], strict=True):
            close(ours, theirs, 1e-5)
    for rows in (trace.lm_rows, trace.vision_class_rows, trace.vision_patch_rows):
        assert (rows >= 0).all()
        close(rows.sum(-1), torch.ones(rows.shape[:-1]), 1e-6)
    for found in (trace.logits, trace.lm_rows, trace.vision_class_rows, trace.vision_patch_rows):
        assert not found.is_inference()
        found.requires_grad_().square().sum().backward()  # a tensor of inference mode refuses


@every_shape
def test_logits_rows_and_z_equal_the_formulas(shape: str) -> None:
    """Two oracles, one answer."""
    vlm = tiny_vlm(SHAPES[shape])
    prompt = tiny_prompt(vlm)
    trace = forward(vlm, prompt, keep=ALL)
    pixels = prompt.inputs["pixel_values"].double().numpy()
    for run in (0, 1):
        exact = numpy_llava.run(vlm.model, prompt.input_ids.numpy(), pixels[run])
        rows, vision = np.stack(exact.rows), np.stack(exact.vision_rows)
        z = [one.transpose(1, 0, 2) for one in exact.z]
        for found, expected, tolerance in (
            (trace.logits, exact.logits, 2e-5),
            (trace.lm_rows, rows[:, :, -1], 1e-6),
            (trace.vision_class_rows, vision[:, :, 0], 1e-6),
            (trace.vision_patch_rows, vision[:, :, 1:].mean(2), 1e-6),
            *((ours, theirs, 1e-5) for ours, theirs in zip(trace.z["lm"], z, strict=True)),
        ):
            np.testing.assert_allclose(found[run], expected, atol=tolerance, rtol=0)


def test_vision_layers_that_nothing_reads_run_only_when_looked_at() -> None:
    vlm = tiny_vlm(SHAPES["deep-vision"])
    tower = vlm.stack("vision")
    last = tower.grid.layers - 1
    assert vlm.feature_layer < last
    prompt, ran = tiny_prompt(vlm), []
    hook = tower.layers[last].mlp.register_forward_hook(lambda *_: ran.append(1))
    plain = Oracle(vlm).logits(prompt.inputs)
    ran.clear()
    close(forward(vlm, prompt).logits, plain, 2e-5)
    assert not ran
    forward(vlm, prompt, keep=Keep(vision_rows=True))
    forward(vlm, prompt, keep=Keep(z=("vision",)))
    forward(vlm, prompt, [ZEdit(0, Head(last, 0, "vision"), torch.tensor([0]), None)])
    assert len(ran) == 3
    hook.remove()


def test_nothing_is_kept_unless_asked() -> None:
    vlm = tiny_vlm()
    trace = forward(vlm, tiny_prompt(vlm))
    assert trace.lm_rows is trace.vision_class_rows is trace.vision_patch_rows is None
    assert trace.z == {}


@every_shape
def test_edits_of_both_towers_in_one_batch(shape: str) -> None:
    """Each row has its own edits, and no row feels another's."""
    vlm = tiny_vlm(SHAPES[shape])
    one = tiny_prompt(vlm).select(0)
    generator = torch.Generator().manual_seed(3)
    length = one.spans.length

    def value(count: int, tower: str) -> Tensor:
        return torch.randn(count, vlm.stack(tower).head_dim, generator=generator)

    last = vlm.lm.grid.layers - 1
    rows = [
        [],
        [Change(Head(0, 1), range(length), value(length, "lm"))],
        [Change(Head(last, 3), [length - 1], value(1, "lm"))],
        [Change(Head(0, 0), [4, 9, length - 2], None)],
        [Change(Head(0, 2, "vision"), range(17), value(17, "vision"))],
        [Change(Head(1, 1, "vision"), [0, 5], None), Change(Head(0, 2), [7], value(1, "lm"))],
        [Change(Head(0, head), range(length), None) for head in range(4)],
    ]
    edits = [
        ZEdit(row, change.head, torch.tensor(list(change.positions)), change.value)
        for row, changes in enumerate(rows)
        for change in changes
    ]
    trace, oracle = forward(vlm, one.repeat(len(rows)), edits), Oracle(vlm)
    for row, changes in enumerate(rows):
        close(trace.logits[row], oracle.logits(one.inputs, changes)[0], 2e-5)
    moved = (trace.logits[1:] - trace.logits[0]).abs().amax(1)
    assert (moved > 1e-3).all()  # a test of changes that change nothing would prove nothing


def test_a_later_edit_of_the_same_place_wins() -> None:
    vlm = tiny_vlm()
    one = tiny_prompt(vlm).select(0)
    here = torch.tensor([one.spans.answer])
    final = ZEdit(0, Head(1, 1), here, torch.ones(1, 8))
    both = forward(vlm, one, [ZEdit(0, Head(1, 1), here, None), final])
    assert torch.equal(both.logits, forward(vlm, one, [final]).logits)


def test_kept_z_is_the_models_own_and_not_the_edit() -> None:
    vlm = tiny_vlm()
    one = tiny_prompt(vlm).select(0)
    plain = forward(vlm, one, keep=Keep(z=("lm",)))
    edit = ZEdit(0, Head(1, 1), torch.tensor([one.spans.answer]), None)
    edited = forward(vlm, one, [edit], keep=Keep(z=("lm",)))
    assert torch.equal(edited.z["lm"][1], plain.z["lm"][1])
    assert not torch.equal(edited.z["lm"][2], plain.z["lm"][2])


@pytest.mark.parametrize("shape", ["plain", "grouped-query"])
def test_float64_equals_sdpa_to_1e_10(shape: str) -> None:
    """Downstream of an edit. Against sdpa: eager keeps a float32 softmax."""
    vlm = tiny_vlm(SHAPES[shape], dtype=torch.float64)
    one = tiny_prompt(vlm).select(0)
    here = [one.spans.answer, 6]
    value = torch.ones(2, vlm.lm.head_dim, dtype=torch.float64)
    edits = [ZEdit(0, Head(0, 1), torch.tensor(here), value)]
    changes = [Change(Head(0, 1), here, value)]
    trace, oracle = forward(vlm, one, edits, keep=Keep(z=("lm",))), Oracle(vlm, "sdpa")
    close(trace.logits.double(), oracle.logits(one.inputs, changes), 1e-6)
    close(trace.z["lm"][-1], oracle.z(one.inputs, changes)["lm"][-1], 1e-10)


@every_shape
def test_left_padding_changes_nothing(shape: str) -> None:
    vlm = tiny_vlm(SHAPES[shape])
    prompt = tiny_prompt(vlm)
    pad, inputs = 4, pad_left(prompt, 4)
    spans = find_spans(inputs["input_ids"][0], vlm.model.config.image_token_id)
    padded = replace(
        prompt, inputs=inputs, spans=spans, image_positions=prompt.image_positions + pad
    )
    head, cut = Head(0, 1), Head(1, 2)
    here, keys = torch.tensor([prompt.spans.answer, 5]), torch.tensor([2, 7])
    value = torch.ones(2, vlm.lm.head_dim)

    def run(which: Prompt, shift: int) -> Trace:
        edits = [ZEdit(0, head, here + shift, value)]
        cuts = [Cut(1, cut, here + shift, keys + shift)]
        return forward(vlm, which, edits, cuts, ALL)

    bare, shifted = run(prompt, 0), run(padded, pad)
    close(shifted.logits, bare.logits, 2e-5)
    assert shifted.lm_rows is not None and bare.lm_rows is not None
    assert not shifted.lm_rows[..., :pad].any()
    close(shifted.lm_rows[..., pad:], bare.lm_rows, 2e-6)
    for ours, theirs in zip(shifted.z["lm"], bare.z["lm"], strict=True):
        close(ours[:, pad:], theirs, 2e-5)


@every_shape
def test_cut_edges_equal_an_eager_mask(shape: str) -> None:
    vlm = tiny_vlm(SHAPES[shape])
    one = tiny_prompt(vlm).select(0)
    answer, image, question = (
        one.spans.answer,
        one.spans.image.tolist(),
        one.spans.question.tolist(),
    )
    rows = [
        [],
        [Edges(Head(0, 1), [answer], image[:6])],
        [Edges(Head(0, 1), [answer, 8], image[4:9])],  # the same head, other keys
        [Edges(Head(1, 0), question, image), Edges(Head(1, 3), [answer], [0])],
        [Edges(Head(0, 2), [answer], [3, 4]), Edges(Head(0, 2), [answer - 1, answer], [4, 8])],
        [Edges(Head(0, 1, "vision"), [0, 3, 9], [1, 2, 5])],
        [Edges(Head(1, 2, "vision"), range(17), [0]), Edges(Head(0, 0), [7], [1, 12])],
    ]
    cuts = [
        Cut(row, edges.head, torch.tensor(list(edges.queries)), torch.tensor(edges.keys))
        for row, members in enumerate(rows)
        for edges in members
    ]
    trace, oracle = forward(vlm, one.repeat(len(rows)), cuts=cuts), Oracle(vlm)
    for row, members in enumerate(rows):
        close(trace.logits[row], oracle.logits(one.inputs, edges=members)[0], 2e-5)
    moved = (trace.logits[1:] - trace.logits[0]).abs().amax(1)
    assert (moved > 1e-4).all()


@every_shape
def test_cutting_every_key_is_zeroing_z(shape: str) -> None:
    vlm = tiny_vlm(SHAPES[shape])
    one = tiny_prompt(vlm).select(0)
    length = one.spans.length
    for head, count in ((Head(1, 1), length), (Head(1, 1, "vision"), 17)):
        queries = torch.tensor([3, count - 1])
        cut = forward(vlm, one, cuts=[Cut(0, head, queries, torch.arange(count))])
        zeroed = forward(vlm, one, [ZEdit(0, head, queries, None)])
        close(cut.logits, zeroed.logits, 1e-6)


def test_cutting_nothing_or_the_future_changes_nothing() -> None:
    vlm = tiny_vlm()
    one = tiny_prompt(vlm).select(0)
    plain = forward(vlm, one)
    none = torch.tensor([], dtype=torch.long)
    for queries, keys in (
        (torch.arange(one.spans.length), none),
        (none, torch.arange(3)),
        (torch.tensor([5]), torch.arange(6, one.spans.length)),
    ):
        cut = forward(vlm, one, cuts=[Cut(0, Head(1, 1), queries, keys)])
        close(cut.logits, plain.logits, 2e-6)


def test_an_edit_comes_after_a_cut_of_the_same_head() -> None:
    vlm = tiny_vlm()
    one = tiny_prompt(vlm).select(0)
    here = torch.tensor([one.spans.answer])
    edit = ZEdit(0, Head(1, 1), here, torch.ones(1, 8))
    cut = Cut(0, Head(1, 1), here, torch.arange(9))
    assert torch.equal(forward(vlm, one, [edit], [cut]).logits, forward(vlm, one, [edit]).logits)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
@pytest.mark.parametrize("place", ["model.language_model.layers.1.mlp.down_proj", "lm_head"])
def test_logits_that_are_not_finite_are_a_failed_run(bad: float, place: str) -> None:
    """One bad weight spoils every logit, or in the unembedding a single one."""
    vlm = tiny_vlm()
    prompt = tiny_prompt(vlm)
    vlm.model.get_submodule(place).weight[0, 0] = bad
    vlm.model(**prompt.inputs)  # transformers hangs hooks of its own on the first pass
    before = state_of(vlm.model)
    with pytest.raises(RunError, match="not finite") as caught:
        forward(vlm, prompt, keep=ALL)
    assert "\n" not in str(caught.value)
    assert caught.value.exit_code == 1
    assert state_of(vlm.model) == before


def test_no_gradients_are_recorded() -> None:
    vlm = tiny_vlm()
    vlm.model.requires_grad_(True)
    assert not forward(vlm, tiny_prompt(vlm)).logits.requires_grad


def test_half_precision_reports_in_float32() -> None:
    vlm = tiny_vlm(dtype=torch.bfloat16)
    trace = forward(vlm, tiny_prompt(vlm), keep=ALL)
    assert trace.logits.dtype == torch.float32
    assert trace.lm_rows is not None
    assert trace.lm_rows.dtype == torch.float32
    assert trace.z["lm"][0].dtype == torch.bfloat16
