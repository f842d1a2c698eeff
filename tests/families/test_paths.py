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
from headpatch.engine.widen import suffix_start, widen
from headpatch.heads import Head, HeadSet
from tests.families.builders import BUILDERS, built, make, prompt_of
from tests.families.measure import TOWERS, interventions, worst_effect

every_family = pytest.mark.parametrize("name", BUILDERS)
NOT_RESUMED = {"paligemma", "paligemma (2)"}


@every_family
def test_slopes_are_those_of_small_changes(name: str) -> None:
    """∂LD/∂z against the difference of two passes, in every layer of both towers.

    Float32, so a coarse step and tolerance; towers that call several times a layer too.
    """
    vlm, prompt = built(name)
    ld, pair = forward(vlm, prompt).ld(prompt), gradients(vlm, prompt)
    torch.testing.assert_close(pair.ld, ld, atol=1e-6, rtol=0, check_dtype=False)
    one, generator = prompt.select(1), torch.Generator().manual_seed(1)
    for tower, layer in ((t, i) for t in TOWERS for i in range(len(pair.z[t]))):
        z, slope = pair.z[tower][layer][1], pair.slope[tower][layer][1]
        way = torch.sign(slope) * torch.rand(z.shape, generator=generator)
        positions, heads = torch.arange(len(z)), [Head(layer, i, tower) for i in range(z.shape[1])]
        step, ends = 1e-2 / float(way.norm().clamp(min=1e-6)), []
        for moved in (z + step * way, z - step * way):
            edits = [ZEdit(0, head, positions, moved[:, head.head]) for head in heads]
            ends.append(float(forward(vlm, one, edits).ld(one)))
        expected = (ends[0] - ends[1]) / (2 * step)
        assert float((slope * way).sum()) == pytest.approx(expected, rel=0.02, abs=1e-4)


@every_family
def test_knockout_resumes_exactly_or_not_at_all(name: str) -> None:
    vlm, prompt = built(name)
    queries, keys = prompt.spans.question[-2:], prompt.spans.image
    base = run_pair(vlm, prompt, Keep(z=("lm",), suffix=int(queries.min())))
    probes = [
        Knockout(run, HeadSet.of(Head(layer, 1)), queries, keys)
        for run, layer in product((0, 1), range(vlm.lm.grid.layers))
    ]
    off = disagreement(vlm, base, probes)
    assert off == float("inf") if name in NOT_RESUMED else off <= 2e-5


def test_nothing_is_cut_in_layers_that_see_no_token_of_the_prompt() -> None:
    vlm, prompt = built("mllama")
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
    vlm, prompt = built(name)
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
