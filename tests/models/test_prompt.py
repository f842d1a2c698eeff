"""From pictures and a question to a batch, through the real processor."""

from dataclasses import replace

import pytest
import torch

from headpatch.engine.forward import forward
from headpatch.errors import InputError
from headpatch.models.prompt import encode, image_token_id, prompt_text
from headpatch.models.vlm import VLM
from tests import refusals
from tests.tiny import (
    QUESTION,
    SHAPES,
    image_pair,
    noise_image,
    tiny_model,
    tiny_processor,
    tiny_prompt,
    tiny_vlm,
)

CHAT = f"USER: <image>\n{QUESTION} ASSISTANT:"


def refusal(vlm: VLM, **options: object) -> str:
    return refusals.refusal(encode, vlm, image_pair(), QUESTION, **options)


def tokens_of(vlm: VLM, ids: torch.Tensor) -> list[str]:
    return vlm.processor.tokenizer.convert_ids_to_tokens(ids.tolist())


@pytest.mark.parametrize("name", ["plain", "class-token-kept"])
def test_the_prompt_is_the_chat_template_with_one_token_a_patch(name: str) -> None:
    vlm = tiny_vlm(SHAPES[name])
    prompt = tiny_prompt(vlm)
    tokens = tokens_of(vlm, prompt.input_ids)
    kept = int(name == "class-token-kept")
    assert prompt.text == CHAT
    assert tokens[0] == "<s>"
    assert tokens.count("<s>") == 1
    assert tokens.count("<image>") == 16 + kept
    assert tokens[-1] == "▁ASSISTANT:"
    assert len(prompt.image_positions) == len(prompt.patches.boxes) == 16
    assert prompt.image_positions.tolist() == prompt.spans.image.tolist()[kept:]
    assert tokens_of(vlm, torch.tensor([prompt.answers.yes, prompt.answers.no])) == ["▁Yes", "▁No"]


def test_a_batch_holds_the_runs_in_order() -> None:
    vlm = tiny_vlm()
    with_image, without_image = image_pair()
    both = encode(vlm, [with_image, without_image], QUESTION)
    assert both.runs == 2
    for run, image in enumerate((with_image, without_image)):
        alone = encode(vlm, [image], QUESTION)
        for key, value in both.select(run).inputs.items():
            assert torch.equal(value, alone.inputs[key]), key
    assert not torch.equal(both.inputs["pixel_values"][0], both.inputs["pixel_values"][1])


def test_repeated_runs_alternate() -> None:
    prompt = tiny_prompt(tiny_vlm())
    many = prompt.repeat(3)
    assert many.runs == 6
    for run in range(6):
        for key, value in many.select(run).inputs.items():
            assert torch.equal(value, prompt.select(run % 2).inputs[key])


def test_a_template_replaces_the_chat() -> None:
    vlm = tiny_vlm()
    prompt = encode(vlm, image_pair(), QUESTION, framing="<image>\n{question}\n")
    assert prompt.text == f"<image>\n{QUESTION}\n"
    assert tokens_of(vlm, prompt.input_ids)[-1] == "\n"
    # After a line end the words stand bare, and so do their ids.
    assert tokens_of(vlm, torch.tensor([prompt.answers.yes, prompt.answers.no])) == ["Yes", "No"]


def test_a_question_may_hold_braces() -> None:
    text = prompt_text(tiny_vlm(), "Is {this} it?", "USER: <image>\n{question} ASSISTANT:")
    assert text == "USER: <image>\nIs {this} it? ASSISTANT:"


def test_a_template_with_the_first_token_does_not_get_it_twice() -> None:
    vlm = tiny_vlm()
    prompt = encode(vlm, image_pair(), QUESTION, framing="<s>USER: <image>\n{question} ASSISTANT:")
    assert tokens_of(vlm, prompt.input_ids).count("<s>") == 1


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16, torch.float64])
def test_a_prompt_runs_in_the_models_dtype(dtype: torch.dtype) -> None:
    vlm = tiny_vlm(dtype=dtype)
    prompt = tiny_prompt(vlm)
    assert prompt.inputs["input_ids"].dtype == torch.int64
    exact = forward(tiny_vlm(), tiny_prompt(tiny_vlm())).logits
    torch.testing.assert_close(forward(vlm, prompt).logits, exact, atol=0.2, rtol=0)


def test_a_processor_one_token_short_is_refused() -> None:
    """Without ``num_additional_image_tokens`` LLaVA's processor drops one patch too many."""
    processor = tiny_processor()
    processor.num_additional_image_tokens = 0
    message = refusal(replace(tiny_vlm(), processor=processor))
    assert "15 image tokens for 16 patches" in message
    assert "num_additional_image_tokens" in message


def test_pictures_of_two_sizes_need_the_same_number_of_tokens() -> None:
    vlm = tiny_vlm()
    encode(vlm, [noise_image(0, (80, 56)), noise_image(1, (160, 112))], QUESTION)  # cropped alike
    uncropped = replace(vlm, processor=tiny_processor(do_center_crop=False))
    with pytest.raises(InputError, match="different image tokens"):
        encode(uncropped, [noise_image(0), noise_image(1, (80, 56))], QUESTION)


def test_without_a_chat_template_one_is_asked_for() -> None:
    processor = tiny_processor()
    processor.chat_template = None
    vlm = replace(tiny_vlm(), processor=processor)
    message = refusal(vlm)
    assert "chat template" in message
    assert "`prompt`" in message
    prompt = encode(vlm, image_pair(), QUESTION, framing="USER: <image>\n{question} ASSISTANT:")
    assert tokens_of(vlm, torch.tensor([prompt.answers.yes])) == ["▁Yes"]


def test_a_model_without_an_image_token_is_refused() -> None:
    model = tiny_model()
    vlm = VLM(model, tiny_processor(), "tiny", "")
    assert image_token_id(vlm) == model.config.image_token_id
    model.config.image_token_id = None
    assert image_token_id(vlm) >= 0  # the processor's, as Chameleon's
    vlm.processor.image_token = None
    with pytest.raises(InputError, match="no image token"):
        image_token_id(vlm)
