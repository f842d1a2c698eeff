"""Every fast path of a model whose layers lie on different devices: as of the model on one.

The devices are claimed (see `tests.many_devices`), and where torch attends by itself in both, what
is compared is equal to the last bit.
"""

import os
from collections.abc import Callable, Sequence
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from headpatch.engine import attribution
from headpatch.engine.answers import generate
from headpatch.engine.control import why_not
from headpatch.engine.direct import direct_effect, take_apart
from headpatch.engine.forward import Keep
from headpatch.engine.interventions import Intervention, ZEdit
from headpatch.engine.knockout import knock_out
from headpatch.engine.patching import WITH, WITHOUT, Outcome, patch, run_pair
from headpatch.engine.pathpatch import Sender, answer_z, hear
from headpatch.engine.residual import record, swap
from headpatch.engine.rollout import follow, record_attention, relevance, rollout
from headpatch.engine.vision import patch_vision
from headpatch.engine.widen import suffix_start, widen
from headpatch.heads import Head, HeadSet
from headpatch.models.prompt import Prompt
from headpatch.models.spans import Positions, find_spans
from headpatch.models.vlm import VLM
from tests.engine.test_knockout import various as various_cuts
from tests.engine.test_residual import various as various_swaps
from tests.families.builders import BUILDERS, DECODERS, make, prompt_of
from tests.families.measure import SCOPES, TOWERS, has, interventions
from tests.long import ALL
from tests.many_devices import CPU, FIRST, SECOND, Claimed, devices, halves, spread
from tests.tiny import SHAPES, pad_left, tiny_prompt, tiny_vlm

Found = dict[str, Tensor]
Ask = Callable[[VLM, Prompt], Found]
CLOSE = 1e-5  # where attention is computed by another formula, for its gradients


def effects(outcomes: list[Outcome]) -> Tensor:
    return torch.tensor([one.effect for one in outcomes])


def widened(vlm: VLM, prompt: Prompt, scopes: Sequence[Positions] = SCOPES) -> Found:
    """Rows, and every head's effect by a widening pass, at those scopes that the prompt has."""
    found = {}
    for scope in scopes:
        if has(prompt, scope):
            keep = Keep(lm_rows=True, z=("lm",), suffix=suffix_start(prompt.spans, scope))
            base = run_pair(vlm, prompt, keep, exact=True)
            asked = interventions(list(vlm.lm.grid), scope)
            asked += [replace(one, kind="mean") for one in asked[::4]]
            means = {"lm": [one.mean(0).cpu() for one in base.trace.z["lm"]]}
            outcomes = widen(vlm, base, asked, means)
            alone = widen(vlm, base, asked[:4], means, answers_only=True)
            assert base.trace.lm_rows is not None
            found |= {scope: effects(outcomes), f"{scope}, answers alone": effects(alone)}
            found[f"{scope}, rows"] = base.trace.lm_rows.cpu()
    return found


def widened_somewhere(vlm: VLM, prompt: Prompt) -> Found:
    """Behind a prefix that rows share, and without one."""
    return widened(vlm, prompt, ("question", "all"))


def whole(vlm: VLM, prompt: Prompt) -> Found:
    """Whole passes, in which z is changed and edges are cut; vision rows; the first words."""
    base = run_pair(vlm, prompt, Keep(vision_rows=True, z=("lm",)), exact=True)
    found = {"patched": effects(patch(vlm, base, interventions(list(vlm.lm.grid), "answer")))}
    cuts = [one for one in various_cuts(vlm, base) if one.run == WITH]
    found["cut"] = effects(knock_out(vlm, base, cuts))
    if base.trace.vision_patch_rows is not None:
        found["vision rows"] = base.trace.vision_patch_rows
    found["words"] = torch.tensor([len(words) for words in generate(vlm, prompt, 2)])
    return found


def towers(vlm: VLM, prompt: Prompt) -> Found:
    """Vision heads by resumed passes, and the control of both towers by hooks."""
    base = run_pair(vlm, prompt, Keep(z=TOWERS), exact=True)
    assert [why_not(vlm, base, tower) for tower in TOWERS] == ["", ""]
    assert vlm.vision is not None
    asked = [Intervention(HeadSet.of(head), "resample", "noising") for head in vlm.vision.grid]
    return {"vision": effects(patch_vision(vlm, base, asked))}


def resumed(vlm: VLM, prompt: Prompt) -> Found:
    """Cut edges and swapped streams by resumed passes."""
    base = run_pair(vlm, prompt, Keep(suffix=0), exact=True)
    swaps = various_swaps(base, len(vlm.lm.layers))
    return {
        "cuts": effects(knock_out(vlm, base, various_cuts(vlm, base), resumed=True)),
        "swaps": effects(swap(vlm, base, None, swaps)),
        "whole swaps": effects(swap(vlm, base, record(vlm, base.prompt), swaps[:4])),
    }


def paths(vlm: VLM, prompt: Prompt) -> Found:
    """Parts of LD, the direct effect of heads, and paths into them."""
    value = torch.ones(1, vlm.lm.head_dim)
    heads = [Head(0, 1), Head(len(vlm.lm.layers) - 1, 0)]
    edits = [ZEdit(1, head, torch.tensor([prompt.spans.answer]), value) for head in heads]
    apart = take_apart(vlm, prompt.select(WITH).repeat(2), edits)
    direct = direct_effect(vlm, apart, 1, heads)
    found = {"parts": apart.parts.heads, "direct": torch.tensor([direct.frozen, direct.renormed])}
    for layer, inputs in hear(vlm, prompt, range(len(vlm.lm.layers))).items():
        sender = Sender(inputs, WITHOUT, prompt.spans.image)
        found[f"z of {layer}"] = answer_z(inputs, WITH, key=sender, value=sender).cpu()
    return found


def attributed(vlm: VLM, prompt: Prompt) -> Found:
    """What gradients say: attribution, rollout and relevance."""
    found = attribution.attribute(attribution.gradients(vlm, prompt), "resample", "noising")
    looked = record_attention(vlm, prompt, lambda logits: logits[:, 17] - logits[:, 30])
    for step in (rollout, relevance):
        flow = follow(looked, prompt, step)
        found |= {step.__name__: flow.tokens}
        if flow.patches is not None:
            found[f"{step.__name__}, patches"] = flow.patches
    return {name: one.cpu() for name, one in found.items()}


ASKED: tuple[Ask, ...] = (
    widened, whole, towers, resumed, paths, attributed
)  # fmt: skip


def padded(vlm: VLM, prompt: Prompt) -> Prompt:
    inputs = pad_left(prompt, 4)
    spans = find_spans(inputs["input_ids"][0], vlm.model.config.image_token_id)
    places = prompt.image_positions + 4
    return replace(prompt, inputs=inputs, spans=spans, image_positions=places)


def same(
    ask: Ask,
    vlm: VLM,
    prompt: Callable[[VLM], Prompt],
    places: dict[str, torch.device] | None = None,
) -> None:
    """Ask the model whole, and spread over devices."""
    expected = ask(vlm, prompt(vlm))
    with devices():
        parts = spread(vlm, places)
        found = ask(parts, prompt(parts))
    assert found.keys() == expected.keys()
    close = CLOSE if ask is attributed or CPU in parts.lm.devices() else 0
    for name, one in expected.items():
        assert type(found[name]) is Tensor, name
        compared = {"atol": close, "rtol": 0, "equal_nan": True}
        torch.testing.assert_close(
            found[name], one, **compared, msg=lambda says, name=name: f"{name}: {says}"
        )


@pytest.mark.parametrize("ask", ASKED, ids=lambda one: one.__name__)
@pytest.mark.parametrize("shape", ["grouped-query", "wide-heads"] if ALL else ["grouped-query"])
def test_every_path_agrees_with_one_device(shape: str, ask: Ask) -> None:
    same(ask, tiny_vlm(SHAPES[shape]), tiny_prompt)


@pytest.mark.parametrize("ask", [widened_somewhere, resumed], ids=lambda one: one.__name__)
def test_masks_of_padded_prompts_go_where_layers_are(
    ask: Ask,
) -> None:
    vlm = tiny_vlm(SHAPES["grouped-query"])
    same(ask, vlm, lambda one: padded(one, tiny_prompt(one)))


# Of these, one layer attends in several calls (Qwen-VL), pictures come in tiles (LLaVA-NeXT), the
# model adds to the stream between layers (Qwen3-VL), norms and masks are of two kinds (Gemma 3),
# and layers look at the image across (Mllama).
SEVERAL = ("qwen2_5_vl", "qwen3_vl", "mllama")
EVERY = (*BUILDERS, *DECODERS)


@pytest.mark.parametrize("ask", [widened_somewhere, towers], ids=lambda one: one.__name__)
@pytest.mark.parametrize(
    "name", EVERY if os.environ.get("HEADPATCH_FAMILIES") == "all" else SEVERAL
)
def test_families_agree_with_one_device(name: str, ask: Ask) -> None:
    vlm = make({**BUILDERS, **DECODERS}[name]())
    places = halves(vlm)
    if name == "mllama":  # its own code joins what layers of the tower give
        places |= {part: FIRST for part in places if "vision" in part}
    same(ask, vlm, prompt_of, places)


@pytest.mark.parametrize("name", ["wide-heads", "qwen3_vl", "mllama"])
def test_deviations_over_low_precision_agree_with_one_device(name: str) -> None:
    """Whose products round to bfloat16: what is equal to the last bit was computed alike."""
    vlm = tiny_vlm(SHAPES[name]) if name in SHAPES else make(BUILDERS[name]())
    vlm.model.to(torch.bfloat16)
    places = halves(vlm)
    if name == "mllama":
        places |= {part: FIRST for part in places if "vision" in part}
    same(widened_somewhere, vlm, tiny_prompt if name in SHAPES else prompt_of, places)


def test_each_layer_on_another_device_than_the_last() -> None:
    """Three devices, to and fro, and the inputs elsewhere than the first layer.

    But for gradients: torch does not bring them back to where it believes that they are.
    """
    vlm = tiny_vlm(SHAPES["grouped-query"])
    places = halves(vlm)
    text = "model.language_model"
    places |= {f"{text}.layers.{layer}": (SECOND, CPU, FIRST)[layer] for layer in range(3)}
    places |= {f"{text}.norm": CPU, "lm_head": SECOND}
    for ask in (one for one in ASKED if one is not attributed):
        same(ask, vlm, tiny_prompt, places)


def test_claimed_devices_heed_their_claims() -> None:
    """As torch does on devices that are there."""
    with devices():
        here, there = torch.ones(2, device=FIRST), torch.ones(2).to(SECOND)
        assert isinstance(here, Claimed) and there.device == SECOND
        assert (here + torch.tensor(1.0)).device == FIRST  # a number may lie on the CPU
        assert here[torch.tensor([0])].device == FIRST  # and so may indices
        for wrong in (there, torch.ones(2)):
            with pytest.raises(RuntimeError, match="Expected all tensors to be on the same"):
                here + wrong
        with pytest.raises(RuntimeError, match="Expected all tensors to be on the same"):
            here[torch.tensor([0], device=SECOND)]
        assert (here + there.to(here)).tolist() == [2, 2]
        assert type(here.cpu()) is Tensor
