"""Whatever runs a model leaves it as it was, also where a layer fails in the midst of it."""

from collections.abc import Callable
from contextlib import suppress

import pytest
import torch

from headpatch.engine.attribution import gradients
from headpatch.engine.control import why_not
from headpatch.engine.direct import take_apart
from headpatch.engine.forward import Keep, forward
from headpatch.engine.interventions import Cut, Intervention, ZEdit
from headpatch.engine.knockout import Knockout, knock_out
from headpatch.engine.patching import WITH, WITHOUT, Baseline, patch, run_pair
from headpatch.engine.pathpatch import hear
from headpatch.engine.residual import Swap, record, swap
from headpatch.engine.rollout import record_attention
from headpatch.engine.vision import patch_vision
from headpatch.engine.widen import widen
from headpatch.heads import Head, HeadSet
from headpatch.models.vlm import VLM
from tests.engine.test_attention import state_of
from tests.tiny import tiny_prompt, tiny_vlm

AT = torch.tensor([4])
ALL = Keep(lm_rows=True, vision_rows=True, z=("lm", "vision"))


def zeroed(heads: str) -> list[Intervention]:
    return [Intervention(HeadSet.parse(one), "zero", "noising") for one in heads.split()]


def cut_edges(vlm: VLM, base: Baseline, resumed: bool) -> None:
    spans = base.prompt.spans
    cut = Knockout(WITH, HeadSet.parse("0.1+1.2"), spans.question, spans.image)
    knock_out(vlm, base, [cut], resumed=resumed)


def swap_streams(vlm: VLM, base: Baseline, resumed: bool) -> None:
    streams = record(vlm, base.prompt)
    asked = [Swap(WITH, "lm", 1, base.prompt.spans.image, WITHOUT)]
    swap(vlm, base, None if resumed else streams, asked)


RUNS: dict[str, Callable[[VLM, Baseline], object]] = {
    "forward": lambda vlm, base: forward(
        vlm,
        base.prompt,
        [ZEdit(0, Head(0, 0), AT, None)],
        [Cut(1, Head(0, 0, "vision"), AT, AT)],
        ALL,
    ),
    "run_pair": lambda vlm, base: run_pair(vlm, base.prompt, Keep(suffix=5)),
    "patch": lambda vlm, base: patch(vlm, base, zeroed("0.1 v1.0+1.2")),
    "widen": lambda vlm, base: widen(vlm, base, zeroed("0.1 0.2+1.1")),
    "patch_vision": lambda vlm, base: patch_vision(vlm, base, zeroed("v0.1 v1.0")),
    "knock_out": lambda vlm, base: cut_edges(vlm, base, resumed=False),
    "knock_out, resumed": lambda vlm, base: cut_edges(vlm, base, resumed=True),
    "swap": lambda vlm, base: swap_streams(vlm, base, resumed=False),
    "swap, resumed": lambda vlm, base: swap_streams(vlm, base, resumed=True),
    "gradients": lambda vlm, base: gradients(vlm, base.prompt),
    "hear": lambda vlm, base: hear(vlm, base.prompt, [1, 2]),
    "record_attention": lambda vlm, base: record_attention(vlm, base.prompt, lambda x: x[:, 5]),
    "take_apart": lambda vlm, base: take_apart(vlm, base.prompt),
    "why_not": lambda vlm, base: [why_not(vlm, base, tower) for tower in ("lm", "vision")],
}


@pytest.mark.parametrize("fails_at", [0, 1, 2])
@pytest.mark.parametrize("name", RUNS)
def test_the_model_is_left_as_found(name: str, fails_at: int) -> None:
    """Not at all, or at the first or second pass through a layer, if there is one."""
    vlm = tiny_vlm()
    vlm.model.set_attn_implementation("eager" if fails_at else "sdpa")
    prompt, calls = tiny_prompt(vlm), 0
    plain = vlm.model(**prompt.inputs).logits
    base = run_pair(vlm, prompt, Keep(z=("lm", "vision"), suffix=0), exact=True)

    def fail(*_: object) -> None:
        nonlocal calls
        calls += 1
        if calls == fails_at:
            raise ZeroDivisionError("as asked")

    handle = vlm.decoder.layers[1].mlp.register_forward_pre_hook(fail)
    before = state_of(vlm.model)
    with suppress(ZeroDivisionError):
        RUNS[name](vlm, base)
    assert calls >= fails_at or fails_at == 2
    assert state_of(vlm.model) == before
    assert all(one.grad is None for one in vlm.model.parameters())
    assert torch.is_grad_enabled()
    handle.remove()
    assert torch.equal(vlm.model(**prompt.inputs).logits, plain)
