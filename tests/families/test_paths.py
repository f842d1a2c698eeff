"""The engine's other paths in every family: vision sweep, gradients, knockout."""

from itertools import product

import pytest
import torch
import transformers as hf

from headpatch.engine.attribution import gradients
from headpatch.engine.direct import take_apart
from headpatch.engine.forward import Keep, forward
from headpatch.engine.interventions import ZEdit
from headpatch.engine.knockout import Knockout, disagreement, knock_out
from headpatch.engine.patching import patch, run_pair
from headpatch.engine.selfcheck import check
from headpatch.engine.vision import patch_vision
from headpatch.engine.widen import suffix_start, widen
from headpatch.heads import Head, HeadSet
from tests.families.builders import BUILDERS, build, make, prompt_of
from tests.families.measure import interventions, towers, worst_effect

NAMES = list(BUILDERS)
NOT_RESUMED = {"paligemma", "paligemma (2)"}


@pytest.mark.parametrize("name", NAMES)
def test_the_vision_sweep_is_the_plain_one(name: str) -> None:
    vlm = build(name)
    assert vlm.vision is not None
    base = run_pair(vlm, prompt_of(vlm), Keep(z=("vision",)))
    heads = [Head(layer, 1, "vision") for layer in range(vlm.vision.grid.layers)]
    asked = interventions(heads, "answer")
    slow = patch(vlm, base, asked)
    assert worst_effect(patch_vision(vlm, base, asked), slow) <= 2e-5
    assert max(abs(one.effect) for one in slow) > 0.01


@pytest.mark.parametrize("name", NAMES)
def test_slopes_are_those_of_small_changes(name: str) -> None:
    """∂LD/∂z against the difference of two passes, at one token of each layer's z."""
    vlm = build(name)
    prompt, step = prompt_of(vlm), 1e-2
    pair = gradients(vlm, prompt)
    for tower in towers(vlm):
        for layer, (z, slope) in enumerate(zip(pair.z[tower], pair.slope[tower], strict=True)):
            at, head = torch.tensor([1]), Head(layer, 1, tower)
            change = torch.randn(z.shape[-1], generator=torch.Generator().manual_seed(layer))
            ld = [
                forward(vlm, prompt, [ZEdit(0, head, at, z[0, at, 1] + sign * step * change)]).ld(
                    prompt
                )[0]
                for sign in (1, -1)
            ]
            expected = float(ld[0] - ld[1]) / (2 * step)
            found = float(slope[0, 1, 1] @ change)
            assert found == pytest.approx(expected, rel=2e-2, abs=1e-3)


@pytest.mark.parametrize("name", NAMES)
def test_knockout_resumes_exactly_or_not_at_all(name: str) -> None:
    vlm = build(name)
    prompt = prompt_of(vlm)
    queries, keys = prompt.spans.question[-2:], prompt.spans.image
    base = run_pair(vlm, prompt, Keep(z=("lm",), suffix=int(queries.min())))
    probes = [
        Knockout(run, HeadSet.of(Head(layer, 1)), queries, keys)
        for run, layer in product((0, 1), range(vlm.lm.grid.layers))
    ]
    off = disagreement(vlm, base, probes)
    assert off == float("inf") if name in NOT_RESUMED else off <= 2e-5


def test_nothing_is_cut_in_layers_that_see_no_token_of_the_prompt() -> None:
    vlm = build("mllama")
    prompt = prompt_of(vlm)
    assert vlm.crossing == {1, 3}
    queries, keys = prompt.spans.question[-2:], prompt.spans.question[:-2]
    base = run_pair(vlm, prompt, Keep(z=("lm",), suffix=int(queries.min())))
    cuts = [Knockout(0, HeadSet.of(Head(layer, 1)), queries, keys) for layer in range(4)]
    for found in (knock_out(vlm, base, cuts), knock_out(vlm, base, cuts, resumed=True)):
        moved = [abs(one.effect) > 1e-4 for one in found]
        assert moved == [True, False, True, False]


@pytest.mark.parametrize("name", ["paligemma", "paligemma (2)"])
def test_a_prompt_read_in_both_directions_is_carried_whole(name: str) -> None:
    """And one that is not is refused, by what the pass shows."""
    vlm = build(name)
    prompt = prompt_of(vlm)
    assert suffix_start(prompt.spans, "answer") == suffix_start(prompt.spans, "question") == 0
    base = run_pair(vlm, prompt, Keep(z=("lm",), suffix=0))
    for scope in ("answer", "question"):
        asked = interventions(list(vlm.lm.grid), scope)
        assert worst_effect(widen(vlm, base, asked), patch(vlm, base, asked)) <= 1e-4
    late = run_pair(vlm, prompt, Keep(z=("lm",), suffix=prompt.spans.answer))
    assert "causally" in late.trace.prefills[0].refused


@pytest.mark.parametrize("applied", [False, True])
def test_a_cap_on_the_logits_is_put_where_the_model_puts_it(applied: bool) -> None:
    """LLaVA around Gemma 2 leaves out the cap that the text model's config names."""
    parts = BUILDERS["paligemma (2)" if applied else "llava"]()
    if not applied:
        text = {
            name: getattr(parts.config.text_config, name)
            for name in ("hidden_size", "intermediate_size", "num_hidden_layers",
                         "num_attention_heads", "num_key_value_heads")
        }  # fmt: skip
        more = {"head_dim": 12, "query_pre_attn_scalar": 12, "final_logit_softcapping": 1.0}
        parts.config.text_config = hf.Gemma2Config(**text, **more)
    vlm = make(parts)
    prompt = prompt_of(vlm)
    cap = float(vlm.model.config.get_text_config().final_logit_softcapping)
    start = suffix_start(prompt.spans, "answer")
    base = run_pair(vlm, prompt, Keep(z=("lm",), suffix=start))
    caps = {one.cap for one in base.trace.prefills}
    assert caps <= {None, cap} if applied else caps == {None}  # by the release of transformers
    assert check(vlm, base, "answer").exact
    asked = interventions(list(vlm.lm.grid), "answer")
    slow = patch(vlm, base, asked)
    assert worst_effect(widen(vlm, base, asked), slow) <= 2e-5
    assert max(abs(one.effect) for one in slow) > 0.01
    take_apart(vlm, prompt)  # adds LD up before the cap, if there is one
