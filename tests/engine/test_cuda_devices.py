"""A model spread over devices that are there: a GPU and the CPU, and two GPUs.

Skipped where there is no GPU; `tests.engine.test_many_devices` asks the same of claimed devices.
"""

from collections.abc import Callable
from copy import deepcopy
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from headpatch.engine import attribution
from headpatch.engine.forward import Keep
from headpatch.engine.patching import Outcome, patch, run_pair
from headpatch.engine.widen import suffix_start, widen
from headpatch.models.prompt import Prompt
from headpatch.models.vlm import VLM
from tests.engine.test_many_devices import (
    ASKED,
    Ask,
    Found,
    attributed,
    effects,
    padded,
    widened_somewhere,
)
from tests.families.builders import BUILDERS, make, prompt_of
from tests.families.measure import interventions
from tests.many_devices import CPU, FIRST, halves
from tests.tiny import SHAPES, tiny_prompt, tiny_vlm

GPUS = torch.cuda.device_count()
if not GPUS:
    pytest.skip("no GPU", allow_module_level=True)
pytest.importorskip("accelerate")

CUDA = torch.device("cuda", 0)
OFFLOADED = "CPU weights on the GPU"
SPLITS = {
    "GPU, then CPU": (CUDA, CPU),
    "CPU, then GPU": (CPU, CUDA),
    OFFLOADED: (CUDA, CPU),  # weights are brought in for each layer
    "two GPUs": (CUDA, torch.device("cuda", 1)),
}
every_split = pytest.mark.parametrize(
    "split",
    [
        pytest.param(name, marks=pytest.mark.skipif("two" in name and GPUS < 2, reason="one GPU"))
        for name in SPLITS
    ],
)
CLOSE = 2e-5  # logits; float32 on two kinds of device


@pytest.fixture(autouse=True)
def in_float32(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)


def dispatched(vlm: VLM, split: str) -> VLM:
    """Return a copy of a model, each tower's halves on the split's two devices."""
    from accelerate import dispatch_model

    two = SPLITS[split]
    places = {name: str(two[place != FIRST]) for name, place in halves(vlm).items()}
    # What lies on the CPU is computed on the main device.
    main: Any = "cpu" if CPU in two and split != OFFLOADED else str(two[0])
    return replace(vlm, model=dispatch_model(deepcopy(vlm.model), places, main_device=main))


def differ(found: Found, expected: Found) -> dict[str, float]:
    """How far two answers lie apart, by name."""
    assert found.keys() == expected.keys()
    return {
        name: float((found[name].cpu() - one.cpu()).nan_to_num().abs().max())
        for name, one in expected.items()
    }


@every_split
@pytest.mark.parametrize("ask", ASKED, ids=lambda one: one.__name__)
@pytest.mark.parametrize("shape", ["grouped-query", "wide-heads"])
def test_every_path_agrees_with_one_device(shape: str, ask: Ask, split: str) -> None:
    vlm = tiny_vlm(SHAPES[shape])
    parts = dispatched(vlm, split)
    assert bool(attribution.refused(parts)) == (split == OFFLOADED)
    if split == OFFLOADED and ask is attributed:
        return
    expected = ask(vlm, tiny_prompt(vlm))
    apart = differ(ask(parts, tiny_prompt(parts)), expected)
    assert max(apart.values()) <= CLOSE, apart


@every_split
def test_masks_of_padded_prompts_go_where_layers_are(split: str) -> None:
    vlm = tiny_vlm(SHAPES["grouped-query"])
    parts = dispatched(vlm, split)
    found, expected = (
        widened_somewhere(one, padded(one, tiny_prompt(one))) for one in (parts, vlm)
    )
    assert max(differ(found, expected).values()) <= CLOSE


@every_split
@pytest.mark.parametrize("name", ["qwen2_5_vl", "qwen3_vl", "gemma3"])
def test_families_agree_with_one_device(name: str, split: str) -> None:
    vlm = make(BUILDERS[name]())
    parts = dispatched(vlm, split)
    if not runs_plainly(parts):
        pytest.skip("its own code, without headpatch, does not run this split")
    found, expected = (widened_somewhere(one, prompt_of(one)) for one in (parts, vlm))
    assert max(differ(found, expected).values()) <= CLOSE


@torch.no_grad()
def runs_plainly(vlm: VLM) -> bool:
    """Whether transformers runs a split; release 5.17 does not where Qwen3-VL's tower is cut."""
    try:
        vlm.model(**prompt_of(vlm).inputs)
    except RuntimeError as error:
        if "same device" not in str(error):
            raise
        return False
    return True


@every_split
@pytest.mark.parametrize("name", ["grouped-query", "wide-heads", "gemma3"])
def test_deviations_over_low_precision_agree_with_float32_passes(name: str, split: str) -> None:
    """Also by this package's kernels: on the second GPU, too."""
    vlm = tiny_vlm(SHAPES[name]) if name in SHAPES else make(BUILDERS[name]())
    vlm.model.to(torch.bfloat16)
    ask_in = tiny_prompt if name in SHAPES else prompt_of
    parts = dispatched(vlm, split)
    fast, slow = (answer_effects(run, parts, ask_in(parts)) for run in (widen, patch))
    largest = float(slow.abs().max())
    assert (fast - slow).abs().max() <= 0.02 * largest  # 2^-9 relative a product
    plain = answer_effects(patch, vlm, ask_in(vlm))
    assert (slow - plain).abs().max() <= 2e-3 * largest  # weights in two parts: 16 bits


def answer_effects(run: Callable[..., list[Outcome]], vlm: VLM, prompt: Prompt) -> Tensor:
    """Every head's effects at the question's positions."""
    keep = Keep(z=("lm",), suffix=suffix_start(prompt.spans, "question"))
    base = run_pair(vlm, prompt, keep, exact=True)
    return effects(run(vlm, base, interventions(list(vlm.lm.grid), "question")))
