"""Deviations from an untouched run: each step against the difference that it stands for."""

from copy import deepcopy

import pytest
import torch
from torch import Tensor, nn

from headpatch.engine import fused
from headpatch.engine.delta_forward import Gated, Norm, quick_norms
from headpatch.engine.forward import Keep
from headpatch.engine.interventions import Intervention
from headpatch.engine.patching import Baseline, patch, run_pair
from headpatch.engine.widen import widen
from headpatch.heads import HeadSet
from headpatch.models.vlm import VLM
from tests.engine.test_attention import state_of
from tests.families.builders import build, prompt_of
from tests.tiny import tiny_prompt, tiny_vlm

SIZES = (1e-4, 1.0, 30.0)  # of a deviation beside numbers near 1


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def close(found: Tensor, exact: Tensor) -> bool:
    """Relative to the deviation, however small it is: that is what deviations are for."""
    return bool((found.double() - exact).abs().max() < 1e-5 * exact.abs().max())


@pytest.mark.parametrize("size", SIZES)
def test_a_norm_deviates_as_its_difference(size: float) -> None:
    d, x0, scale = size * draw(5, 3, 16), draw(1, 3, 16, seed=1), draw(16, seed=2)
    x, s = x0.double(), scale.double()
    exact = fused.rms_norm(x + d, s, 1e-6) - fused.rms_norm(x, s, 1e-6)
    found = fused.norm_deviation(d, x0, scale, 1e-6, torch.float32)
    assert close(found, exact)
    assert not fused.norm_deviation(0 * d, x0, scale, 1e-6, torch.float32).any()


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("act", fused.ACTS)
def test_a_gate_deviates_as_its_difference(act: fused.Act, size: float) -> None:
    gate, up = size * draw(5, 3, 16), size * draw(5, 3, 16, seed=1)
    gate0, up0 = draw(1, 3, 16, seed=2), draw(1, 3, 16, seed=3)
    run, g, u = fused.ACTS[act], gate0.double(), up0.double()
    exact = run(g + gate) * (u + up) - run(g) * u
    found = fused.gated_deviation(gate, up, gate0, up0, act, torch.float32)
    # Where the activation's own difference is taken, float32 leaves 1e-7 of numbers up to 10.
    assert (found.double() - exact).abs().max() < 1e-5 * exact.abs().max() + 2e-6
    still = fused.gated_deviation(0 * gate, 0 * up, gate0, up0, act, torch.float32)
    assert still.abs().max() < 2e-6


def kept(vlm: VLM) -> Baseline:
    prompt = tiny_prompt(vlm)
    return run_pair(vlm, prompt, Keep(z=("lm",), suffix=prompt.spans.answer), exact=True)


def test_norms_and_gates_are_known_by_what_they_do() -> None:
    vlm = tiny_vlm(dtype=torch.bfloat16)
    kept(vlm)  # transformers hangs hooks of its own on a model's first pass
    before = state_of(vlm.model)
    points = kept(vlm).trace.prefills[0].points
    assert points is not None
    kinds = [type(points.known[module]) for module in points.parts.lifted]
    assert kinds.count(Norm) == 2 * vlm.lm.grid.layers
    assert kinds.count(Gated) == vlm.lm.grid.layers
    assert state_of(vlm.model) == before


@pytest.mark.parametrize("family", ["llava", "gemma3"])
def test_quick_norms_give_what_the_norms_give(family: str) -> None:
    vlm = build(family)
    vlm.model.to(torch.bfloat16)
    assert quick_norms(vlm) == []  # nothing is known of them yet
    prompt = prompt_of(vlm)
    points = run_pair(vlm, prompt, Keep(suffix=prompt.spans.answer), exact=True).trace.prefills[0]
    assert points.points is not None
    norms = quick_norms(vlm)
    assert len(norms) >= 2 * vlm.lm.grid.layers
    for module, run in norms:
        x = points.points.inputs[module]
        assert close(run(x), module(x))


class Shifted(nn.Module):
    """A norm of another formula, with the attributes of the usual one."""

    def __init__(self, norm: nn.Module) -> None:
        super().__init__()
        self.norm_weight = nn.Parameter(norm.weight.detach().clone())
        self.variance_epsilon = norm.variance_epsilon

    def forward(self, x: Tensor) -> Tensor:
        centred = x - x.mean(-1, keepdim=True)
        return centred * (centred.square().mean(-1, keepdim=True) + 1e-5).rsqrt() * self.norm_weight


def test_what_has_another_formula_is_run_as_it_is() -> None:
    """Norms and activations that only look like the usual ones."""
    plain = tiny_vlm(dtype=torch.bfloat16)
    model = deepcopy(plain.model)
    for layer in model.model.language_model.layers:
        layer.post_attention_layernorm = Shifted(layer.post_attention_layernorm)
        layer.mlp.act_fn = nn.Tanh()
    vlm = VLM(model.requires_grad_(False), plain.processor, "odd", "")
    base = kept(vlm)
    points = base.trace.prefills[0].points
    assert points is not None
    assert [type(one) for one in points.known.values()] == [Norm] * vlm.lm.grid.layers
    asked = [Intervention(HeadSet.of(head), "resample", "noising") for head in vlm.lm.grid]
    fast, slow = (
        torch.tensor([one.effect for one in run(vlm, base, asked)]) for run in (widen, patch)
    )
    assert slow.abs().max() > 0.05
    assert (fast - slow).abs().max() < 0.05 * slow.abs().max()


def test_kernels_need_cuda() -> None:
    assert fused.kernels_on(torch.device("cpu")) is None
    if torch.cuda.is_available():
        pytest.importorskip("triton")
        assert fused.kernels_on(torch.device("cuda")) is not None


def test_kernels_that_cannot_run_are_told_once() -> None:
    if torch.cuda.is_available():
        pytest.skip("the kernels run here")
    fused._tried.cache_clear()
    with pytest.warns(UserWarning, match="plain torch is, which is slower"):
        assert fused._tried(0) is None
