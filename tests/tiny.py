"""Tiny LLaVAs of real classes with random weights, and prompts for them.

The weights are drawn large enough that changing one head moves LD by about 0.01 to 1: a mistake
anywhere is then far above the tolerances of the tests.
"""

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw
from transformers import (
    CLIPImageProcessorPil,
    CLIPVisionConfig,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaProcessor,
    PreTrainedTokenizerFast,
)

from headpatch.engine.forward import Keep
from headpatch.engine.patching import Baseline, run_pair
from headpatch.engine.widen import suffix_start
from headpatch.heads import Tower
from headpatch.kinds import KINDS
from headpatch.models.prompt import Prompt, encode
from headpatch.models.spans import Positions
from headpatch.models.vlm import VLM
from tests.tokens import llama_like

PLAIN = tuple(name for name, kind in KINDS.items() if not (kind.alpha or kind.donated))
"""Kinds without a factor."""
QUESTION = "Is there anything in the top left corner?"
SIDE, PATCH = 56, 14  # 4 × 4 patches

CHAT_TEMPLATE = (
    "{% for message in messages %}{{ message['role'] | upper }}: "
    "{% for part in message['content'] if part['type'] == 'image' %}<image>\n{% endfor %}"
    "{% for part in message['content'] if part['type'] == 'text' %}{{ part['text'] }}{% endfor %}"
    "{{ '</s>' if message['role'] == 'assistant' else ' ' }}{% endfor %}"
    "{% if add_generation_prompt %}ASSISTANT:{% endif %}"
)

_CORPUS = (
    f"USER: \n{QUESTION} ASSISTANT: Yes",
    f"USER: \n{QUESTION} ASSISTANT: No",
    "USER: \nWhat is it?\nYes",
    "USER: \nWhat is it?\nNo",
)


@dataclass(frozen=True)
class Shape:
    """What is varied from one tiny model to the next."""

    layers: int = 3
    hidden: int = 32
    heads: int = 4
    kv_heads: int = 4
    head_dim: int = 8
    vision_layers: int = 3
    vision_hidden: int = 24
    vision_heads: int = 3
    select: str = "default"  # "full" keeps the class token as an image token


SHAPES = {
    "plain": Shape(),
    "grouped-query": Shape(kv_heads=2),
    "multi-query": Shape(kv_heads=1, layers=2),
    "wide-heads": Shape(head_dim=12),  # heads × head_dim = 48, hidden 32
    "grouped-narrow-heads": Shape(kv_heads=2, head_dim=4, layers=2),
    "deep-vision": Shape(vision_layers=4, vision_hidden=40, vision_heads=5, layers=2),
    "class-token-kept": Shape(select="full", layers=2),
}
every_shape = pytest.mark.parametrize("shape", SHAPES)


@lru_cache
def tiny_tokenizer() -> PreTrainedTokenizerFast:
    return PreTrainedTokenizerFast(
        tokenizer_object=llama_like(_CORPUS, 400, ["<image>"]),
        bos_token="<s>",
        eos_token="</s>",
        unk_token="<unk>",
        pad_token="<pad>",
        extra_special_tokens={"image_token": "<image>"},
        padding_side="left",
        clean_up_tokenization_spaces=False,
    )


def tiny_processor(select: str = "default", **image_options: object) -> LlavaProcessor:
    """A real processor, of LLaVA-1.5's form."""
    sizes = {"size": {"shortest_edge": SIDE}, "crop_size": {"height": SIDE, "width": SIDE}}
    images = CLIPImageProcessorPil(**(sizes | image_options))
    return LlavaProcessor(
        image_processor=images,
        tokenizer=tiny_tokenizer(),
        patch_size=PATCH,
        vision_feature_select_strategy=select,
        num_additional_image_tokens=1,
        chat_template=CHAT_TEMPLATE,
    )


def tiny_config(
    shape: Shape = SHAPES["plain"], mlp: tuple[int, int] = (48, 40), **text_options: object
) -> LlavaConfig:
    """`mlp` are the widths of the MLPs, of the language model and of the tower."""
    tokenizer = tiny_tokenizer()
    text = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=shape.hidden,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        num_key_value_heads=shape.kv_heads,
        head_dim=shape.head_dim,
        intermediate_size=mlp[0],
        initializer_range=0.2,
        max_position_embeddings=256,
        bos_token_id=1,
        eos_token_id=2,
        pad_token_id=3,
        **text_options,
    )
    vision = CLIPVisionConfig(
        hidden_size=shape.vision_hidden,
        num_hidden_layers=shape.vision_layers,
        num_attention_heads=shape.vision_heads,
        intermediate_size=mlp[1],
        image_size=SIDE,
        patch_size=PATCH,
        projection_dim=16,
        initializer_factor=2.0,
        initializer_range=0.05,
    )
    return LlavaConfig(
        vision_config=vision,
        text_config=text,
        vision_feature_layer=-2,
        image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
        vision_feature_select_strategy=shape.select,
        tie_word_embeddings=False,
        initializer_range=0.2,
    )


def tiny_model(
    shape: Shape = SHAPES["plain"], seed: int = 0, dtype: torch.dtype = torch.float32
) -> LlavaForConditionalGeneration:
    with torch.random.fork_rng(devices=()):
        torch.manual_seed(seed)
        model = LlavaForConditionalGeneration(tiny_config(shape))
    return model.to(dtype).eval().requires_grad_(False)


def tiny_vlm(
    shape: Shape = SHAPES["plain"], seed: int = 0, dtype: torch.dtype = torch.float32
) -> VLM:
    return VLM(tiny_model(shape, seed, dtype), tiny_processor(shape.select), "tiny", f"seed:{seed}")


def noise_image(seed: int, size: tuple[int, int] = (SIDE, SIDE)) -> Image.Image:
    pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    return Image.fromarray(pixels)


def image_pair(size: tuple[int, int] = (SIDE, SIDE)) -> tuple[Image.Image, Image.Image]:
    """A noisy picture with a white block at the top left, and the same without."""
    without = noise_image(0, size)
    with_object = without.copy()
    ImageDraw.Draw(with_object).rectangle((0, 0, size[0] // 3, size[1] // 3), fill="white")
    return with_object, without


def tiny_prompt(vlm: VLM, question: str = QUESTION) -> Prompt:
    """Both runs of a pair, through the real processor."""
    return encode(vlm, image_pair(), question)


@lru_cache
def tiny_pair(
    shape: str = "plain",
    *z: Tower,
    suffix: int | Positions | None = None,
    rows: bool = False,
    dtype: torch.dtype = torch.float32,
    exact: bool = False,
) -> tuple[VLM, Baseline]:
    """A model and both its runs, for all tests that leave them as they are.

    `suffix` is the first position whose states are kept, or the scope that decides it.
    """
    vlm = tiny_vlm(SHAPES[shape], dtype=dtype)
    prompt = tiny_prompt(vlm)
    start = suffix_start(prompt.spans, suffix) if isinstance(suffix, str) else suffix
    keep = Keep(lm_rows=rows, z=z, suffix=start)
    return vlm, run_pair(vlm, prompt, keep, exact=exact)


def pad_left(prompt: Prompt, count: int, pad_id: int = 3) -> dict[str, torch.Tensor]:
    """The inputs of `prompt` with `count` padding tokens before each row."""
    ids, mask = prompt.inputs["input_ids"], prompt.inputs["attention_mask"]
    return {
        **prompt.inputs,
        "input_ids": torch.cat([ids.new_full((len(ids), count), pad_id), ids], 1),
        "attention_mask": torch.cat([mask.new_zeros(len(ids), count), mask], 1),
    }


def save_tiny(folder: Path, shape: Shape = SHAPES["plain"], seed: int = 0) -> Path:
    """Write a folder that `headpatch.models.load.load` reads like any other model."""
    tiny_model(shape, seed).save_pretrained(folder)
    tiny_processor(shape.select).save_pretrained(folder)
    return folder
