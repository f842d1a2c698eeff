"""Interventions on a pair: against plain transformers, and properties that must hold exactly."""

from functools import lru_cache
from itertools import product
from typing import get_args

import pytest
import torch
from torch import Tensor

from headpatch.engine.forward import Keep, forward
from headpatch.engine.interventions import Direction, Intervention
from headpatch.engine.patching import WITH, WITHOUT, Baseline, ZMeans, patch, run_pair, z_edits
from headpatch.heads import Head, HeadSet
from headpatch.models.spans import Positions
from headpatch.models.vlm import VLM
from tests.engine.oracle import Change, Oracle
from tests.tiny import PLAIN, SHAPES, Shape, tiny_prompt, tiny_vlm

KINDS, DIRECTIONS, SCOPES = PLAIN, get_args(Direction), get_args(Positions)
every_shape = pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)


@lru_cache
def pair_of(shape: Shape) -> tuple[VLM, Baseline]:
    vlm = tiny_vlm(shape)
    return vlm, run_pair(vlm, tiny_prompt(vlm), Keep(z=("lm", "vision")))


def means_of(base: Baseline) -> ZMeans:
    """Any tensors of the right shape will do: here a blend of the runs that is neither of them."""
    return {
        tower: [0.3 * z[WITH] + 0.7 * z[WITHOUT] + 0.1 for z in layers]
        for tower, layers in base.trace.z.items()
    }


def in_each_layer(vlm: VLM) -> list[Head]:
    """A head of each layer of each tower."""
    assert vlm.vision is not None
    lm = [Head(layer, layer % vlm.lm.grid.heads) for layer in range(vlm.lm.grid.layers)]
    return lm + [
        Head(layer, (layer + 1) % vlm.vision.grid.heads, "vision")
        for layer in range(vlm.vision.grid.layers)
    ]


def places(head: Head, scope: str, base: Baseline) -> list[int]:
    """The positions of a scope, from the token ids; a vision head is changed everywhere."""
    ids, image = base.prompt.input_ids, base.prompt.spans.image
    if head.tower == "vision":
        return list(range(17))
    return {
        "answer": [len(ids) - 1],
        "image": image.tolist(),
        "question": list(range(int(image[-1]) + 1, len(ids))),
        "all": list(range(len(ids))),
    }[scope]


class Twin:
    """The same intervention through plain transformers."""

    def __init__(self, vlm: VLM, base: Baseline, means: ZMeans) -> None:
        self.oracle, self.base, self.means = Oracle(vlm), base, means
        self.z = self.oracle.z(base.prompt.inputs)

    def logits(self, one: Intervention) -> Tensor:
        run = WITH if one.direction == "noising" else WITHOUT
        changes = []
        for head in one.heads:
            here = places(head, one.positions, self.base)
            runs = self.z[head.tower][head.layer]
            source = {"self": runs[run], "resample": runs[1 - run], "zero": 0 * runs[run]}.get(
                one.kind
            )
            if source is None:
                source = self.means[head.tower][head.layer]
            changes.append(Change(head, here, source[here, head.head]))
        return self.oracle.logits(self.base.prompt.select(run).inputs, changes)[0]

    def ld(self, one: Intervention) -> float:
        logits, answers = self.logits(one), self.base.prompt.answers
        return float(logits[answers.yes] - logits[answers.no])


@every_shape
def test_every_kind_direction_and_scope_equals_plain_transformers(shape: Shape) -> None:
    vlm, base = pair_of(shape)
    means = means_of(base)
    twin = Twin(vlm, base, means)
    asked = [
        Intervention(HeadSet.of(head), kind, direction, scope)
        for head, (kind, direction, scope) in product(
            in_each_layer(vlm), product(KINDS, DIRECTIONS, SCOPES)
        )
        if head.tower == "lm" or scope == "all"
    ]
    outcomes = patch(vlm, base, asked, means)
    assert [outcome.intervention for outcome in outcomes] == asked
    for outcome in outcomes:
        expected = twin.ld(outcome.intervention)
        assert outcome.ld == pytest.approx(expected, abs=2e-5), outcome.intervention
    largest = max(abs(one.effect) for one in outcomes)
    assert largest > 0.1


@every_shape
def test_joint_sets_across_layers_and_towers(shape: Shape) -> None:
    vlm, base = pair_of(shape)
    means = means_of(base)
    twin = Twin(vlm, base, means)
    sets = [
        HeadSet.parse("0.0+0.1"),
        HeadSet.parse("0.2+1.3+1.1"),
        HeadSet.parse("v0.0+v1.1"),
        HeadSet.parse("v1.0+0.3+1.0"),
        HeadSet(tuple(vlm.lm.grid)),
    ]
    asked = [
        Intervention(heads, kind, direction, scope)
        for heads, kind, direction, scope in product(sets, KINDS, DIRECTIONS, ("answer", "all"))
    ]
    for outcome in patch(vlm, base, asked, means):
        assert outcome.ld == pytest.approx(twin.ld(outcome.intervention), abs=2e-5)


@every_shape
def test_the_untouched_runs_and_first_tokens_equal_plain_transformers(shape: Shape) -> None:
    vlm, base = pair_of(shape)
    logits = Oracle(vlm).logits(base.prompt.inputs)
    ld = logits[:, base.prompt.answers.yes] - logits[:, base.prompt.answers.no]
    assert base.ld_with == pytest.approx(float(ld[WITH]), abs=2e-5)
    assert base.ld_without == pytest.approx(float(ld[WITHOUT]), abs=2e-5)
    twin = Twin(vlm, base, {})
    asked = [
        Intervention(HeadSet(tuple(vlm.lm.grid)), "zero", direction, "all")
        for direction in DIRECTIONS
    ]
    for run, outcome in zip((WITH, WITHOUT), patch(vlm, base, asked), strict=True):
        assert outcome.token_before == int(logits[run].argmax())
        assert outcome.token == int(twin.logits(outcome.intervention).argmax())


@every_shape
def test_a_head_patched_with_itself_changes_nothing(shape: Shape) -> None:
    """The noise floor: the same tensor is put back, so only the batch's shape can differ."""
    vlm, base = pair_of(shape)
    asked = [
        Intervention(HeadSet.of(head), "self", direction, scope)
        for head, direction, scope in product(in_each_layer(vlm), DIRECTIONS, SCOPES)
    ]
    assert max(abs(outcome.effect) for outcome in patch(vlm, base, asked)) < 1e-5


@every_shape
def test_all_heads_of_the_other_run_restore_it(shape: Shape) -> None:
    """Every head resampled at the answer position gives the other run's LD, exactly.

    The residual there starts at the same token's embedding in both runs, and what is added to it
    are the heads' outputs and the MLPs' of the residual so far; image embeddings, which differ,
    reach it only through heads. Positions that hold the answer position do the same.
    """
    vlm, base = pair_of(shape)
    whole = HeadSet(tuple(vlm.lm.grid))
    scopes = ("answer", "question", "all")
    for scope in scopes:
        noised, denoised = patch(
            vlm, base, [Intervention(whole, "resample", one, scope) for one in DIRECTIONS]
        )
        assert noised.ld == pytest.approx(base.ld_without, abs=2e-5)
        assert denoised.ld == pytest.approx(base.ld_with, abs=2e-5)
    one_less = HeadSet(tuple(vlm.lm.grid)[1:])
    (outcome,) = patch(vlm, base, [Intervention(one_less, "resample", "noising", "answer")])
    assert outcome.ld != pytest.approx(base.ld_without, abs=1e-3)


@every_shape
def test_all_heads_at_the_image_need_the_residual_path_too(shape: Shape) -> None:
    """Resampled at every image position, the other run comes back only with its embeddings.

    The residual at an image position starts at the projected patch, which no head's z holds: with
    the other run's projected patches put in as well, the other run is restored.
    """
    vlm, base = pair_of(shape)
    one = base.prompt.select(WITH)
    expected = base.trace.logits[WITHOUT]
    whole = Intervention(HeadSet(tuple(vlm.lm.grid)), "resample", "noising", "image")
    edits = list(z_edits(vlm, 0, whole, base, None))
    heads_alone = forward(vlm, one, edits).logits[0]
    assert (heads_alone - expected).abs().max() > 1e-3

    projector = vlm.model.model.multi_modal_projector
    seen: list[Tensor] = []
    handle = projector.register_forward_hook(lambda _, __, features: seen.append(features))
    forward(vlm, base.prompt)
    handle.remove()
    handle = projector.register_forward_hook(lambda _, __, features: seen[0][WITHOUT, None])
    try:
        both = forward(vlm, one, edits).logits[0]
    finally:
        handle.remove()
    torch.testing.assert_close(both, expected, atol=2e-5, rtol=0)


def test_the_last_vision_layer_never_reaches_the_answer() -> None:
    """``vision_feature_layer=-2``: an exact zero by construction."""
    vlm, base = pair_of(SHAPES["deep-vision"])
    assert vlm.vision is not None
    assert vlm.feature_layer == vlm.vision.grid.layers - 2
    asked = [
        Intervention(HeadSet.of(Head(layer, head, "vision")), "zero", "noising")
        for layer in (vlm.feature_layer, vlm.feature_layer + 1)
        for head in range(vlm.vision.grid.heads)
    ]
    effects = torch.tensor([outcome.effect for outcome in patch(vlm, base, asked)])
    reached, unreached = effects.split(vlm.vision.grid.heads)
    assert (reached.abs() > 1e-3).all()
    assert not unreached.any()


def test_the_last_layer_acts_at_the_answer_alone() -> None:
    vlm, base = pair_of(SHAPES["plain"])
    last = HeadSet.of(Head(vlm.lm.grid.layers - 1, 2))
    answer, question, image, everywhere = (
        outcome.effect
        for outcome in patch(
            vlm, base, [Intervention(last, "resample", "noising", scope) for scope in SCOPES]
        )
    )
    assert abs(answer) > 1e-3
    assert image == 0
    assert question == pytest.approx(answer, abs=1e-5)
    assert everywhere == pytest.approx(answer, abs=1e-5)


@pytest.mark.parametrize("batch", [1, 2, 3, 100])
def test_the_batch_size_does_not_matter(batch: int) -> None:
    vlm, base = pair_of(SHAPES["grouped-query"])
    asked = [
        Intervention(HeadSet.of(head), "resample", direction)
        for head, direction in product(vlm.lm.grid, DIRECTIONS)  # directions alternate
    ]
    calls: list[tuple[int, int]] = []
    outcomes = patch(
        vlm, base, asked, batch=batch, on_progress=lambda done, total: calls.append((done, total))
    )
    assert [outcome.intervention for outcome in outcomes] == asked
    for ours, theirs in zip(outcomes, patch(vlm, base, asked), strict=True):
        assert ours.effect == pytest.approx(theirs.effect, abs=1e-5)
        base_ld = base.ld_with if ours.intervention.direction == "noising" else base.ld_without
        assert ours.ld == base_ld + ours.effect
    assert calls == sorted(calls)
    assert calls[-1] == (len(asked), len(asked))


def test_two_studies_on_one_model_give_identical_numbers() -> None:
    vlm = tiny_vlm(SHAPES["grouped-query"])
    prompt = tiny_prompt(vlm)

    def study() -> tuple[list[float], Tensor | None]:
        base = run_pair(vlm, prompt, Keep(lm_rows=True, z=("lm", "vision")))
        asked = [
            Intervention(HeadSet.of(head), kind, direction, scope)
            for head, kind, direction, scope in product(
                in_each_layer(vlm), KINDS, DIRECTIONS, ("answer", "all")
            )
        ]
        outcomes = patch(vlm, base, asked, means_of(base))
        lds = [base.ld_with, base.ld_without, *(outcome.ld for outcome in outcomes)]
        return lds, base.trace.lm_rows

    first, rows = study()
    second, rows_again = study()
    assert first == second
    assert rows is not None
    assert rows_again is not None
    assert torch.equal(rows, rows_again)


def test_a_mean_needs_means() -> None:
    vlm, base = pair_of(SHAPES["plain"])
    with pytest.raises(ValueError, match="means"):
        patch(vlm, base, [Intervention(HeadSet.of(Head(0, 0)), "mean", "noising")])


def test_no_interventions_no_outcomes() -> None:
    vlm, base = pair_of(SHAPES["plain"])
    assert patch(vlm, base, []) == []
