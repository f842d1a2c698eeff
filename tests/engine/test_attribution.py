"""Attribution patching: against finite differences of plain transformers, and exact properties."""

import gc
from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache
from itertools import product
from typing import get_args

import numpy as np
import pytest
import torch
from accelerate import cpu_offload
from torch import Tensor
from transformers.models.llama.modeling_llama import LlamaRMSNorm

from headpatch.engine.attribution import Gradients, attribute, gradients, refused
from headpatch.engine.forward import forward
from headpatch.engine.interventions import Direction, ZEdit
from headpatch.engine.patching import WITH, WITHOUT, Baseline
from headpatch.errors import RunError
from headpatch.heads import Head, Tower
from headpatch.models.spans import Positions
from headpatch.models.vlm import VLM
from headpatch.stats.agreement import agreement
from tests.engine.oracle import Change, Oracle, blend
from tests.engine.test_attention import state_of
from tests.tiny import PLAIN, SHAPES, every_shape, tiny_model, tiny_pair, tiny_prompt, tiny_vlm

KINDS, DIRECTIONS, TOWERS = PLAIN, get_args(Direction), get_args(Tower)
SCOPES = get_args(Positions)


@lru_cache
def pair_of(shape: str) -> tuple[VLM, Baseline, Gradients]:
    vlm, base = tiny_pair(shape, *TOWERS)
    return vlm, base, gradients(vlm, base.prompt)


class DoubleNorm(LlamaRMSNorm):
    """transformers' own rounds to float32 whatever the model's dtype."""

    def forward(self, x: Tensor) -> Tensor:
        return self.weight * x * torch.rsqrt((x * x).mean(-1, True) + self.variance_epsilon)


class Exact:
    """LD through plain sdpa transformers in float64, z changed by hooks."""

    def __init__(self, name: str) -> None:
        self.vlm = tiny_vlm(SHAPES[name], dtype=torch.float64)
        for module in self.vlm.model.modules():
            if isinstance(module, LlamaRMSNorm):
                module.__class__ = DoubleNorm
        self.prompt = tiny_prompt(self.vlm)
        self.pair = gradients(self.vlm, self.prompt)
        self.oracle = Oracle(self.vlm, "sdpa")

    def ld(self, run: int, changes: Sequence[Change]) -> float:
        inputs = self.prompt.select(run).inputs
        inputs = {**inputs, "pixel_values": inputs["pixel_values"].double()}
        logits, answers = self.oracle.logits(inputs, changes)[0], self.prompt.answers
        return float(logits[answers.yes] - logits[answers.no])

    def along(self, run: int, tower: Tower, layer: int, way: Tensor, step: float) -> float:
        """The central difference quotient of LD along a direction of one layer's z."""
        z = self.pair.z[tower][layer][run]

        def end(moved: Tensor) -> float:
            heads = [Head(layer, head, tower) for head in range(z.shape[1])]
            changes = [Change(head, range(len(z)), moved[:, head.head]) for head in heads]
            return self.ld(run, changes)

        return (end(z + step * way) - end(z - step * way)) / (2 * step)


@lru_cache
def exact(name: str) -> Exact:
    return Exact(name)


@every_shape
def test_the_pass_itself_is_unchanged(shape: str) -> None:
    _, base, pair = pair_of(shape)
    assert pair.ld.tolist() == pytest.approx([base.ld_with, base.ld_without], abs=1e-6)
    for tower in TOWERS:
        for ours, theirs in zip(pair.z[tower], base.trace.z[tower], strict=True):
            torch.testing.assert_close(ours, theirs, atol=1e-6, rtol=0)


@every_shape
def test_the_slope_is_the_finite_difference_along_a_random_direction(shape: str) -> None:
    """Float64, central differences: their error is of order step² (1e-10) plus 1e-16 / step."""
    one = exact(shape)
    generator = torch.Generator().manual_seed(0)
    seen = 0.0
    for tower, run in product(TOWERS, (WITH, WITHOUT)):
        for layer, z in enumerate(one.pair.z[tower]):
            way = torch.randn(z[run].shape, generator=generator, dtype=z.dtype)
            expected = one.along(run, tower, layer, way, 1e-5)
            slope = float((one.pair.slope[tower][layer][run] * way).sum())
            assert slope == pytest.approx(expected, rel=1e-4, abs=1e-9), (tower, run, layer)
            seen = max(seen, abs(slope))
    assert seen > 0.1


@pytest.mark.parametrize("name", ["plain", "grouped-query", "wide-heads", "class-token-kept"])
@pytest.mark.parametrize("tower", TOWERS)
def test_a_small_part_of_a_change_does_that_part_of_the_estimate(name: str, tower: Tower) -> None:
    """(LD(z + ε (z' - z)) - LD(z)) / ε tends to the estimate, head by head and scope by scope."""
    one, step = exact(name), 1e-5
    means = blend(one.pair.z)
    tokens = one.pair.z[tower][0].shape[1]
    scopes = [list(range(tokens)), [tokens - 1], [0, 3]]
    for kind, direction in product(KINDS, DIRECTIONS):
        run = WITH if direction == "noising" else WITHOUT
        estimate = attribute(one.pair, kind, direction, means)[tower]
        assert estimate.shape[0] == len(one.pair.z[tower])
        before = one.ld(run, [])
        for layer, z in enumerate(one.pair.z[tower]):
            head = (layer + 1) % z.shape[2]
            source = {
                "zero": torch.zeros_like(z[0]),
                "mean": means[tower][layer],
                "resample": z[1 - run],
                "self": z[run],
            }[kind]
            part = (z[run] + step * (source - z[run]))[:, head]
            for scope in scopes:
                after = one.ld(run, [Change(Head(layer, head, tower), scope, part[scope])])
                expected = float(estimate[layer, head, scope].sum())
                assert (after - before) / step == pytest.approx(expected, rel=1e-3, abs=1e-5)


@every_shape
def test_what_holds_exactly(shape: str) -> None:
    vlm, _, pair = pair_of(shape)
    assert vlm.vision is not None and vlm.feature_layer is not None
    for direction in DIRECTIONS:
        run = WITH if direction == "noising" else WITHOUT
        zero, resampled, same = (
            attribute(pair, kind, direction) for kind in ("zero", "resample", "self")
        )
        for tower in TOWERS:
            grid = vlm.stack(tower).grid
            assert zero[tower].shape[:2] == (grid.layers, grid.heads)
            assert not same[tower].any()
            z, slope = torch.stack(pair.z[tower]), torch.stack(pair.slope[tower])
            by_hand = torch.einsum("lphd,lphd->lhp", z[:, run], slope[:, run])
            torch.testing.assert_close(zero[tower], -by_hand, atol=1e-6, rtol=1e-5)
            assert resampled[tower].any()
        assert not zero["vision"][vlm.feature_layer + 1 :].any()  # never reaches LD
        assert not zero["lm"][-1, :, :-1].any()  # the last layer acts at the answer alone
        assert zero["lm"][-1, :, -1].all()


def test_the_last_layer_is_where_the_estimate_is_nearly_exact() -> None:
    """Behind it stand one MLP and one norm; the first layer's changes go through everything."""
    vlm, base, pair = pair_of("plain")
    estimate = attribute(pair, "resample", "noising")["lm"][..., -1].numpy()
    effects = np.zeros_like(estimate)
    for head in vlm.lm.grid:
        value = base.trace.z["lm"][head.layer][WITHOUT, -1:, head.head]
        edit = ZEdit(0, head, torch.tensor([base.prompt.spans.answer]), value)
        ld = forward(vlm, base.prompt.select(WITH), [edit]).ld(base.prompt)
        effects[head.layer, head.head] = float(ld) - base.ld_with
    measured = agreement(estimate, effects, k=4)
    assert measured.pearson > 0.8
    assert measured.top_recall >= 0.75


def has_graph(tensor: Tensor) -> bool:
    try:
        return tensor.grad_fn is not None
    except RuntimeError:  # torch keeps undefined ones
        return False


def test_the_model_is_left_as_it_was_and_no_graph_is_kept() -> None:
    vlm = tiny_vlm()
    prompt = tiny_prompt(vlm)
    forward(vlm, prompt)
    vlm.model.lm_head.weight.requires_grad_(True)  # someone's own setting
    before = state_of(vlm.model)
    calls: list[int] = []
    handle = vlm.decoder.register_forward_hook(lambda *_: calls.append(1))
    with torch.no_grad():
        pair = gradients(vlm, prompt)
        assert not torch.is_grad_enabled()
    handle.remove()
    assert calls == [1]  # both runs in one pass
    assert state_of(vlm.model) == before
    assert all(one.grad is None for one in vlm.model.parameters())
    kept = [one for part in (pair.z, pair.slope) for many in part.values() for one in many]
    assert not any(one.requires_grad for one in (pair.ld, *kept))
    gc.collect()
    graph = [one for one in gc.get_objects() if type(one) is Tensor and has_graph(one)]
    assert graph == []


def test_two_calls_give_identical_numbers_and_a_tower_can_be_left_out() -> None:
    vlm, base, pair = pair_of("grouped-query")
    again = gradients(vlm, base.prompt)
    alone = gradients(vlm, base.prompt, ("lm",))
    assert list(alone.z) == list(alone.slope) == ["lm"]
    for tower in TOWERS:
        assert all(map(torch.equal, pair.slope[tower], again.slope[tower]))
    for ours, theirs in zip(pair.slope["lm"], alone.slope["lm"], strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-6, rtol=1e-5)


def test_low_precision_gives_about_the_same() -> None:
    """Bfloat16 keeps 8 bits; the estimates of all heads still correlate almost fully."""
    full = pair_of("plain")[2]
    vlm = tiny_vlm(dtype=torch.bfloat16)
    rough = gradients(vlm, tiny_prompt(vlm))
    for tower in TOWERS:
        ours, theirs = (
            attribute(pair, "zero", "noising")[tower].sum(-1).numpy() for pair in (rough, full)
        )
        assert agreement(ours, theirs).pearson > 0.98


def test_what_cannot_be_estimated_is_refused() -> None:
    _, base, pair = pair_of("plain")
    with pytest.raises(ValueError, match="needs means of tower 'lm'"):
        attribute(pair, "mean", "noising")
    with pytest.raises(ValueError, match="needs means of tower 'vision'"):
        attribute(pair, "mean", "noising", {"lm": blend(pair.z)["lm"]})
    broken = tiny_vlm()
    with torch.no_grad():
        broken.model.lm_head.weight.fill_(torch.nan)
    with pytest.raises(RunError, match="not finite"):
        gradients(broken, base.prompt)


def test_offloaded_and_quantised_weights_have_no_gradient(monkeypatch: pytest.MonkeyPatch) -> None:
    vlm = tiny_vlm()
    for places in (None, {"": "cpu"}, {"a": 0, "b": 1}):
        monkeypatch.setattr(vlm.model, "hf_device_map", places, raising=False)
        assert refused(vlm) == ""
    offloaded = replace(vlm, model=cpu_offload(tiny_model(), torch.device("cpu")))
    assert "offloaded" in refused(offloaded)
    monkeypatch.setattr(vlm.model, "hf_quantizer", object(), raising=False)
    assert "quantised" in refused(vlm)


def test_too_little_memory_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise torch.OutOfMemoryError("as asked")

    vlm = tiny_vlm()
    monkeypatch.setattr(torch.autograd, "grad", full)
    with pytest.raises(RunError, match="too little memory for a backward pass"):
        gradients(vlm, tiny_prompt(vlm))
