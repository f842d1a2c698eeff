"""Rollout and relevance against whole maps: eager attention, products of matrices, autograd."""

from copy import deepcopy
from functools import lru_cache
from typing import Any

import pytest
import torch
from torch import Tensor

from headpatch.engine.rollout import (
    Flow,
    Step,
    TowerRecords,
    follow,
    record_attention,
    relevance,
    rollout,
    whole_picture,
)
from headpatch.errors import RunError
from headpatch.models.prompt import Prompt
from headpatch.models.vlm import VLM
from tests.engine.test_attention import state_of
from tests.families import builders
from tests.tiny import SHAPES, tiny_prompt, tiny_vlm

NAMES = ["plain", "grouped-query", "wide-heads", "deep-vision", "class-token-kept"]
TOKEN, RIVAL = 17, 30
every_shape = pytest.mark.parametrize("name", NAMES)


def target(logits: Tensor) -> Tensor:
    return logits[:, TOKEN] - logits[:, RIVAL]


@lru_cache
def looked(name: str) -> tuple[VLM, Prompt, TowerRecords]:
    vlm = tiny_vlm(SHAPES[name])
    prompt = tiny_prompt(vlm)
    return vlm, prompt, record_attention(vlm, prompt, target)


@lru_cache
def eager(name: str) -> tuple[list[Tensor], list[Tensor], list[Tensor], list[Tensor]]:
    """Maps and their gradients, of the language model and the read vision layers."""
    vlm, prompt, _ = looked(name)
    model: Any = deepcopy(vlm.model)
    model.set_attn_implementation("eager")
    kept: list[tuple[str, Tensor]] = []

    def keep(tower: str) -> Any:
        def hook(_: Any, __: Any, output: tuple[Tensor, Tensor]) -> None:
            output[1].retain_grad()
            kept.append((tower, output[1]))

        return hook

    for parameter in model.parameters():
        parameter.requires_grad_(True)  # so that every map has a gradient
    vision = model.model.vision_tower.encoder.layers
    for layer in vision[:-1]:
        layer.self_attn.register_forward_hook(keep("vision"))
    for layer in model.model.language_model.layers:
        layer.self_attn.register_forward_hook(keep("lm"))
    target(model(**prompt.inputs, output_attentions=True).logits[:, -1]).sum().backward()
    maps = {tower: [one for name, one in kept if name == tower] for tower in ("lm", "vision")}
    return (
        [one.detach() for one in maps["lm"]],
        [one.grad for one in maps["lm"]],
        [one.detach() for one in maps["vision"]],
        [one.grad for one in maps["vision"]],
    )


def by_hand(name: str, method: str) -> Flow:
    """The product of whole maps, from the first layer to the last as the papers write it."""
    _, prompt, _ = looked(name)
    lm, lm_grad, vision, vision_grad = eager(name)

    def product(maps: list[Tensor], grads: list[Tensor]) -> Tensor:
        n = maps[0].shape[-1]
        whole = torch.eye(n).expand(len(maps[0]), n, n)
        for one, grad in zip(maps, grads, strict=True):
            if method == "rollout":
                step = 0.5 * one.mean(1) + 0.5 * torch.eye(n)
                whole = (step / step.sum(-1, keepdim=True)) @ whole
            else:
                whole = whole + (one * grad).clamp(min=0).mean(1) @ whole
        return whole

    tokens = product(lm, lm_grad)[:, prompt.spans.answer]
    image = tokens[:, prompt.spans.image]
    whole = product(vision, vision_grad)
    first = whole.shape[1] - image.shape[1]
    return Flow(tokens, torch.einsum("rp,rpq->rq", image, whole[:, first:]))


@every_shape
@pytest.mark.parametrize(("method", "step"), [("rollout", rollout), ("relevance", relevance)])
def test_one_row_equals_the_product_of_whole_maps(name: str, method: str, step: Step) -> None:
    _, prompt, seen = looked(name)
    ours, theirs = follow(seen, prompt, step), by_hand(name, method)
    torch.testing.assert_close(ours.tokens, theirs.tokens, atol=1e-5, rtol=1e-4)
    assert ours.patches is not None
    assert theirs.patches is not None
    torch.testing.assert_close(ours.patches, theirs.patches, atol=1e-5, rtol=1e-4)


@every_shape
def test_maps_are_those_of_eager_attention(name: str) -> None:
    _, _, seen = looked(name)
    lm, _, vision, _ = eager(name)
    for records, maps in ((seen.lm, lm), (seen.vision, vision)):
        for record, whole in zip(records, maps, strict=True):
            everything = torch.ones(len(whole), record.tokens)
            rows = torch.cat([rows for _, rows in record.blocks(everything)], 2)
            torch.testing.assert_close(rows, whole, atol=2e-6, rtol=1e-5)
    assert len(seen.vision) == SHAPES[name].vision_layers - 1  # the last is not read


@every_shape
def test_rollout_loses_nothing(name: str) -> None:
    """Rows that sum to 1 keep the sum; what the image tokens have arrives at the vision tower."""
    _, prompt, seen = looked(name)
    flow = follow(seen, prompt, rollout)
    torch.testing.assert_close(flow.tokens.sum(1), torch.ones(2))
    assert flow.patches is not None
    image = flow.tokens[:, prompt.spans.image].sum(1)
    torch.testing.assert_close(flow.patches.sum(1), image)
    assert (flow.tokens >= 0).all() and (flow.patches >= 0).all()


def test_relevance_of_what_nothing_depends_on_stays_at_the_answer() -> None:
    vlm, prompt, _ = looked("plain")
    seen = record_attention(vlm, prompt, lambda logits: 0 * logits[:, 0])
    flow = follow(seen, prompt, relevance)
    expected = torch.zeros_like(flow.tokens)
    expected[:, prompt.spans.answer] = 1
    assert torch.equal(flow.tokens, expected)
    assert flow.patches is not None
    assert not flow.patches.any()


def test_the_model_is_left_as_found() -> None:
    vlm, prompt, _ = looked("plain")
    before = state_of(vlm.model)
    record_attention(vlm, prompt, target)
    assert state_of(vlm.model) == before
    with pytest.raises(ZeroDivisionError):
        record_attention(vlm, prompt, lambda _: torch.tensor(1 // 0))
    assert state_of(vlm.model) == before
    assert all(one.grad is None for one in vlm.model.parameters())


@pytest.mark.parametrize("name", [name for name in builders.BUILDERS if name != "mllama"])
def test_every_family_rolls_out_to_its_image_tokens(name: str) -> None:
    vlm = builders.build(name)
    prompt = builders.prompt_of(vlm)
    seen = record_attention(vlm, prompt, lambda logits: logits[:, 5])
    for step in (rollout, relevance):
        flow = follow(seen, prompt, step)
        assert (flow.patches is not None) == whole_picture(vlm)
        assert torch.isfinite(flow.tokens).all()
    torch.testing.assert_close(follow(seen, prompt, rollout).tokens.sum(1), torch.ones(2))


def test_whose_vision_tower_is_followed() -> None:
    whole = {name for name in builders.BUILDERS if whole_picture(builders.build(name))}
    assert whole == {"llava", "llava (siglip)", "paligemma", "paligemma (2)"}


def test_cross_attention_is_refused() -> None:
    vlm = builders.build("mllama")
    with pytest.raises(RunError, match="cannot be followed back"):
        record_attention(vlm, builders.prompt_of(vlm), lambda logits: logits[:, 5])
