"""The attention function: rows and z by the definition, and a model left as it was found."""

from itertools import product
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.integrations.sdpa_attention import sdpa_attention_forward

from headpatch.engine.attention import (
    NAME,
    attention,
    attention_rows,
    is_causal,
    plain_attention,
    tapped,
    weigh,
)
from headpatch.models.vlm import parts
from tests.tiny import SHAPES, every_shape, pad_left, tiny_model, tiny_prompt, tiny_vlm

BATCH, HEADS, KV_HEADS, LENGTH, DIM = 2, 4, 2, 7, 5


class Module(nn.Module):
    """What sdpa needs to know of the module it serves."""

    num_key_value_groups = HEADS // KV_HEADS

    def __init__(self, causal: bool) -> None:
        super().__init__()
        self.is_causal = causal


def tensors(length: int = LENGTH) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)

    def draw(heads: int, count: int) -> Tensor:
        return torch.randn(BATCH, heads, count, DIM, generator=generator)

    return draw(HEADS, length), draw(KV_HEADS, LENGTH), draw(KV_HEADS, LENGTH)


def by_definition(query: Tensor, key: Tensor, seen: Tensor, scaling: float) -> Tensor:
    """One softmax at a time; seen: ``[batch, queries, keys]``."""
    rows = torch.zeros(BATCH, HEADS, query.shape[2], key.shape[2])
    for b in range(BATCH):
        for h in range(HEADS):
            for q in range(query.shape[2]):
                keys = seen[b, q].nonzero().flatten()
                scores = key[b, h // (HEADS // KV_HEADS), keys] @ query[b, h, q] * scaling
                rows[b, h, q, keys] = scores.softmax(-1)
    return rows


def causal(length: int = LENGTH) -> Tensor:
    return torch.ones(length, LENGTH, dtype=torch.bool).tril(LENGTH - length).expand(BATCH, -1, -1)


@pytest.mark.parametrize("form", ["none", "boolean", "additive"])
@pytest.mark.parametrize("scaling", [None, 0.3])
def test_rows_are_the_softmax_of_the_scores(form: str, scaling: float | None) -> None:
    query, key, _ = tensors()
    seen = causal()
    if form != "none":
        seen = seen & (torch.arange(LENGTH) != 1)  # a padded key
        seen = seen | torch.eye(LENGTH, dtype=torch.bool)
    mask = {
        "none": None,
        "boolean": seen[:, None],
        "additive": torch.zeros(BATCH, 1, LENGTH, LENGTH).masked_fill(
            ~seen[:, None], torch.finfo(torch.float32).min
        ),
    }[form]
    chosen = torch.tensor([6, 0, 3])
    rows = attention_rows(Module(True), query, key, mask, chosen, scaling=scaling)
    expected = by_definition(query, key, seen, scaling or DIM**-0.5)[:, :, chosen]
    torch.testing.assert_close(rows, expected, atol=1e-6, rtol=0)


def test_rows_with_soft_capped_scores() -> None:
    query, key, _ = tensors()
    rows = attention_rows(Module(False), query, key, None, torch.tensor([2]), softcap=0.5)
    scores = torch.einsum("bhd,bhkd->bhk", query[:, :, 2], key.repeat_interleave(2, 1)) * DIM**-0.5
    expected = (torch.tanh(scores / 0.5) * 0.5).softmax(-1)
    torch.testing.assert_close(rows[:, :, 0], expected, atol=1e-6, rtol=0)


def test_rows_of_a_cached_pass_see_all_earlier_keys() -> None:
    query, key, _ = tensors(length=3)
    rows = attention_rows(Module(True), query, key, None, torch.arange(3))
    expected = by_definition(query, key, causal(3), DIM**-0.5)
    torch.testing.assert_close(rows, expected, atol=1e-6, rtol=0)


@pytest.mark.parametrize("is_causal", [True, False])
def test_weighed_values_are_the_z_of_plain_attention(is_causal: bool) -> None:
    query, key, value = tensors()
    module = Module(is_causal)
    rows = attention_rows(module, query, key, None, torch.arange(LENGTH))
    plain = plain_attention(module, query, key, value, None)
    torch.testing.assert_close(weigh(rows, value), plain, atol=1e-6, rtol=0)


BIAS = torch.randn(1, HEADS, LENGTH, LENGTH, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize(
    ("grouped", "options"),
    [
        *product((True, False), ({}, {"scaling": 0.3}, {"is_causal": False, "dropout": 0.0})),
        (False, {"position_bias": BIAS}),  # what changes attention is left to transformers
    ],
    ids=str,
)
@pytest.mark.parametrize("is_causal", [True, False])
def test_plain_attention_is_transformers_own_bit_for_bit(
    grouped: bool, is_causal: bool, options: dict[str, Any]
) -> None:
    query, key, value = tensors()
    module = Module(is_causal)
    if not grouped:
        module.num_key_value_groups = 1
        key, value = key.repeat_interleave(2, 1), value.repeat_interleave(2, 1)
    plain = plain_attention(module, query, key, value, None, **options)
    theirs, _ = sdpa_attention_forward(module, query, key, value, None, **options)
    assert torch.equal(plain, theirs) and plain.is_contiguous()


def test_removed_edges_renormalise_the_rest() -> None:
    query, key, _ = tensors()
    allowed = torch.ones(BATCH, HEADS, 1, LENGTH, dtype=torch.bool)
    allowed[0, 1, 0, 2:5] = False
    args = Module(True), query, key, None, torch.tensor([6])
    full, cut = attention_rows(*args), attention_rows(*args, allowed)
    kept = full[0, 1, 0] * allowed[0, 1, 0]
    torch.testing.assert_close(cut[0, 1, 0], kept / kept.sum(), atol=1e-6, rtol=0)
    others = torch.ones(BATCH, HEADS, dtype=torch.bool)
    others[0, 1] = False
    assert torch.equal(cut[others], full[others])


def test_a_row_without_keys_is_zero_and_so_is_its_z() -> None:
    query, key, value = tensors()
    allowed = torch.zeros(BATCH, HEADS, 2, LENGTH, dtype=torch.bool)
    rows = attention_rows(Module(True), query, key, None, torch.tensor([0, 4]), allowed)
    assert torch.equal(rows, torch.zeros_like(rows))
    assert torch.equal(weigh(rows, value), torch.zeros(BATCH, 2, HEADS, DIM))


def test_a_single_query_is_never_causal() -> None:
    """With one query and a cache, sdpa sees every key; so must the rows."""
    assert not is_causal(Module(True), 1, {})
    assert is_causal(Module(True), 2, {})
    assert not is_causal(Module(True), 2, {"is_causal": False})


def state_of(model: PreTrainedModel) -> dict[str, object]:
    """All that a pass could leave behind: choices of attention, hooks, attributes, weights."""
    configs = {"": model.config}
    configs |= {name: getattr(model.config, name) for name in model.config.sub_configs}
    state: dict[str, object] = {
        f"attention {name}": config._attn_implementation for name, config in configs.items()
    }
    for name, module in model.named_modules():
        if isinstance(module, PreTrainedModel):
            state[f"attention of {name}"] = module.config._attn_implementation
        hooks = (module._forward_hooks, module._forward_pre_hooks, module._backward_hooks)
        state[f"hooks {name}"] = tuple(tuple(kind.items()) for kind in hooks)
        state[f"attributes {name}"] = tuple(sorted(vars(module)))
        state[f"training {name}"] = module.training
    for name, weight in model.named_parameters():
        state[f"weight {name}"] = (weight.data_ptr(), weight._version, weight.requires_grad)
    return state


@pytest.mark.parametrize(
    "choices", ["sdpa", "eager", {"text_config": "eager", "vision_config": "sdpa"}], ids=str
)
@pytest.mark.parametrize("fails", [False, True], ids=["succeeds", "raises"])
def test_the_model_is_left_as_found(choices: str | dict[str, str], fails: bool) -> None:
    model = tiny_model()
    model.set_attn_implementation(choices)
    prompt = tiny_prompt(tiny_vlm())
    model(**prompt.inputs)  # transformers hangs hooks of its own on the first pass
    before = state_of(model)

    def tap(*_: object, **__: object) -> Tensor:
        raise RuntimeError("a failing tap")

    attention = model.model.language_model.layers[1].self_attn
    if fails:
        taps = {attention: tap}
        with pytest.raises(RuntimeError, match="a failing tap"), tapped(parts(model), taps):
            model(**prompt.inputs)
    else:
        with tapped(parts(model), {}):
            assert attention.config._attn_implementation == NAME
            model(**prompt.inputs)
    assert state_of(model) == before


def test_passes_may_nest_on_two_models() -> None:
    models = tiny_model(), tiny_model(seed=1)
    before = [state_of(one) for one in models]
    with tapped(parts(models[0]), {}), tapped(parts(models[1]), {}):
        pass
    assert [state_of(one) for one in models] == before


@every_shape
@torch.no_grad()
def test_without_taps_it_is_sdpa_also_with_padding(shape: str) -> None:
    vlm = tiny_vlm(SHAPES[shape])
    inputs = pad_left(tiny_prompt(vlm), 5)
    inputs["attention_mask"][1, 5:8] = 0  # and a row of its own padding
    plain = vlm.model(**inputs).logits
    with tapped(vlm.parts, {}):
        ours = vlm.model(**inputs).logits
    assert torch.equal(ours[:, -1], plain[:, -1])


@pytest.mark.parametrize("masked", [None, "seen", "added"])
def test_a_bias_of_scores_is_a_part_of_the_mask(masked: str | None) -> None:
    """Inkling's: z and rows are those of biased scores, causal or as the mask says."""
    query, key, value = tensors()
    bias = torch.randn(BATCH, HEADS, LENGTH, LENGTH, generator=torch.Generator().manual_seed(1))
    seen = causal()[:, None]
    added = torch.zeros(seen.shape).masked_fill(~seen, torch.finfo(torch.float32).min)
    mask = {None: None, "seen": seen, "added": added}[masked]
    module, rows = Module(causal=True), list[Tensor]()

    def tap(one: nn.Module, *given: Any, **options: Any) -> Tensor:
        q, k, v, own = given
        rows.append(attention_rows(one, q, k, own, torch.arange(LENGTH), **options))
        return plain_attention(one, q, k, v, own, **options)

    with tapped([], {module: tap}):
        z, _ = attention(module, query, key, value, mask, position_bias=bias)
    scores = query @ key.repeat_interleave(2, 1).transpose(2, 3) * DIM**-0.5 + bias
    expected = scores.masked_fill(~seen, -torch.inf).softmax(-1)
    torch.testing.assert_close(rows[0], expected)
    torch.testing.assert_close(z, (expected @ value.repeat_interleave(2, 1)).transpose(1, 2))
