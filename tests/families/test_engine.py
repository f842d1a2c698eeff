"""Every family's z edits, rows and widening pass, against plain transformers with hooks."""

from dataclasses import replace
from functools import lru_cache
from typing import Any

import pytest
import torch

from headpatch.engine.answers import generate
from headpatch.engine.attention import plain_attention
from headpatch.engine.control import why_not
from headpatch.engine.forward import Keep, forward
from headpatch.engine.interventions import Cut
from headpatch.engine.patching import patch, run_pair
from headpatch.engine.selfcheck import check
from headpatch.engine.widen import suffix_start, widen
from headpatch.errors import InputError, RunError
from headpatch.heads import Head
from headpatch.models.families import FAMILIES
from headpatch.models.prompt import Prompt, encode
from headpatch.models.spans import Positions
from tests.families import builders
from tests.families.builders import BUILDERS, DECODERS, QUESTION, TALL, WIDE, built
from tests.families.measure import (
    SCOPES,
    TOWERS,
    Measured,
    has,
    interventions,
    measure,
    worst_effect,
)
from tests.tiny import image_pair

every_family = pytest.mark.parametrize("name", BUILDERS)

# What a pass shows of a family of which less is known than of these two.
UNKNOWN: dict[str, tuple[dict[str, Any], Positions, str]] = {
    "qwen3_vl": ({"adds_between_layers": False}, "all", "changes the stream itself before layer"),
    "mllama": ({"cross_attention": ""}, "answer", "layer 3 attends to more than the prompt"),
}


@lru_cache
def measured(name: str) -> Measured:
    return measure(*built(name))


def test_every_family_is_built() -> None:
    assert {built(name)[0].model.config.model_type for name in BUILDERS} == set(FAMILIES)


@every_family
def test_z_is_what_enters_the_output_projection(name: str) -> None:
    assert max(measured(name).z.values()) <= 2e-5


@every_family
def test_edits_of_z_match_hooks(name: str) -> None:
    prompt = built(name)[1]
    edits = measured(name).edits
    assert set(edits) == {scope for scope in SCOPES if has(prompt, scope)} | {"vision"}
    for scope, one in edits.items():
        assert one.worst <= 2e-5, scope
        assert one.largest >= 0.01, scope  # else nothing was tested


@every_family
def test_rows_match_eager(name: str) -> None:
    assert measured(name).rows <= 1e-6
    assert measured(name).without_rows == ([1, 3] if name == "mllama" else [])


@every_family
def test_the_fast_passes_are_exact(name: str) -> None:
    assert measured(name).vision_fast <= 2e-5
    found = measured(name).fast
    assert len(found) == (3 if name == "mllama" else 4)  # it has no scope `image`
    for scope, fast in found.items():
        assert fast.exact and not fast.refused, scope
        assert fast.worst <= 2e-5, scope


@every_family
def test_heads_are_changed_as_hooks_in_the_models_own_pass_change_them(name: str) -> None:
    vlm, prompt = built(name)
    base = run_pair(vlm, prompt, Keep(z=TOWERS))
    assert [why_not(vlm, base, tower) for tower in TOWERS] == ["", ""]


@pytest.mark.parametrize("name", UNKNOWN)
def test_a_refused_pass_says_why_and_does_not_run(name: str) -> None:
    """Seen in the pass, not by luck in numbers."""
    known, prompt = built(name)
    less, scope, reason = UNKNOWN[name]
    vlm = replace(known)
    names = {"lm_attention": "cross_attn"} if name == "mllama" else {}
    vlm.__dict__["lm"], vlm.__dict__["family"] = known.lm, replace(known.family, **less, **names)
    base = run_pair(vlm, prompt, Keep(z=("lm",), suffix=suffix_start(prompt.spans, scope)))
    with pytest.raises(ValueError, match=reason):
        widen(vlm, base, interventions([Head(0, 0)], scope))
    assert not check(vlm, base, scope).exact


@pytest.mark.parametrize("name", ["qwen3_vl", "mllama"])
def test_low_precision_deviates_by_its_own_products(name: str) -> None:
    """Image features between layers and keys of the image, where rows are deviations."""
    vlm, prompt = builders.build(name), built(name)[1]
    vlm.model.to(torch.bfloat16)
    for scope in ("question", "all"):
        keep = Keep(z=("lm",), suffix=suffix_start(prompt.spans, scope))
        base = run_pair(vlm, prompt, keep, exact=True)
        asked = interventions(list(vlm.lm.grid), scope)
        slow, fast = patch(vlm, base, asked), widen(vlm, base, asked)
        largest = max(abs(one.effect) for one in slow)
        assert worst_effect(slow, fast) < 16 * 2**-8 * largest


def test_mllama_has_no_image_tokens() -> None:
    _, prompt = built("mllama")
    with pytest.raises(InputError, match="image: the prompt has none"):
        prompt.spans.positions("image")
    assert len(prompt.image_positions) == len(prompt.patches.boxes) == 0
    assert len(prompt.spans.positions("question")) > 1


@every_family
def test_padded_batches_equal_unpadded_ones(name: str) -> None:
    vlm, prompt = built(name)
    keep = Keep(lm_rows=True, z=("lm",))
    plain, padded = forward(vlm, prompt, keep=keep), forward(vlm, _padded(prompt, 5), keep=keep)
    torch.testing.assert_close(padded.logits, plain.logits, atol=2e-5, rtol=0)
    assert plain.lm_rows is not None and padded.lm_rows is not None
    torch.testing.assert_close(
        padded.lm_rows[..., 5:], plain.lm_rows, atol=1e-6, rtol=0, equal_nan=True
    )
    assert (padded.lm_rows[..., :5].nan_to_num(0.0) == 0).all()
    for before, after in zip(plain.z["lm"], padded.z["lm"], strict=True):
        torch.testing.assert_close(after[:, 5:], before, atol=2e-5, rtol=0)


def _padded(prompt: Prompt, count: int) -> Prompt:
    """`prompt` with padding before every row."""
    inputs, pad = dict(prompt.inputs), torch.nn.functional.pad
    for key in inputs.keys() & {"input_ids", "attention_mask", "mm_token_type_ids",
                                "token_type_ids"}:  # fmt: skip
        inputs[key] = pad(inputs[key], (count, 0), value=3 if key == "input_ids" else 0)
    if "cross_attention_mask" in inputs:
        inputs["cross_attention_mask"] = pad(inputs["cross_attention_mask"], (0, 0, 0, 0, count, 0))
    length, image = prompt.spans.length + count, prompt.spans.image + count
    spans = replace(prompt.spans, length=length, image=image)
    places = prompt.image_positions + count
    return replace(prompt, inputs=inputs, spans=spans, image_positions=places)


@every_family
def test_runs_can_be_taken_apart_and_repeated(name: str) -> None:
    vlm, prompt = built(name)
    for run, image in enumerate(image_pair(WIDE)):
        alone = encode(vlm, [image], QUESTION)
        for key, value in prompt.select(run).inputs.items():
            assert torch.equal(value, alone.inputs[key]), key
    many = prompt.repeat(3)
    for run in range(6):
        for key, value in many.select(run).inputs.items():
            assert torch.equal(value, prompt.select(run % 2).inputs[key]), key
    logits = forward(vlm, many).logits
    torch.testing.assert_close(logits, forward(vlm, prompt).logits.repeat(3, 1), atol=2e-5, rtol=0)


@every_family
def test_the_prompt_is_what_the_processor_makes_of_it(name: str) -> None:
    vlm, prompt = built(name)
    tokens = vlm.processor.tokenizer.convert_ids_to_tokens(prompt.input_ids.tolist())
    assert tokens.count("<s>") == 1
    yes, no = vlm.processor.tokenizer.convert_ids_to_tokens([prompt.answers.yes, prompt.answers.no])
    after_line = name.startswith("paligemma")
    assert (yes, no) == (("Yes", "No") if after_line else ("▁Yes", "▁No"))
    assert tokens[-1] == ("\n" if after_line else "▁ASSISTANT:")
    assert "labels" not in prompt.inputs
    assert len(prompt.image_positions) == len(prompt.patches.boxes)


@pytest.mark.parametrize("name", DECODERS)
def test_heads_of_other_decoders_are_changed_exactly(name: str) -> None:
    vlm = builders.make(DECODERS[name]())
    found = measure(vlm, builders.prompt_of(vlm), ["question"])
    assert all(one.worst <= 2e-5 and one.largest >= 0.01 for one in found.edits.values())
    assert all(fast.exact and fast.worst <= 2e-5 for fast in found.fast.values())
    assert max(found.z.values()) <= 2e-5 and found.rows <= 1e-6


SQUASHED = {"llava (siglip)", "paligemma", "paligemma (2)", "gemma3", "idefics3", "smolvlm"}


@every_family
def test_pictures_of_two_shapes_are_refused_unless_cut_up_alike(name: str) -> None:
    """PaliGemma and others squash any picture to a square (Idefics3 these to 2 × 2 tiles)."""
    vlm, _ = built(name)
    images = [image_pair(TALL)[0], image_pair(WIDE)[0]]
    if name in SQUASHED or name == "mllama":
        assert encode(vlm, images, QUESTION).runs == 2
    else:
        with pytest.raises(InputError, match="--with, --without: the two pictures"):
            encode(vlm, images, QUESTION)


@every_family
def test_answers_in_words_are_the_models_own(name: str) -> None:
    vlm, prompt = builders.build(name), built(name)[1]
    words = generate(vlm, prompt, max_new_tokens=3)
    vlm.model.set_attn_implementation("sdpa" if name != "paligemma (2)" else "eager")
    plain = vlm.model.generate(**prompt.inputs, max_new_tokens=3, do_sample=False)
    decode = vlm.processor.tokenizer.decode
    rows = [row[prompt.spans.length :] for row in plain]
    assert words == [decode(row, skip_special_tokens=True).strip() for row in rows]


@every_family
def test_vision_layers_past_the_feature_layer_change_nothing(name: str) -> None:
    vlm, prompt = built(name)
    grid = vlm.stack("vision").grid
    last = grid.layers - 1
    assert vlm.feature_layer == (1 if name in ("llava", "vipllava", "llava_next") else last)
    heads = [head for head in grid if head.layer == last]
    base = run_pair(vlm, prompt, Keep(z=("vision",)))
    effects = [one.effect for one in patch(vlm, base, interventions(heads, "answer"))]
    unread = vlm.feature_layer < last
    assert (max(map(abs, effects)) < 1e-6) is unread  # rows of a batch round differently


@every_family
def test_what_the_towers_tokens_receive_is_what_eager_attention_gives_them(name: str) -> None:
    worst = measured(name).tower_rows
    assert worst is None if name == "mllama" else worst <= 1e-6


def test_edges_of_a_tower_that_sees_a_run_in_parts_cannot_be_cut() -> None:
    at = torch.tensor([0])
    for name in ("llava_next", "internvl", "mistral3", "qwen2_vl"):
        vlm, prompt = built(name)
        with pytest.raises(RunError, match="cannot be cut"):
            forward(vlm, prompt, cuts=[Cut(0, Head(0, 0, "vision"), at, at)])
    vlm, prompt = built("paligemma")
    forward(vlm, prompt, cuts=[Cut(0, Head(0, 0, "vision"), at, at)])


@pytest.mark.parametrize("name", ["s_aux", "sinks"])
def test_attention_with_sinks_is_refused(name: str) -> None:
    """sdpa would leave them out without a word."""
    x = torch.zeros(1, 2, 3, 4)
    with pytest.raises(RunError, match="sinks"):
        plain_attention(torch.nn.Identity(), x, x, x, None, **{name: torch.zeros(2)})
