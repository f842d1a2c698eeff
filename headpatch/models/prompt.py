"""From a picture and a question to what the model's forward pass takes."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from typing import Any

import numpy as np
import torch
from jaxtyping import Int
from PIL import Image
from torch import Tensor

from headpatch.errors import InputError
from headpatch.models.patches import Patches
from headpatch.models.pictures import alone, last_picture, located
from headpatch.models.processing import PICTURES, encode_one
from headpatch.models.spans import Spans, find_spans, partners
from headpatch.models.vlm import VLM
from headpatch.models.wording import (
    AnswerTokens,
    appended,
    continuations,
    find_answers,
    ids_of,
    image_token,
    image_token_id,
    prompt_text,
    text_after,
    with_variants,
)
from headpatch.pairs.framing import Framing

# what processors give with a value for each token of ``input_ids``
A_VALUE_A_TOKEN = ("attention_mask", "token_type_ids", "mm_token_type_ids", "cross_attention_mask")
OF_TOKENS = frozenset({"input_ids", *A_VALUE_A_TOKEN})
_CLOSE = 0.02  # by how much of a side the patches of pictures of two sizes may lie apart
_TEXT_TYPE = {"paligemma": 1}  # tokens of type 0 are a prefix that is read in both directions
_GAPS = (" ", "", "\n", "\n\n")
_OTHER = "question_without"  # what the run without the object is asked, if something else


@dataclass(frozen=True, eq=False)
class Prompt:
    """One or more runs, as a batch: of one prompt, or of prompts that differ in a question."""

    # The forward pass's keyword arguments; every first dimension is runs × a fixed count, so that
    # runs can be joined and repeated along it.
    inputs: dict[str, Tensor]
    runs: int  # number of runs in the batch
    spans: Spans
    # where things are; the same for every run; a patch for each of `image_positions`
    patches: Patches
    # Of image tokens that stand for a place: not a class token, where one is kept, nor tokens that
    # end a line of patches, nor tokens of padding alone.
    image_positions: Tensor
    answers: AnswerTokens  # the ids of Yes and No
    text: str  # the prompt before image tokens are put in; of the first run, if they differ
    # Tokens that the tokenizer ends every text with, and that are not run: an end token stands
    # where the answer starts.
    left_out: tuple[str, ...] = ()
    # Each run's own, where their questions are of several lengths: they are then no batch, and
    # `inputs` and `spans` are those of the first.
    each: tuple["Prompt", ...] = ()

    @property
    def input_ids(self) -> Tensor:
        """Those of the first run, shape ``[tokens]``."""
        return self.inputs["input_ids"][0]

    def placed_in(self, tokens: int) -> Int[Tensor, " placed"]:
        """Return which of a tower's tokens in one run stand for a place, in `patches`' order.

        Where the tower sees the picture patch for patch as the language model does: its tokens are
        the image's, perhaps after a class token that one of the two leaves out.
        """
        placed = torch.isin(self.spans.image.cpu(), self.image_positions.cpu())
        return placed.nonzero().flatten() + tokens - len(placed)

    def partners(self, run: int) -> Int[Tensor, " tokens"]:
        """Return `headpatch.models.spans.partners` of a run, where `each` has its own."""
        return partners(*(self.each[one].input_ids for one in (run, 1 - run)))

    def repeat(self, times: int) -> "Prompt":
        """Return the batch `times` over."""
        inputs = {
            key: value.repeat(times, *[1] * (value.ndim - 1)) for key, value in self.inputs.items()
        }
        return replace(self, inputs=inputs, runs=self.runs * times)

    def select(self, run: int) -> "Prompt":
        """Return one run of the batch."""
        if self.each:
            return self.each[run]
        inputs = {key: value.tensor_split(self.runs)[run] for key, value in self.inputs.items()}
        return replace(self, inputs=inputs, runs=1)


def encode(
    vlm: VLM,
    images: Sequence[Image.Image],
    question: str | Sequence[str],
    answers: tuple[str, str] = ("Yes", "No"),
    framing: str | Framing | None = None,
    sum_variants: bool = False,
) -> Prompt:
    """Ask `question` of each picture, or each picture its own; one run each.

    `images` are RGB pictures that give the model the same number of image tokens, at the same
    places; `answers`, the words for yes and no; `framing` is what stands around the question, or
    a template in place of the processor's (see `headpatch.models.wording.prompt_text`);
    `sum_variants` adds up the spellings of each answer (see `AnswerTokens`). An `InputError` if the
    prompts differ otherwise than in a question, hold no image token or do not end where the answer
    starts, the question is not in them once, or an answer is not one token.
    """
    family, framing = vlm.family, Framing.of(framing)
    questions = [question] * len(images) if isinstance(question, str) else question
    texts, context = [prompt_text(vlm, one, framing) for one in questions], framing.pictures
    whole = [
        encode_one(vlm, (*context, one), text) for one, text in zip(images, texts, strict=True)
    ]
    extra = _extra(vlm, whole, texts)
    stop = -len(extra) or None
    encoded = [
        {key: value[:, :stop] if key in OF_TOKENS else value for key, value in one.items()}
        for one in whole
    ]
    first, *others = encoded
    every = [
        find_spans(one["input_ids"][0], image_token_id(vlm), family.crossed, family.both_ways)
        for one in encoded
    ]
    for text, other, found in zip(texts[1:], others, every[1:], strict=True):
        if text != texts[0]:
            _refuse_unaligned(every[0], found)
        elif not torch.equal(first["input_ids"], other["input_ids"]):
            raise _unlike("give different image tokens")
        if any(other[key].shape != value.shape for key, value in first.items()
               if found.length == every[0].length or key not in OF_TOKENS):  # fmt: skip
            raise _unlike("give different image tokens")
    shown = list(zip(images, encoded, texts, strict=True))
    if context:
        shown = [
            alone(vlm, image, one, framing) for image, one in zip(images, questions, strict=True)
        ]
        every = [last_picture(vlm, found, shown[0][1], framing, questions[0]) for found in every]
    spans, apart = every[0], len({found.length for found in every}) > 1
    patches, *rest = (located(vlm, *one, len(spans.image)) for one in shown)
    if not all(_alike(patches, other) for other in rest):
        raise _unlike("are cut up differently")
    inputs = _moved(vlm, encoded[:1] if apart else encoded)
    words = _answers_after(vlm, questions, texts, answers, framing)
    if sum_variants:
        words = with_variants(vlm, words)
    placed = ~np.isnan(patches.boxes[:, 0])
    positions = spans.image[torch.from_numpy(placed)]
    patches = replace(patches, boxes=patches.boxes[placed])
    left_out = tuple(_tokenizer(vlm).convert_ids_to_tokens(extra))
    made = Prompt(inputs, len(images), spans, patches, positions, words, texts[0], left_out)
    if apart:
        own = zip(encoded, every, texts, strict=True)
        each = (
            replace(made, inputs=_moved(vlm, [one]), runs=1, spans=found, text=text)
            for one, found, text in own
        )
        made = replace(made, each=tuple(each))
    return forced(vlm, made, words.lead, family.both_ways)  # every run is made to say it


def _moved(vlm: VLM, runs: Sequence[dict[str, Tensor]]) -> dict[str, Tensor]:
    """Join what the model takes of runs, where it is."""
    return {key: torch.cat([one[key] for one in runs]).to(vlm.device) for key in runs[0]}


def _extra(vlm: VLM, whole: Sequence[dict[str, Tensor]], texts: Sequence[str]) -> list[int]:
    """Return what the tokenizer ends each of some prompts with; see `appended`."""
    ends = [
        appended(vlm, whole[texts.index(text)]["input_ids"][0].tolist(), text + vlm.family.suffix)
        for text in dict.fromkeys(texts)
    ]
    if any(end != ends[0] for end in ends[1:]):
        raise InputError(_OTHER, "prompts that end differently", "questions in one prompt's place")
    return ends[0]


def _answers_after(
    vlm: VLM,
    questions: Sequence[str],
    texts: Sequence[str],
    answers: tuple[str, str],
    framing: Framing,
) -> AnswerTokens:
    """Find the answers' tokens, the same after each question."""
    tokenizer, found = _tokenizer(vlm), list[AnswerTokens]()
    for question, text in dict(zip(questions, texts, strict=True)).items():
        before = text + vlm.family.suffix
        spelled = continuations(vlm, question, answers, before, framing)
        found.append(find_answers(tokenizer, before, spelled))
    if any(one != found[0] for one in found[1:]):
        found_words = f"{' and '.join(answers)} are other tokens after it"
        raise InputError(_OTHER, found_words, "questions after which the answers are one token")
    return found[0]


def _refuse_unaligned(first: Spans, other: Spans) -> None:
    """Refuse two questions of which the image does not stand at the same place."""
    if len(first.image) != len(other.image):
        raise _unlike("give different image tokens")
    if not torch.equal(first.image, other.image):
        raise InputError(_OTHER, "the image lies elsewhere", "the image at the same tokens")


def unaligned(vlm: VLM, prompt: Prompt) -> tuple[str, ...]:
    """Say which tokens of two prompts of several lengths have none beside them; nothing if all."""
    tokenizer, parts = _tokenizer(vlm), []
    for run, name in enumerate(("with", "without") if prompt.each else ()):
        alone = prompt.each[run].input_ids.cpu()[prompt.partners(run) < 0]
        if len(alone):
            parts.append(f"{len(alone)} {name} ({tokenizer.decode(alone.tolist()).strip()!r})")
    if not parts:
        return ()
    found = "the two questions are aligned by the tokens that they share; those between them, "
    return (f"{found}{' and '.join(parts)}, have no counterpart and are not resampled",)


def need_one_length(prompt: Prompt, pair: str = "") -> None:
    """Refuse two prompts of several lengths where what is done follows places of tokens."""
    if prompt.each:
        lengths = " and ".join(str(one.spans.length) for one in prompt.each)
        found = f"prompts of {lengths} tokens{pair and f' ({pair})'}"
        hint = "Reword one of them. Changes of heads take it as it is."
        raise InputError(_OTHER, found, "two questions of as many tokens", hint)


def picture_inputs(vlm: VLM, images: Sequence[Image.Image]) -> dict[str, Tensor]:
    """Return what the model takes of some question about each picture; one run each."""
    question = "What is it?"
    try:
        text = prompt_text(vlm, question)
    except InputError:  # without a template that works, which a study's own `prompt` can replace
        text = f"{image_token(vlm)}\n{question}"
    runs = [encode_one(vlm, [image], text) for image in images]
    return _moved(vlm, runs)


def as_run(vlm: VLM, prompt: Prompt) -> str:
    """Return the text of a prompt's tokens, special ones too; ``<image>×144`` for 144 of them."""
    image, tokenizer, parts = image_token_id(vlm), _tokenizer(vlm), []
    mark, last = tokenizer.convert_ids_to_tokens(image), image
    for is_image, group in groupby(prompt.input_ids.tolist(), lambda token: token == image):
        tokens = list(group)
        text = f"{mark}×{len(tokens)}" if is_image else text_after(tokenizer, last, tokens)
        parts.append(text)
        last = tokens[-1]
    return "".join(parts)


def forced(vlm: VLM, prompt: Prompt, words: Sequence[int], both_ways: bool = False) -> Prompt:
    """Append the same token ids to every run; the answer position is then the last of them.

    `both_ways`: whether earlier tokens see them.
    """
    if not words:
        return prompt
    each = tuple(forced(vlm, one, words, both_ways) for one in prompt.each)
    count, length = len(words), prompt.spans.length
    inputs = dict(prompt.inputs)
    ids = inputs["input_ids"]
    more = torch.tensor(words, device=ids.device, dtype=ids.dtype).expand(len(ids), count)
    inputs["input_ids"] = torch.cat([ids, more], 1)
    for name in A_VALUE_A_TOKEN:  # what is appended is like the last prompt token
        if (value := inputs.get(name)) is not None:
            inputs[name] = torch.cat([value, _like_last(vlm, name, value, count)], 1)
    spans = Spans(length + count, prompt.spans.image, prompt.spans.crossed, both_ways)
    return replace(prompt, inputs=inputs, spans=spans, each=each)


def _like_last(vlm: VLM, name: str, value: Tensor, count: int) -> Tensor:
    last = value[:, -1:].expand(-1, count, *value.shape[2:])
    kind = _TEXT_TYPE.get(str(vlm.model.config.model_type))
    return last if name != "token_type_ids" or kind is None else torch.full_like(last, kind)


def spell(vlm: VLM, prompt: Prompt, answers: tuple[str, str], text: str) -> list[int]:
    """Return the tokens of an answer where it will stand: after the prompt.

    What separates the two is what separates the prompt from the first of the study's `answers`.
    """
    tokenizer = _tokenizer(vlm)
    before = prompt.text + vlm.family.suffix
    start = ids_of(tokenizer, before)
    lead = list(prompt.answers.lead)
    yes = [*start, *lead, prompt.answers.yes]
    spelled = ((gap, ids_of(tokenizer, before + gap + answers[0])) for gap in _GAPS)
    gap = next((gap for gap, ids in spelled if ids[: len(yes)] == yes), " ")
    words = text.strip()
    if not words:
        raise InputError("--answer", "an empty text", "words that the model could say")
    ids = ids_of(tokenizer, before + gap + words)
    added = ids[len(start) :]
    if ids[: len(start)] != start or not added:
        raise InputError("--answer", repr(text), "words that stand apart from the prompt")
    if tokenizer.unk_token_id in added:
        found = f"{text!r} gives unknown tokens ({tokenizer.convert_ids_to_tokens(added)})"
        raise InputError("--answer", found, "words that the model knows")
    if added[: len(lead)] != lead or len(added) == len(lead):
        begins = tokenizer.decode(lead)
        raise InputError("--answer", repr(text), f"words after {begins!r}, as the answers have it")
    return added[len(lead) :]


def _unlike(what: str) -> InputError:
    found, hint = f"the two pictures {what}", "Resize them to the same width and height."
    return InputError(PICTURES, found, "pictures of one size", hint)


def _alike(first: Patches, second: Patches) -> bool:
    boxes = first.boxes, second.boxes
    return first.grid == second.grid and np.allclose(*boxes, atol=_CLOSE, equal_nan=True)


def _tokenizer(vlm: VLM) -> Any:
    return vlm.processor.tokenizer
