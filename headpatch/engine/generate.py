"""The model's own answer, in words."""

import torch

from headpatch.engine.attention import tapped
from headpatch.models.prompt import Prompt
from headpatch.models.vlm import VLM


@torch.no_grad()
def generate(vlm: VLM, prompt: Prompt, max_new_tokens: int = 32) -> list[str]:
    """Return each run's greedy answer, without special tokens."""
    with tapped(vlm.model, {}):
        ids = vlm.model.generate(
            **prompt.inputs, max_new_tokens=max_new_tokens, do_sample=False, num_beams=1
        )
    return [decode(vlm, row[prompt.spans.length :].tolist()) for row in ids]


def decode(vlm: VLM, ids: list[int]) -> str:
    """Return token ids as text, without special tokens."""
    return str(vlm.processor.tokenizer.decode(ids, skip_special_tokens=True)).strip()
