"""What a model's processor makes of a picture and the text of a prompt, or why it refuses them."""

from collections.abc import Sequence
from typing import Any, Final

import torch
from PIL import Image
from torch import Tensor

from headpatch.errors import InputError
from headpatch.models.vlm import VLM

PICTURES: Final = "--with, --without"
"""What is wrong where a picture is: a pair's row is then refused, and the others run."""
_REFUSALS = (ArithmeticError, LookupError, RuntimeError, TypeError, ValueError)
_PLAIN = (224, 224)  # pixels of a picture that every processor takes


def encode_one(vlm: VLM, images: Sequence[Image.Image], text: str) -> dict[str, Tensor]:
    """Return what the model takes of a prompt and its pictures, the last the one in question.

    Without a second token of beginning.
    """
    tokenizer: Any = vlm.processor.tokenizer
    bos = tokenizer.bos_token
    batch = _process(vlm, images, text, add=not (bos and text.startswith(bos)))
    start = batch["input_ids"][0, :2].tolist()
    if bos and start == [tokenizer.bos_token_id] * 2:  # the processor has put it there too
        batch = _process(vlm, images, text, add=False)
    batch.pop("labels", None)  # PaliGemma's: the loss would be computed
    return {key: value for key, value in batch.items() if torch.is_tensor(value)}


def _process(vlm: VLM, images: Sequence[Image.Image], text: str, add: bool) -> dict[str, Any]:
    processor: Any = vlm.processor
    *context, image = images

    def made(shown: Image.Image) -> dict[str, Any]:
        how = {"return_tensors": "pt", "add_special_tokens": add}
        return dict(processor(images=[*context, shown], text=[text], **how))

    try:
        return made(image)
    except _REFUSALS as error:
        said = " ".join(str(error).split()) or type(error).__name__
        try:
            made(Image.new("RGB", _PLAIN))  # is it the picture, or the prompt?
        except _REFUSALS:
            found = f"{vlm.name}: its processor refuses the prompt ({said})"
            raise InputError("--model", found, "a processor that fits the model") from error
        found = f"the processor refuses a picture of {image.width}x{image.height} pixels ({said})"
        raise InputError(PICTURES, found, "a picture that it takes", "Crop or pad it.") from error
