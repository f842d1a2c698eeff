"""From a picture and a question to what the model's forward pass takes."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import groupby, takewhile
from typing import Any

import numpy as np
import torch
from jaxtyping import Int
from PIL import Image
from torch import Tensor

from headpatch.errors import InputError
from headpatch.models.answers import AnswerTokens, find_answers, text_after
from headpatch.models.layouts.measured import Measured
from headpatch.models.patches import Patches, Seen, locate
from headpatch.models.spans import Spans, find_spans
from headpatch.models.vlm import VLM
from headpatch.models.wording import continuations, image_token, image_token_id, prompt_text

A_VALUE_A_TOKEN = (
    "attention_mask", "token_type_ids", "mm_token_type_ids", "cross_attention_mask",
)  # fmt: skip
"""What processors give with a value for each token of ``input_ids``."""
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
    left_out
        Tokens that the tokenizer ends every text with, and that are not run: an end token stands
        where the answer starts.
    """

    inputs: dict[str, Tensor]
    runs: int
    spans: Spans
    patches: Patches
    image_positions: Tensor
    answers: AnswerTokens
    text: str
    left_out: tuple[str, ...] = ()

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
        return replace(self, inputs=inputs, runs=self.runs * times)

    def select(self, run: int) -> "Prompt":
        """Return one run of the batch."""
        inputs = {}
        for key, value in self.inputs.items():
            each = len(value) // self.runs
            inputs[key] = value[run * each : (run + 1) * each]
        return replace(self, inputs=inputs, runs=1)


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
        If the prompts differ in their tokens, hold no image token or do not end where the answer
        starts, the question is not in them once, or an answer is not one token.
    """
    text = prompt_text(vlm, question, template)
    before = text + vlm.family.suffix
    whole = [_encode_one(vlm, image, text) for image in images]
    extra = _appended(vlm, whole[0]["input_ids"][0].tolist(), before)
    encoded = [_without_last(one, len(extra)) for one in whole]
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
    words = find_answers(_tokenizer(vlm), before, continuations(vlm, question, answers, before))
    placed = ~np.isnan(patches.boxes[:, 0])
    positions = spans.image[torch.from_numpy(placed)]
    patches = replace(patches, boxes=patches.boxes[placed])
    left_out = tuple(_tokenizer(vlm).convert_ids_to_tokens(extra))
    return Prompt(inputs, len(images), spans, patches, positions, words, text, left_out)


def as_run(vlm: VLM, prompt: Prompt) -> str:
    """Return the text of a prompt's tokens, special ones too; ``<image>×144`` for 144 of them."""
    image, last, parts = image_token_id(vlm), image_token_id(vlm), []
    mark = _tokenizer(vlm).convert_ids_to_tokens(image)
    for is_image, group in groupby(prompt.input_ids.tolist(), lambda token: token == image):
        tokens = list(group)
        text = mark if is_image else text_after(_tokenizer(vlm), last, tokens)
        parts.append(f"{text}×{len(tokens)}" if is_image else text)
        last = tokens[-1]
    return "".join(parts)


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


def _tokenizer(vlm: VLM) -> Any:
    return vlm.processor.tokenizer


def _appended(vlm: VLM, ids: list[int], before: str) -> list[int]:
    """Return what the tokenizer has put behind the prompt, where the answer starts.

    Raises
    ------
    InputError
        If the prompt ends in something else that its text does not end in.
    """
    tokenizer, image = _tokenizer(vlm), image_token_id(vlm)
    plain = tokenizer(before, add_special_tokens=False)["input_ids"]
    mark = tokenizer.convert_tokens_to_ids(image_token(vlm))
    tail = list(takewhile(lambda token: token not in (image, mark), reversed(plain)))[1::-1]
    for extra in ([], _ending(tokenizer)):
        rest = ids[: len(ids) - len(extra)]
        if rest + extra == ids and tail and rest[-len(tail) :] == tail:
            return extra
    if not tail:  # the image comes last: what follows its tokens is the processor's affair
        extra = _ending(tokenizer)
        return extra if extra and ids[-len(extra) :] == extra else []
    ends, asked = (tokenizer.convert_ids_to_tokens(one) for one in (ids[-2:], tail))
    raise InputError(
        "--model",
        f"the processor of {vlm.name} ends the prompt in {ends}, where the answer should start",
        f"a prompt that ends as its text does, in {asked}",
        "See its tokenizer's post_processor, and padding in its processor's files.",
    )


def _ending(tokenizer: Any) -> list[int]:
    """Return the special tokens that a tokenizer ends every text with (``add_eos_token``)."""
    bare, whole = (
        tokenizer("x", add_special_tokens=special)["input_ids"] for special in (False, True)
    )
    places = (at for at in range(len(whole)) if whole[at : at + len(bare)] == bare)
    at = next(places, None)
    return [] if at is None else list(whole[at + len(bare) :])


def _without_last(inputs: dict[str, Tensor], count: int) -> dict[str, Tensor]:
    """Return the inputs without their last `count` tokens."""
    if not count:
        return inputs
    return {
        name: value[:, :-count] if name in ("input_ids", *A_VALUE_A_TOKEN) else value
        for name, value in inputs.items()
    }


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
