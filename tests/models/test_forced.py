"""An answer appended to the prompt is read as it was when the model said it itself."""

from typing import Any

import pytest
import torch

from headpatch.engine.answers import answer_ids, generate
from headpatch.engine.forward import forward
from headpatch.errors import InputError
from headpatch.models.prompt import Prompt, forced, spell
from headpatch.models.vlm import VLM
from tests.families import builders
from tests.planted import planted
from tests.tiny import SHAPES, tiny_prompt, tiny_vlm


def goes_on_by_itself(vlm: VLM, prompt: Prompt, tokens: int) -> None:
    for run, answer in enumerate(answer_ids(vlm, prompt, tokens)):
        for place, token in enumerate(answer):
            logits = forward(vlm, forced(vlm, prompt, answer[:place])).logits
            assert int(logits[run].argmax()) == token


@pytest.mark.parametrize("name", ["plain", "grouped-query", "class-token-kept"])
def test_a_forced_run_goes_on_as_it_did_by_itself(name: str) -> None:
    vlm = tiny_vlm(SHAPES[name])
    goes_on_by_itself(vlm, tiny_prompt(vlm), 5)


@pytest.mark.parametrize("name", builders.BUILDERS)
def test_every_family_reads_a_forced_answer_as_its_own(name: str) -> None:
    vlm = builders.build(name)
    goes_on_by_itself(vlm, builders.prompt_of(vlm), 3)


def test_the_answer_position_moves_and_the_image_stays() -> None:
    vlm = tiny_vlm()
    prompt = tiny_prompt(vlm)
    longer = forced(vlm, prompt, [7, 8])
    assert longer.spans.answer == prompt.spans.answer + 2
    assert torch.equal(longer.spans.image, prompt.spans.image)
    assert longer.inputs["input_ids"][:, -2:].tolist() == [[7, 8], [7, 8]]
    assert torch.equal(longer.inputs["input_ids"][:, :-2], prompt.inputs["input_ids"])
    assert longer.inputs["attention_mask"].shape == longer.inputs["input_ids"].shape
    assert longer.spans.positions("question")[-1] == longer.spans.answer
    assert forced(vlm, prompt, []) is prompt


def test_own_answers_stop_at_the_first_special_token() -> None:
    made = planted()
    yes, no = made.prompt.answers.yes, made.prompt.answers.no
    assert answer_ids(made.vlm, made.prompt) == [[yes], [no]]
    assert generate(made.vlm, made.prompt) == ["Yes", "No"]


def test_words_are_spelled_as_they_stand_after_the_prompt() -> None:
    made = planted()
    vlm, prompt = made.vlm, made.prompt
    assert spell(vlm, prompt, ("Yes", "No"), "Yes") == [prompt.answers.yes]
    assert spell(vlm, prompt, ("Yes", "No"), " No ") == [prompt.answers.no]
    ids = spell(vlm, prompt, ("Yes", "No"), "Yes there is")
    assert ids[0] == prompt.answers.yes
    tokenizer: Any = vlm.processor.tokenizer
    assert tokenizer.decode(ids) == "Yes there is"


@pytest.mark.parametrize(("text", "message"), [("  ", "an empty text"), ("Yes ☃", "unknown")])
def test_words_that_cannot_stand_there_are_refused(text: str, message: str) -> None:
    made = planted()
    with pytest.raises(InputError, match=message):
        spell(made.vlm, made.prompt, ("Yes", "No"), text)
