"""The families whose processors need torchvision, with these processors, loaded from a folder.

`builders` puts others in their place, so that the engine is tested without torchvision. Here a
model and its real processor are saved and loaded as a user's are. Skipped where torchvision (or
num2words, for SmolVLM) is not installed; ``pip install 'headpatch[vision]'`` installs both.
"""

from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers as hf

from headpatch.engine.forward import Keep
from headpatch.engine.patching import run_pair
from headpatch.engine.widen import suffix_start, widen
from headpatch.heads import Head
from headpatch.models.families import FAMILIES
from headpatch.models.load import load
from tests.engine.oracle import Change, Oracle
from tests.families import builders
from tests.families.builders import chat, tokenizer
from tests.families.measure import interventions

NAMES = [name for name, family in FAMILIES.items() if family.needs]


def llava_onevision() -> Any:
    stand_in = builders.llava_onevision().processor
    images = hf.LlavaOnevisionImageProcessor(
        size={"height": 60, "width": 60},
        image_grid_pinpoints=stand_in.image_processor.image_grid_pinpoints,
    )
    return hf.LlavaOnevisionProcessor(
        images, tokenizer(), hf.LlavaOnevisionVideoProcessor(), num_image_tokens=16,
        vision_feature_select_strategy="full", vision_aspect_ratio="anyres_max_9",
        chat_template=chat("<image>"),
    )  # fmt: skip


def _qwen(processor: str, videos: str, patch: int) -> Any:
    pixels = (2 * patch) ** 2
    images = hf.Qwen2VLImageProcessor(
        patch_size=patch, size={"shortest_edge": pixels, "longest_edge": 12 * pixels}
    )
    kind, videos = getattr(hf, processor), getattr(hf, videos)
    return kind(images, tokenizer(), videos(), chat_template=chat("<image>"))


def smolvlm() -> Any:
    images = hf.SmolVLMImageProcessor(
        size={"longest_edge": 112}, max_image_size={"longest_edge": 56}
    )
    videos = hf.SmolVLMVideoProcessor(size={"longest_edge": 112})
    return hf.SmolVLMProcessor(
        images, tokenizer(), videos, image_seq_len=4, chat_template=chat("<image>")
    )


def internvl() -> Any:
    marks = ("start_image_token", "end_image_token", "context_image_token", "video_token")
    images = hf.GotOcr2ImageProcessor(
        size={"height": 56, "width": 56}, min_patches=1, max_patches=4
    )
    return hf.InternVLProcessor(
        images, tokenizer(marks), hf.InternVLVideoProcessor(), image_seq_length=4,
        chat_template=chat("<IMG_CONTEXT>"),
    )  # fmt: skip


def mistral3() -> Any:
    images = hf.PixtralImageProcessor(
        size={"longest_edge": 112}, patch_size={"height": 14, "width": 14}
    )
    return hf.PixtralProcessor(
        images, tokenizer(), patch_size=14, spatial_merge_size=2, chat_template=chat("[IMG]"),
        image_token="[IMG]", image_break_token="[IMG_BREAK]", image_end_token="[IMG_END]",
    )  # fmt: skip


REAL: dict[str, Callable[[], Any]] = {
    "llava_onevision": llava_onevision,
    "qwen2_vl": lambda: _qwen("Qwen2VLProcessor", "Qwen2VLVideoProcessor", 14),
    "qwen2_5_vl": lambda: _qwen("Qwen2_5_VLProcessor", "Qwen2VLVideoProcessor", 14),
    "qwen3_vl": lambda: _qwen("Qwen3VLProcessor", "Qwen3VLVideoProcessor", 16),
    "smolvlm": smolvlm,
    "internvl": internvl,
    "mistral3": mistral3,
}


def test_every_family_that_needs_more_has_its_processor_here() -> None:
    assert set(REAL) == set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_a_saved_model_with_its_real_processor(name: str, tmp_path: Path) -> None:
    missing = [package for package in FAMILIES[name].needs if find_spec(package) is None]
    if missing:
        pytest.skip(f"its processor needs {' and '.join(missing)}")
    made = builders.build(name)
    made.model.save_pretrained(tmp_path)
    REAL[name]().save_pretrained(tmp_path)
    vlm = load(str(tmp_path), device="cpu")
    prompt, stand_in = builders.prompt_of(vlm), builders.prompt_of(made)
    assert torch.equal(prompt.input_ids, stand_in.input_ids)
    assert prompt.patches.grid == stand_in.patches.grid
    assert vlm.image_processor == type(vlm.processor.image_processor).__name__
    oracle, head = Oracle(vlm), Head(1, 2)
    base = run_pair(vlm, prompt, Keep(z=("lm",), suffix=suffix_start(prompt.spans, "answer")))
    asked = [one for one in interventions([head], "answer") if one.kind == "zero"]
    last = [prompt.spans.length - 1]
    for one, outcome in zip(asked, widen(vlm, base, asked), strict=True):
        inputs = prompt.select(int(one.direction == "denoising")).inputs
        before, after = oracle.logits(inputs), oracle.logits(inputs, [Change(head, last, None)])
        change = (after - before)[0]
        expected = float(change[prompt.answers.yes] - change[prompt.answers.no])
        assert outcome.effect == pytest.approx(expected, abs=2e-5)
