"""Direct logit attribution against its sum, against hooks, and against the planted numbers."""

import pytest
import torch

from headpatch.engine.direct import direct_effect, take_apart
from headpatch.engine.interventions import ZEdit
from headpatch.engine.patching import WITH, WITHOUT
from headpatch.errors import RunError
from headpatch.heads import Head
from headpatch.models.vlm import VLM
from tests.engine.oracle import Oracle
from tests.families.builders import BUILDERS, built
from tests.planted import HEADS, LD_WITH, LD_WITHOUT, planted
from tests.tiny import SHAPES, every_shape, tiny_model, tiny_prompt, tiny_vlm


@pytest.mark.parametrize("name", [name for name in BUILDERS if name != "mllama"])
def test_parts_add_up_to_ld_in_every_family(name: str) -> None:
    vlm, prompt = built(name)
    unembedded: list[torch.Tensor] = []
    handle = vlm.model.lm_head.register_forward_hook(lambda *of: unembedded.append(of[2][:, -1]))
    apart = take_apart(vlm, prompt)
    handle.remove()
    logits = apart.logits[:, [prompt.answers.yes, prompt.answers.no]]
    cap = getattr(vlm.model.config.get_text_config(), "final_logit_softcapping", None)
    if cap and not torch.equal(unembedded[-1], apart.logits):  # LD is meant before it
        logits = cap * torch.atanh(logits / cap)
    torch.testing.assert_close(apart.parts.ld, logits[:, 0] - logits[:, 1], atol=2e-5, rtol=0)
    assert (apart.parts.heads.abs().amax((0, 2)) > 1e-4).all()  # every layer's heads write


def test_a_model_that_adds_up_otherwise_is_refused() -> None:
    with pytest.raises(RunError, match="layer 1 adds more to the stream"):
        take_apart(*built("mllama"))  # it gates what its cross-attention writes


def test_a_norm_that_is_no_rms_norm_is_refused() -> None:
    vlm = tiny_vlm()
    norm = torch.nn.LayerNorm(32)
    with torch.no_grad():
        norm.bias.normal_()
    vlm.model.model.language_model.norm = norm
    with pytest.raises(RunError, match="no RMS norm"):
        take_apart(vlm, tiny_prompt(vlm))


def test_logits_that_are_scaled_afterwards_are_refused() -> None:
    vlm = tiny_vlm()
    vlm.model.lm_head.register_forward_hook(lambda _, __, output: 2 * output)
    with pytest.raises(RunError, match="not its final norm times its unembedding"):
        take_apart(vlm, tiny_prompt(vlm))


@every_shape
def test_heads_write_z_times_their_part_of_the_projection(shape: str) -> None:
    """By eager transformers: z from a hook, W_O cut by hand, the norm's scale by its formula."""
    vlm = tiny_vlm(SHAPES[shape])
    prompt = tiny_prompt(vlm)
    oracle = Oracle(vlm)
    streams: list[torch.Tensor] = []
    language = oracle.model.model.language_model
    handle = language.norm.register_forward_pre_hook(lambda _, args: streams.append(args[0][:, -1]))
    z = oracle.z(prompt.inputs)["lm"]
    handle.remove()
    (final,) = streams
    scale = (final.pow(2).mean(-1) + language.norm.variance_epsilon).rsqrt()
    words = oracle.model.lm_head.weight
    along = language.norm.weight * (words[prompt.answers.yes] - words[prompt.answers.no])
    parts = take_apart(vlm, prompt).parts
    torch.testing.assert_close(parts.scale, scale, rtol=1e-5, atol=0)
    for layer, module in enumerate(oracle.attentions["lm"]):
        for head in range(vlm.lm.grid.heads):
            columns = slice(head * vlm.lm.head_dim, (head + 1) * vlm.lm.head_dim)
            written = z[layer][:, -1, head] @ module.o_proj.weight[:, columns].T
            expected = written @ along
            torch.testing.assert_close(parts.heads[:, layer, head], expected, atol=2e-5, rtol=1e-4)


def test_planted_heads_write_what_was_planted() -> None:
    made = planted()
    parts = take_apart(made.vlm, made.prompt).parts
    written = parts.scale[:, None, None] * parts.heads
    shares = {"looker": [2, 0], "blind writer": [2, 1], "suppressor": [-1, 0],
              "note reader": [1, 0], "pool reader": [1, 0]}  # fmt: skip
    # The redundant pair writes red, which the MLP of layer 2 reads.
    nothing = {key: [0, 0] for key in ("redundant a", "redundant b", "decoy", "note writer")}
    for name, expected in (shares | nothing).items():
        head = HEADS[name].head
        found = written[:, head.layer, head.head].tolist()
        assert found == pytest.approx(expected, abs=1e-3), name
    assert (parts.scale * parts.mlps[:, 2]).tolist() == pytest.approx([4, 0], abs=1e-3)
    assert parts.ld.tolist() == pytest.approx([LD_WITH, LD_WITHOUT], abs=1e-3)


@every_shape
def test_a_direct_effect_is_the_final_stream_changed(shape: str) -> None:
    """Through a norm computed anew and one that is frozen, by hand; heads of two layers at once."""
    vlm = tiny_vlm(SHAPES[shape])
    prompt = tiny_prompt(vlm)
    heads = [Head(0, 1), Head(1, 0), Head(1, 3)]
    source = take_apart(vlm, prompt.select(WITHOUT))
    answer = torch.tensor([prompt.spans.answer])
    edits = [ZEdit(1, head, answer, source.z[head.layer][0, head.head][None]) for head in heads]
    apart = take_apart(vlm, prompt.select(WITH).repeat(2), edits)
    found = direct_effect(vlm, apart, 1, heads)
    language, head_dim = vlm.model.model.language_model, vlm.lm.head_dim
    change = torch.zeros_like(apart.final[0])
    for head in heads:
        moved = source.z[head.layer][0, head.head] - apart.z[head.layer][0, head.head]
        columns = slice(head.head * head_dim, (head.head + 1) * head_dim)
        change += language.layers[head.layer].self_attn.o_proj.weight[:, columns] @ moved
    words = vlm.model.lm_head.weight
    along = words[prompt.answers.yes] - words[prompt.answers.no]
    before, after = (
        language.norm(one) @ along for one in (apart.final[0], apart.final[0] + change)
    )
    assert found.renormed == pytest.approx(float(after - before), abs=2e-5)
    frozen = float(apart.parts.scale[0] * (change * language.norm.weight) @ along)
    assert found.frozen == pytest.approx(frozen, abs=2e-5)
    assert abs(found.frozen) > 1e-3
    assert direct_effect(vlm, apart, 0, heads).frozen == 0.0


def test_low_precision_weights_are_taken_apart_in_float32() -> None:
    low = VLM(tiny_model(dtype=torch.bfloat16), tiny_vlm().processor, "tiny", "")
    rounded = VLM(tiny_model(dtype=torch.bfloat16).float(), low.processor, "tiny", "")
    found = [take_apart(vlm, tiny_prompt(vlm)).parts for vlm in (low, rounded)]
    torch.testing.assert_close(found[0].heads, found[1].heads, atol=1e-4, rtol=0)
