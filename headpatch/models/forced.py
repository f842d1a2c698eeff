"""An answer's words after the prompt: what a run is made to have said already."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from headpatch.errors import InputError
from headpatch.models.prompt import A_VALUE_A_TOKEN, Prompt
from headpatch.models.spans import Spans
from headpatch.models.vlm import VLM

_TEXT_TYPE = {"paligemma": 1}  # tokens of type 0 are a prefix that is read in both directions
_GAPS = (" ", "", "\n", "\n\n")


def forced(vlm: VLM, prompt: Prompt, words: Sequence[int]) -> Prompt:
    """Append the same tokens to every run; the answer position is then the last of them.

    Parameters
    ----------
    words
        Token ids; none gives the prompt as it is.
    """
    if not words:
        return prompt
    count, length = len(words), prompt.spans.length
    inputs = dict(prompt.inputs)
    ids = inputs["input_ids"]
    more = torch.tensor(words, device=ids.device, dtype=ids.dtype).expand(len(ids), count)
    inputs["input_ids"] = torch.cat([ids, more], 1)
    for name in A_VALUE_A_TOKEN:  # what is appended is like the last prompt token
        if (value := inputs.get(name)) is not None:
            inputs[name] = torch.cat([value, _like_last(vlm, name, value, count)], 1)
    spans = Spans(length + count, prompt.spans.image, prompt.spans.crossed)
    return replace(prompt, inputs=inputs, spans=spans)


def _like_last(vlm: VLM, name: str, value: Tensor, count: int) -> Tensor:
    last = value[:, -1:].expand(-1, count, *value.shape[2:])
    kind = _TEXT_TYPE.get(str(vlm.model.config.model_type))
    return last if name != "token_type_ids" or kind is None else torch.full_like(last, kind)


def spell(vlm: VLM, prompt: Prompt, answers: tuple[str, str], text: str) -> list[int]:
    """Return the tokens of an answer where it will stand: after the prompt.

    What separates the two is what separates the prompt from the study's Yes.

    Parameters
    ----------
    answers
        The study's words for yes and no.

    Raises
    ------
    InputError
        If the text is empty, joins the prompt's last token, or holds what the model does not know.
    """
    tokenizer: Any = vlm.processor.tokenizer
    before = prompt.text + vlm.family.suffix
    start = _ids(tokenizer, before)
    yes = [*start, prompt.answers.yes]
    gap = next((gap for gap in _GAPS if _ids(tokenizer, before + gap + answers[0]) == yes), " ")
    words = text.strip()
    if not words:
        raise InputError("--answer", "an empty text", "words that the model could say")
    ids = _ids(tokenizer, before + gap + words)
    added = ids[len(start) :]
    if ids[: len(start)] != start or not added:
        raise InputError("--answer", repr(text), "words that stand apart from the prompt")
    if tokenizer.unk_token_id in added:
        pieces = tokenizer.convert_ids_to_tokens(added)
        raise InputError(
            "--answer", f"{text!r} gives unknown tokens ({pieces})", "words that the model knows"
        )
    return added


def _ids(tokenizer: Any, text: str) -> list[int]:
    found: list[int] = tokenizer(text, add_special_tokens=False)["input_ids"]
    return found
