"""Interventions on a pair: against plain transformers, and properties that must hold exactly."""

from itertools import product
from typing import get_args

import pytest
import torch
from torch import Tensor

from headpatch.engine.forward import Keep, forward
from headpatch.engine.interventions import Direction, Intervention
from headpatch.engine.patching import WITH, WITHOUT, Baseline, patch, run_pair, z_edits
from headpatch.heads import Head, HeadSet
from headpatch.models.spans import Positions
from headpatch.models.vlm import VLM
from tests.engine.oracle import Oracle, Twin, blend
from tests.tiny import PLAIN, every_shape, tiny_pair

KINDS, DIRECTIONS, SCOPES = PLAIN, get_args(Direction), get_args(Positions)


def pair_of(shape: str) -> tuple[VLM, Baseline]:
    return tiny_pair(shape, "lm", "vision")


def in_each_layer(vlm: VLM) -> list[Head]:
    """A head of each layer of each tower."""
    lm, vision = vlm.lm.grid, vlm.stack("vision").grid
    heads = [Head(layer, layer % lm.heads) for layer in range(lm.layers)]
    return heads + [Head(i, (i + 1) % vision.heads, "vision") for i in range(vision.layers)]


@every_shape
def test_every_kind_direction_and_scope_equals_plain_transformers(shape: str) -> None:
    vlm, base = pair_of(shape)
    means = blend(base.trace.z)
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
    for one, outcome in zip(asked, outcomes, strict=True):
        assert outcome.ld == pytest.approx(twin.ld(one), abs=2e-5), one
    assert max(abs(one.effect) for one in outcomes) > 0.1


@every_shape
def test_joint_sets_across_layers_and_towers(shape: str) -> None:
    vlm, base = pair_of(shape)
    means = blend(base.trace.z)
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
def test_the_untouched_runs_and_first_tokens_equal_plain_transformers(shape: str) -> None:
    vlm, base = pair_of(shape)
    logits = Oracle(vlm).logits(base.prompt.inputs)
    ld = logits[:, base.prompt.answers.yes] - logits[:, base.prompt.answers.no]
    assert base.ld_with == pytest.approx(float(ld[WITH]), abs=2e-5)
    assert base.ld_without == pytest.approx(float(ld[WITHOUT]), abs=2e-5)
    twin = Twin(vlm, base)
    asked = [
        Intervention(HeadSet(tuple(vlm.lm.grid)), "zero", direction, "all")
        for direction in DIRECTIONS
    ]
    for run, outcome in zip((WITH, WITHOUT), patch(vlm, base, asked), strict=True):
        assert outcome.token_before == int(logits[run].argmax())
        assert outcome.token == int(twin.logits(outcome.intervention).argmax())


@every_shape
def test_a_head_patched_with_itself_changes_nothing(shape: str) -> None:
    """The noise floor: the same tensor is put back, so only the batch's shape can differ."""
    vlm, base = pair_of(shape)
    asked = [
        Intervention(HeadSet.of(head), "self", direction, scope)
        for head, direction, scope in product(in_each_layer(vlm), DIRECTIONS, SCOPES)
    ]
    assert max(abs(outcome.effect) for outcome in patch(vlm, base, asked)) < 1e-5


@every_shape
def test_all_heads_of_the_other_run_restore_it(shape: str) -> None:
    """Every head resampled at the answer position gives the other run's LD, exactly.

    The residual there starts at the same token's embedding in both runs, and what is added to it
    are the heads' outputs and the MLPs' of the residual so far; image embeddings, which differ,
    reach it only through heads. Positions that hold the answer position do the same.
    """
    vlm, base = pair_of(shape)
    whole = HeadSet(tuple(vlm.lm.grid))
    for scope in ("answer", "question", "all"):
        noised, denoised = patch(
            vlm, base, [Intervention(whole, "resample", one, scope) for one in DIRECTIONS]
        )
        assert noised.ld == pytest.approx(base.ld_without, abs=2e-5)
        assert denoised.ld == pytest.approx(base.ld_with, abs=2e-5)
    one_less = HeadSet(tuple(vlm.lm.grid)[1:])
    (outcome,) = patch(vlm, base, [Intervention(one_less, "resample", "noising", "answer")])
    assert outcome.ld != pytest.approx(base.ld_without, abs=1e-3)


@every_shape
def test_all_heads_at_the_image_need_the_residual_path_too(shape: str) -> None:
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
    vlm, base = pair_of("deep-vision")
    grid = vlm.stack("vision").grid
    assert vlm.feature_layer == grid.layers - 2
    late = [head for head in grid if head.layer >= vlm.feature_layer]
    asked = [Intervention(HeadSet.of(head), "zero", "noising") for head in late]
    effects = torch.tensor([outcome.effect for outcome in patch(vlm, base, asked)])
    reached, unreached = effects.split(grid.heads)
    assert (reached.abs() > 1e-3).all()
    assert not unreached.any()


def test_the_last_layer_acts_at_the_answer_alone() -> None:
    vlm, base = pair_of("plain")
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
    vlm, base = pair_of("grouped-query")
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
    vlm, other = pair_of("grouped-query")

    def study() -> tuple[list[float], Tensor | None]:
        base = run_pair(vlm, other.prompt, Keep(lm_rows=True, z=("lm", "vision")))
        asked = [
            Intervention(HeadSet.of(head), kind, direction, scope)
            for head, kind, direction, scope in product(
                in_each_layer(vlm), KINDS, DIRECTIONS, ("answer", "all")
            )
        ]
        outcomes = patch(vlm, base, asked, blend(base.trace.z))
        lds = [base.ld_with, base.ld_without, *(outcome.ld for outcome in outcomes)]
        return lds, base.trace.lm_rows

    first, rows = study()
    second, rows_again = study()
    assert first == second
    assert rows is not None and rows_again is not None
    assert torch.equal(rows, rows_again)


def test_a_mean_needs_means_and_nothing_is_nothing() -> None:
    vlm, base = pair_of("plain")
    with pytest.raises(ValueError, match="means"):
        patch(vlm, base, [Intervention(HeadSet.of(Head(0, 0)), "mean", "noising")])
    assert patch(vlm, base, []) == []
