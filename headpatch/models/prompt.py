"""From a picture and a question to what the model's forward pass takes."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from jaxtyping import Int
from PIL import Image
from torch import Tensor

from headpatch.errors import InputError
from headpatch.models.answers import AnswerTokens, find_answers
from headpatch.models.layouts.measured import Measured
from headpatch.models.patches import Patches, Seen, locate
from headpatch.models.rendering import TemplateFailed, render
from headpatch.models.spans import Spans, find_spans
from headpatch.models.vlm import VLM

_CLOSE = 0.02  # by how much of a side the patches of pictures of two sizes may lie apart


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
        Where things are; the same for every run. A patch for each of `image_positions`.
    image_positions
        Positions of the image tokens that stand for a place: not a class token, where one is
        kept, nor tokens that end a line of patches, nor tokens of padding alone.
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

    def placed_in(self, tokens: int) -> Int[Tensor, " placed"]:
        """Return which of a vision tower's tokens stand for a place, in the order of `patches`.

        Where the tower sees the picture patch for patch as the language model does: its tokens are
        the image's, perhaps after a class token that one of the two leaves out.

        Parameters
        ----------
        tokens
            Of the tower, in one run.
        """
        placed = torch.isin(self.spans.image.cpu(), self.image_positions.cpu())
        return placed.nonzero().flatten() + tokens - len(placed)

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
        Overrides the processor's chat template; holds ``{question}`` and the image token. A
        backslash and an n stand for a line end.

    Raises
    ------
    InputError
        If the prompts differ in their tokens or hold no image token, or an answer is not one
        token.
    """
    text = prompt_text(vlm, question, template)
    encoded = [_encode_one(vlm, image, text) for image in images]
    first, *others = encoded
    if not all(_same_shape(first, other) for other in others):
        raise _unlike("give different image tokens")
    family = vlm.family
    spans = find_spans(first["input_ids"][0], image_token_id(vlm), family.crossed, family.both_ways)
    patches, *rest = (
        _locate(vlm, image, one, text, len(spans.image))
        for image, one in zip(images, encoded, strict=True)
    )
    if not all(_alike(patches, other) for other in rest):
        raise _unlike("are cut up differently")
    inputs = {key: torch.cat([one[key] for one in encoded]).to(vlm.device) for key in first}
    before = text + vlm.family.suffix
    words = find_answers(_tokenizer(vlm), before, _continuations(vlm, question, answers, before))
    placed = ~np.isnan(patches.boxes[:, 0])
    positions = spans.image[torch.from_numpy(placed)]
    patches = replace(patches, boxes=patches.boxes[placed])
    return Prompt(inputs, len(images), spans, patches, positions, words, text)


def _unlike(what: str) -> InputError:
    return InputError(
        "--with, --without",
        f"the two pictures {what}",
        "pictures of one size",
        "Resize them to the same width and height.",
    )


def _same_shape(first: dict[str, Tensor], second: dict[str, Tensor]) -> bool:
    return torch.equal(first["input_ids"], second["input_ids"]) and all(
        second[key].shape == value.shape for key, value in first.items()
    )


def _locate(
    vlm: VLM, image: Image.Image, inputs: dict[str, Tensor], text: str, tokens: int
) -> Patches:
    processor: Any = vlm.processor

    def process(picture: Image.Image) -> Tensor:
        return _encode_one(vlm, picture, text)["pixel_values"]

    measured = Measured(process, image.size)
    seen = Seen(image, processor.image_processor, vlm.model.config, inputs, tokens, measured)
    return locate(vlm.family.layout, seen, processor)


def _alike(first: Patches, second: Patches) -> bool:
    """Whether two pictures' patches lie in about the same places."""
    return first.grid == second.grid and np.allclose(
        first.boxes, second.boxes, atol=_CLOSE, equal_nan=True
    )


def prompt_text(vlm: VLM, question: str, template: str | None = None) -> str:
    """Return the prompt up to the answer, with one placeholder for the image."""
    if template is None and not getattr(vlm.processor, "chat_template", None):
        template = vlm.family.template
    if _image_token(vlm) in question:
        raise InputError(
            "--question", f"it holds the image token {_image_token(vlm)}", "words alone"
        )
    if template is not None:
        if "{question}" not in template or _image_token(vlm) not in template:
            raise InputError(
                "prompt", repr(template), f"a text with {{question}} and {_image_token(vlm)}"
            )
        return template.replace(r"\n", "\n").replace("{question}", question)
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
    """What stands for the image in a text; the processor puts the image tokens there."""
    mark = getattr(vlm.processor, "image_token", None)
    return str(mark or _tokenizer(vlm).convert_ids_to_tokens(image_token_id(vlm)))


def _encode_one(vlm: VLM, image: Image.Image, text: str) -> dict[str, Tensor]:
    bos = _tokenizer(vlm).bos_token
    batch = _process(vlm, image, text, add=not (bos and text.startswith(bos)))
    start = batch["input_ids"][0, :2].tolist()
    if bos and start == [_tokenizer(vlm).bos_token_id] * 2:  # the processor has put it there too
        batch = _process(vlm, image, text, add=False)
    unused = ("labels",)  # PaliGemma's: the loss would be computed
    return {
        key: value for key, value in batch.items() if torch.is_tensor(value) and key not in unused
    }


def _process(vlm: VLM, image: Image.Image, text: str, add: bool) -> dict[str, Any]:
    processor: Any = vlm.processor
    try:
        batch = processor(images=[image], text=[text], return_tensors="pt", add_special_tokens=add)
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
        return render(processor, turns, add_generation_prompt=answer is None)
    except TemplateFailed as error:
        raise InputError(
            "--model",
            f"{vlm.name} has no chat template that works ({error})",
            "one in its processor",
            r"""Or set `prompt` in the study, such as "USER: <image>\n{question} ASSISTANT:".""",
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
