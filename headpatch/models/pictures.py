"""A prompt's pictures: which tokens are of the one in question, and where they lie in it."""

from dataclasses import replace
from typing import Any, TypeAlias

from PIL import Image
from torch import Tensor

from headpatch.errors import InputError
from headpatch.models.measured import Measured
from headpatch.models.patches import Patches, Seen, locate
from headpatch.models.processing import encode_one
from headpatch.models.reach import image_tokens
from headpatch.models.seen import pixel_name
from headpatch.models.spans import Spans
from headpatch.models.vlm import VLM
from headpatch.models.wording import image_token_id, prompt_text
from headpatch.pairs.framing import Framing

Shown: TypeAlias = tuple[Image.Image, dict[str, Tensor], str]
"""A picture, what the model takes of it, and the prompt's text."""


def alone(vlm: VLM, image: Image.Image, question: str, framing: Framing) -> Shown:
    """Ask of a picture without the others: where its tokens lie in it is found there."""
    text = prompt_text(vlm, question, framing.alone)
    return image, encode_one(vlm, [image], text), text


def last_picture(
    vlm: VLM, spans: Spans, own: dict[str, Tensor], framing: Framing, question: str
) -> Spans:
    """Return spans whose image is the last picture alone; `own` is what the model takes of it.

    An `InputError` if the processor gives several pictures other tokens than each by itself.
    """
    each = [alone(vlm, one, question, framing)[1] for one in framing.pictures]
    counts = [int((one["input_ids"] == image_token_id(vlm)).sum()) for one in (*each, own)]
    if sum(counts) != len(spans.image) or spans.crossed:
        found = f"{vlm.name} gives {len(counts)} pictures {len(spans.image)} image tokens together"
        expected = f"{sum(counts)}, as many as each by itself"
        raise InputError("context_images", found, expected, "Ask of one picture.")
    return replace(spans, image=spans.image[-counts[-1] :])


def located(
    vlm: VLM, image: Image.Image, inputs: dict[str, Tensor], text: str, tokens: int
) -> Patches:
    """Find the places in a picture of its so many image tokens."""
    seen = seen_by(vlm, image, inputs, text, tokens)
    return locate(vlm.family.layout, seen, vlm.processor)


def seen_by(
    vlm: VLM, image: Image.Image, inputs: dict[str, Tensor], text: str, tokens: int
) -> Seen:
    """Return a picture as the model is shown it."""
    processor: Any = vlm.processor
    name = pixel_name(inputs)
    measured = Measured(lambda one: encode_one(vlm, [one], text)[name], image.size)
    image_at = (inputs["input_ids"][0] == image_token_id(vlm)).nonzero().flatten()

    def features(pixels: Tensor) -> Tensor:
        return image_tokens(vlm, {**inputs, name: pixels}, image_at)

    shown = processor.image_processor, vlm.model.config, inputs, tokens, measured, features
    return Seen(image, *shown)
