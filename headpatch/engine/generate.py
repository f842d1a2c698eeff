"""The model's own answer, in words."""

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import takewhile

import torch
from transformers import GenerationConfig

from headpatch.engine.attention import tapped
from headpatch.models.prompt import Prompt
from headpatch.models.vlm import VLM

_SPECIAL = ("bos_token_id", "eos_token_id", "pad_token_id")


@torch.no_grad()
def generate(vlm: VLM, prompt: Prompt, max_new_tokens: int = 32) -> list[str]:
    """Return each run's greedy answer, without special tokens."""
    return [decode(vlm, row) for row in _generate(vlm, prompt, max_new_tokens)]


def answer_ids(vlm: VLM, prompt: Prompt, max_new_tokens: int = 32) -> list[list[int]]:
    """Return the tokens of each run's greedy answer, up to the first special one."""
    special = {*vlm.processor.tokenizer.all_special_ids, *_ends(vlm)}
    return [
        list(takewhile(lambda token: token not in special, row))
        for row in _generate(vlm, prompt, max_new_tokens)
    ]


def _generate(vlm: VLM, prompt: Prompt, max_new_tokens: int) -> list[list[int]]:
    with tapped(vlm.parts, {}), _unprocessed(vlm):
        ids = vlm.model.generate(
            **prompt.inputs, max_new_tokens=max_new_tokens, do_sample=False, num_beams=1
        )
    return [row[prompt.spans.length :].tolist() for row in ids]


@contextmanager
def _unprocessed(vlm: VLM) -> Iterator[None]:
    """Let each word be the likeliest by the model's own logits, in which heads are measured.

    A checkpoint's generation config may punish repetition, suppress tokens or force some. Of it,
    only the ids of special tokens are kept.
    """
    model, given = vlm.model, vlm.model.generation_config
    model.generation_config = GenerationConfig(
        **{name: getattr(given, name, None) for name in _SPECIAL}
    )
    try:
        yield
    finally:
        model.generation_config = given


def _ends(vlm: VLM) -> list[int]:
    """Tokens at which the model stops."""
    found = vlm.model.generation_config.eos_token_id
    return [] if found is None else [found] if isinstance(found, int) else list(found)


def decode(vlm: VLM, ids: list[int]) -> str:
    """Return token ids as text, without special tokens."""
    return str(vlm.processor.tokenizer.decode(ids, skip_special_tokens=True)).strip()
