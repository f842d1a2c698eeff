"""From a picture and a question to what the model's forward pass takes."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from headpatch.errors import InputError
from headpatch.models.answers import AnswerTokens, find_answers
from headpatch.models.patches import Patches, patch_boxes
from headpatch.models.spans import Spans, find_spans
from headpatch.models.vlm import VLM


@dataclass(frozen=True, eq=False)
class Prompt:
    """One or more runs of one prompt, as a batch.

    Attributes
    ----------
    inputs
        Keyword arguments of the model's forward pass; every first dimension is runs × a fixed
        count, so that runs can be joined and repeated along it.
    runs
        Number of runs in the batch.
    spans, patches
        Where things are; the same for every run.
    image_positions
        Positions of the image tokens that stand for a patch (a class token, where one is kept,
        does not).
    answers
        The ids of Yes and No.
    text
        The prompt before image tokens are put in.
    """

    inputs: dict[str, Tensor]
    runs: int
    spans: Spans
    patches: Patches
    image_positions: Tensor
    answers: AnswerTokens
    text: str

    @property
    def input_ids(self) -> Tensor:
        """Shape ``[tokens]``."""
        return self.inputs["input_ids"][0]

    def repeat(self, times: int) -> "Prompt":
        """Return the batch `times` over."""
        inputs = {
            key: value.repeat(times, *[1] * (value.ndim - 1)) for key, value in self.inputs.items()
        }
        return self._replace(inputs, self.runs * times)

    def select(self, run: int) -> "Prompt":
        """Return one run of the batch."""
        inputs = {}
        for key, value in self.inputs.items():
            each = len(value) // self.runs
            inputs[key] = value[run * each : (run + 1) * each]
        return self._replace(inputs, 1)

    def _replace(self, inputs: dict[str, Tensor], runs: int) -> "Prompt":
        return Prompt(
            inputs, runs, self.spans, self.patches, self.image_positions, self.answers, self.text
        )


def encode(
    vlm: VLM,
    images: Sequence[Image.Image],
    question: str,
    answers: tuple[str, str] = ("Yes", "No"),
    template: str | None = None,
) -> Prompt:
    """Ask `question` of each picture; one run each.

    Parameters
    ----------
    images
        RGB pictures that give the model the same number of image tokens.
    answers
        The words for yes and no.
    template
        Overrides the processor's chat template; holds ``{question}`` and the image token.

    Raises
    ------
    InputError
        If the prompts differ in their tokens or hold no image token, or an answer is not one
        token.
    """
    text = prompt_text(vlm, question, template)
    encoded = [_encode_one(vlm, image, text) for image in images]
    first = encoded[0]
    for other in encoded[1:]:
        if not torch.equal(first["input_ids"], other["input_ids"]):
            raise InputError(
                "--with, --without",
                "the two pictures give different image tokens",
                "pictures of one size",
                "Resize them to the same width and height.",
            )
    inputs = {key: torch.cat([one[key] for one in encoded]).to(vlm.device) for key in first}
    for key, value in inputs.items():
        if value.is_floating_point():
            inputs[key] = value.to(vlm.dtype)
    spans = find_spans(first["input_ids"][0], image_token_id(vlm))
    patches = patch_boxes(vlm.processor.image_processor, images[0].size, _patch_side(vlm))
    extra = len(spans.image) - len(patches.boxes)
    if extra not in (0, 1):
        raise InputError(
            "--model",
            f"{len(spans.image)} image tokens for {len(patches.boxes)} patches",
            "one token a patch",
            "Its processor_config.json may lack num_additional_image_tokens.",
        )
    words = find_answers(_tokenizer(vlm), text, _continuations(vlm, question, answers, text))
    return Prompt(inputs, len(images), spans, patches, spans.image[extra:], words, text)


def prompt_text(vlm: VLM, question: str, template: str | None = None) -> str:
    """Return the prompt up to the answer, with one placeholder for the image."""
    if template is not None:
        if "{question}" not in template or _image_token(vlm) not in template:
            raise InputError(
                "prompt", repr(template), f"a text with {{question}} and {_image_token(vlm)}"
            )
        return template.replace("{question}", question)
    return _chat(vlm, question, None)


def image_token_id(vlm: VLM) -> int:
    """Return the id of the image token."""
    config: Any = vlm.model.config
    for name in ("image_token_id", "image_token_index"):
        if (found := getattr(config, name, None)) is not None:
            return int(found)
    raise InputError("--model", f"{vlm.name} has no image token", "a vision-language model")


def _tokenizer(vlm: VLM) -> Any:
    return vlm.processor.tokenizer


def _image_token(vlm: VLM) -> str:
    return str(_tokenizer(vlm).convert_ids_to_tokens(image_token_id(vlm)))


def _patch_side(vlm: VLM) -> int:
    return int(vlm.model.config.vision_config.patch_size)


def _encode_one(vlm: VLM, image: Image.Image, text: str) -> dict[str, Tensor]:
    processor: Any = vlm.processor
    bos = _tokenizer(vlm).bos_token
    try:
        batch = processor(
            images=[image],
            text=[text],
            return_tensors="pt",
            add_special_tokens=not (bos and text.startswith(bos)),
        )
    except (TypeError, ValueError) as error:
        raise InputError(
            "--model",
            f"{vlm.name}: its processor refuses the prompt ({error})",
            "a processor that fits the model",
        ) from error
    return dict(batch)


def _chat(vlm: VLM, question: str, answer: str | None) -> str:
    processor: Any = vlm.processor
    turns = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": question}]}]
    if answer is not None:
        turns.append({"role": "assistant", "content": [{"type": "text", "text": answer}]})
    try:
        return str(processor.apply_chat_template(turns, add_generation_prompt=answer is None))
    except (ValueError, AttributeError) as error:
        raise InputError(
            "--model",
            f"{vlm.name} has no chat template ({error})",
            "one in its processor",
            "Or set `prompt` in the study, such as 'USER: <image>\\n{question} ASSISTANT:'.",
        ) from None


def _continuations(
    vlm: VLM, question: str, answers: tuple[str, str], prompt: str
) -> tuple[str, str]:
    """How each answer follows the prompt, by the chat template, or after one space."""
    found = []
    for word in answers:
        gap = "" if prompt[-1:].isspace() else " "
        if getattr(vlm.processor, "chat_template", None):
            whole = _chat(vlm, question, word)
            if whole.startswith(prompt) and word in whole[len(prompt) :]:
                gap = whole[len(prompt) :].partition(word)[0]
        found.append(gap + word)
    return found[0], found[1]
