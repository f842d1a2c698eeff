"""The greedy answer is the likeliest word by the model's own logits, whatever a checkpoint asks."""

from typing import Any

import pytest
import torch
from transformers import GenerationConfig

from headpatch.engine.answers import answer_ids, generate
from headpatch.engine.forward import forward
from headpatch.models.prompt import forced
from tests.tiny import tiny_prompt, tiny_vlm

LENGTH = 4
IDS = {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}


@pytest.mark.parametrize(
    "asked",
    [
        {"repetition_penalty": 5.0},
        {"no_repeat_ngram_size": 1},
        {"suppress_tokens": "the likeliest"},
        {"begin_suppress_tokens": "the likeliest"},
        {"forced_bos_token_id": 7},
        {"forced_eos_token_id": 7},
        {"sequence_bias": [[[9], 100.0]]},
        {"num_beams": 3, "length_penalty": 2.0},
        {"do_sample": True, "temperature": 3.0, "top_k": 5},
    ],
    ids=lambda asked: next(iter(asked)),
)
def test_answers_are_greedy_by_the_models_own_logits(asked: dict[str, Any]) -> None:
    vlm = tiny_vlm()
    prompt = tiny_prompt(vlm)
    first = forward(vlm, prompt).logits.argmax(-1).tolist()
    asked = {key: first if value == "the likeliest" else value for key, value in asked.items()}
    given = GenerationConfig(**IDS, **asked)
    vlm.model.generation_config = given
    found = answer_ids(vlm, prompt, LENGTH)
    assert vlm.model.generation_config is given
    words = generate(vlm, prompt, LENGTH)
    for run, ids in enumerate(found):
        assert ids
        for index, token in enumerate(ids):
            said = forced(vlm, prompt.select(run), ids[:index])
            assert token == int(forward(vlm, said).logits.argmax(-1))
        assert words[run].startswith(vlm.processor.tokenizer.decode(ids[:1]).strip())


def test_the_configs_own_end_still_ends_an_answer() -> None:
    vlm = tiny_vlm()
    prompt = tiny_prompt(vlm)
    ends = forward(vlm, prompt).logits.argmax(-1).tolist()
    vlm.model.generation_config = GenerationConfig(**{**IDS, "eos_token_id": ends})
    assert answer_ids(vlm, prompt, LENGTH) == [[], []]
    assert torch.is_grad_enabled()
