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
from tests.families import builders
from tests.tiny import SHAPES, tiny_prompt, tiny_vlm

TOKEN, RIVAL = 17, 30
NAMES = ["plain", "grouped-query", "wide-heads", "deep-vision", "class-token-kept"]
several_shapes = pytest.mark.parametrize("name", NAMES)


def target(logits: Tensor) -> Tensor:
    return logits[:, TOKEN] - logits[:, RIVAL]


@lru_cache
def looked(name: str) -> tuple[VLM, Prompt, TowerRecords]:
    vlm = tiny_vlm(SHAPES[name])
    prompt = tiny_prompt(vlm)
    return vlm, prompt, record_attention(vlm, prompt, target)


@lru_cache
def eager(name: str) -> dict[str, list[Tensor]]:
    """Maps with their gradients, of the language model and the read vision layers."""
    vlm, prompt, _ = looked(name)
    model: Any = deepcopy(vlm.model)
    model.set_attn_implementation("eager")
    kept: dict[str, list[Tensor]] = {"lm": [], "vision": []}

    def keep(tower: str) -> Any:
        def hook(_: Any, __: Any, output: tuple[Tensor, Tensor]) -> None:
            output[1].retain_grad()
            kept[tower].append(output[1])

        return hook

    for parameter in model.parameters():
        parameter.requires_grad_(True)  # so that every map has a gradient
    vision = model.model.vision_tower.encoder.layers
    for layer in vision[:-1]:
        layer.self_attn.register_forward_hook(keep("vision"))
    for layer in model.model.language_model.layers:
        layer.self_attn.register_forward_hook(keep("lm"))
    target(model(**prompt.inputs, output_attentions=True).logits[:, -1]).sum().backward()
    return kept


def by_hand(name: str, method: str) -> Flow:
    """The product of whole maps, from the first layer to the last as the papers write it."""
    _, prompt, _ = looked(name)

    def product(maps: list[Tensor]) -> Tensor:
        n = maps[0].shape[-1]
        whole = torch.eye(n).expand(len(maps[0]), n, n)
        for one, grad in ((each.detach(), each.grad) for each in maps):
            if method == "rollout":
                step = 0.5 * one.mean(1) + 0.5 * torch.eye(n)
                whole = (step / step.sum(-1, keepdim=True)) @ whole
            else:
                whole = whole + (one * grad).clamp(min=0).mean(1) @ whole
        return whole

    tokens = product(eager(name)["lm"])[:, prompt.spans.answer]
    image = tokens[:, prompt.spans.image]
    whole = product(eager(name)["vision"])
    first = whole.shape[1] - image.shape[1]
    return Flow(tokens, torch.einsum("rp,rpq->rq", image, whole[:, first:]))


@several_shapes
@pytest.mark.parametrize(("method", "step"), [("rollout", rollout), ("relevance", relevance)])
def test_one_row_equals_the_product_of_whole_maps(name: str, method: str, step: Step) -> None:
    _, prompt, seen = looked(name)
    ours, theirs = follow(seen, prompt, step), by_hand(name, method)
    torch.testing.assert_close(ours.tokens, theirs.tokens, atol=1e-5, rtol=1e-4)
    assert ours.patches is not None
    assert theirs.patches is not None
    torch.testing.assert_close(ours.patches, theirs.patches, atol=1e-5, rtol=1e-4)


@several_shapes
def test_maps_are_those_of_eager_attention(name: str) -> None:
    _, _, seen = looked(name)
    for records, maps in ((seen.lm, eager(name)["lm"]), (seen.vision, eager(name)["vision"])):
        for record, whole in zip(records, maps, strict=True):
            everything = torch.ones(len(whole), record.tokens)
            rows = torch.cat([rows for _, rows in record.blocks(everything)], 2)
            torch.testing.assert_close(rows, whole, atol=2e-6, rtol=1e-5)
    assert len(seen.vision) == SHAPES[name].vision_layers - 1  # the last is not read


@several_shapes
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


@pytest.mark.parametrize("name", [name for name in builders.BUILDERS if name != "mllama"])
def test_every_family_rolls_out_to_its_image_tokens(name: str) -> None:
    vlm, prompt = builders.built(name)
    seen = record_attention(vlm, prompt, lambda logits: logits[:, 5])
    for step in (rollout, relevance):
        flow = follow(seen, prompt, step)
        assert (flow.patches is not None) == whole_picture(vlm)
        assert torch.isfinite(flow.tokens).all()
    torch.testing.assert_close(follow(seen, prompt, rollout).tokens.sum(1), torch.ones(2))


def test_whose_vision_tower_is_followed() -> None:
    whole = {name for name in builders.BUILDERS if whole_picture(builders.built(name)[0])}
    assert whole == {"llava", "llava (siglip)", "paligemma", "paligemma (2)"}


def test_cross_attention_is_refused() -> None:
    with pytest.raises(RunError, match="cannot be followed back"):
        record_attention(*builders.built("mllama"), lambda logits: logits[:, 5])
