"""From a question to the prompt's text, how an answer follows it, and the answers' token ids."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import takewhile
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from headpatch.errors import InputError
from headpatch.models.rendering import TemplateFailed, render, render_ahead
from headpatch.models.turns import ELSE, WRITE_IT, forms, occurrences, system_turn, turns
from headpatch.models.vlm import VLM
from headpatch.pairs.framing import Framing
from headpatch.text import spelling

_WAY_OUT = 'Or set `prompt` in the study, such as "USER: {mark}\\n{{question}} ASSISTANT:".'


@dataclass(frozen=True)
class AnswerTokens:
    """The first token of each answer. LD = logit(yes) - logit(no).

    With `variants`, tokens that spell yes and no in another case or with other space around them,
    an answer's logit is ``logsumexp`` over its token and its variants: the logit of a token that
    had the probability of all of them. None: of the one token.

    `lead` are tokens of punctuation with which both answers begin, as that of ``(a)`` and ``(b)``:
    yes and no follow them.
    """

    yes: int
    no: int
    variants: tuple[tuple[int, ...], tuple[int, ...]] | None = None
    lead: tuple[int, ...] = ()

    @property
    def ids(self) -> tuple[int, ...]:
        """Every token whose logit is read: yes, no, variants of yes, variants of no."""
        return self.yes, self.no, *(token for ids in self.variants or () for token in ids)

    @property
    def among_ids(self) -> "AnswerTokens":
        """The same answers in a vocabulary that is `ids` alone, in their order."""
        if self.variants is None:
            return AnswerTokens(0, 1)
        start = 2 + len(self.variants[0])
        variants = tuple(range(2, start)), tuple(range(start, len(self.ids)))
        return AnswerTokens(0, 1, variants)

    def logits(
        self, logits: Float[Tensor, "*rows vocabulary"]
    ) -> tuple[Float[Tensor, "*rows"], Float[Tensor, "*rows"]]:
        """Return the logit of yes and of no in each row."""
        if self.variants is None:
            return logits[..., self.yes], logits[..., self.no]
        yes, no = (
            torch.logsumexp(logits[..., [token, *others]], -1)
            for token, others in zip((self.yes, self.no), self.variants, strict=True)
        )
        return yes, no

    def ld(self, logits: Float[Tensor, "*rows vocabulary"]) -> Float[Tensor, "*rows"]:
        """Return LD of each row."""
        yes, no = self.logits(logits)
        return yes - no


def prompt_text(vlm: VLM, question: str, framing: str | Framing | None = None) -> str:
    """Return the prompt up to the answer, with one placeholder for each picture.

    It is the same text each time, even where a template holds the time: see `VLM.prompts`. A
    `framing` that is a text, or has one, overrides the processor's template; it holds
    ``{question}`` and the image token, and a backslash and an n stand for a line end. An
    `InputError` if there is none, or the question is not in the text once.
    """
    framing = Framing.of(framing)
    asked = str(getattr(vlm.processor, "chat_template", None)), question, framing
    if asked not in vlm.prompts:
        vlm.prompts[asked] = _checked(vlm, question, framing)
    return vlm.prompts[asked]


def _checked(vlm: VLM, question: str, framing: Framing) -> str:
    template, mark, count = framing.template, image_token(vlm), 1 + len(framing.context)
    if template is None and not getattr(vlm.processor, "chat_template", None):
        template = vlm.family.template
        if framing.system is not None:
            found = f"{vlm.name} has no chat template"
            raise InputError("system", found, "one, with a system turn", WRITE_IT)
    for name, words in (("--question", question), ("system", framing.system or "")):
        if mark in words:
            raise InputError(name, f"it holds the image token {mark}", "words alone")
    if template is not None:
        if template.count("{question}") != 1 or mark not in template:
            expected = f"a text with {{question}}, once, and {mark}"
            raise InputError("prompt", repr(template), expected)
        text = template.replace(r"\n", "\n").replace("{question}", question)
        return _with_pictures(text, mark, count, "prompt", f"{template!r}")
    text = _chat(vlm, question, framing)
    if mark not in text:
        raise _bad_template(vlm, f"leaves out the image token {mark}: it gives {text!r}")
    times = occurrences(question, text) - occurrences(question, _chat(vlm, ELSE, framing))
    if times != 1:
        lost = "leaves out the question" if times < 1 else f"asks the question {times} times"
        raise _bad_template(vlm, f"{lost}: it gives {text!r}")
    return _with_pictures(text, mark, count, "context_images", f"the chat template of {vlm.name}")


def _with_pictures(text: str, mark: str, count: int, argument: str, what: str) -> str:
    """Refuse a prompt that has not a place for each picture, where there are several."""
    if count > 1 and text.count(mark) != count:
        found = f"{what} gives {text.count(mark)} places ({mark}) for {count} pictures"
        raise InputError(argument, found, "a place for each")
    return text


def continuations(
    vlm: VLM,
    question: str,
    answers: tuple[str, str],
    prompt: str,
    framing: str | Framing | None = None,
) -> tuple[str, str]:
    """Return each answer as it follows the prompt: by the chat template, or after one space.

    A template that puts words between the prompt and the answer is an `InputError`.
    """
    framing = Framing.of(framing)
    if getattr(vlm.processor, "chat_template", None):
        before = system_turn(vlm.processor, vlm.name, framing)
        asked = [turns(question, framing, before, form) for one in answers for form in forms(one)]
        render_ahead(vlm.processor, asked, add_generation_prompt=False)
    yes, no = (_continuation(vlm, question, answer, prompt, framing) for answer in answers)
    return yes, no


def image_token_id(vlm: VLM) -> int:
    """Return the id of the image token."""
    config: Any = vlm.model.config
    for name in ("image_token_id", "image_token_index"):
        if (found := getattr(config, name, None)) is not None:
            return int(found)
    processor: Any = vlm.processor
    if (mark := getattr(processor, "image_token", None)) is not None:  # Chameleon's, Emu3's
        return int(processor.tokenizer.convert_tokens_to_ids(mark))
    raise InputError("--model", f"{vlm.name} has no image token", "a vision-language model")


def image_token(vlm: VLM) -> str:
    """Return what stands for the image in a text; the processor puts the image tokens there."""
    processor: Any = vlm.processor
    mark = getattr(processor, "image_token", None)
    return str(mark or processor.tokenizer.convert_ids_to_tokens(image_token_id(vlm)))


def _chat(vlm: VLM, question: str, framing: Framing) -> str:
    try:
        return _rendered(vlm, question, framing)
    except TemplateFailed as error:
        found = f"{vlm.name} has no chat template that works ({error})"
        hint = _WAY_OUT.format(mark=image_token(vlm))
        raise InputError("--model", found, "one in its processor", hint) from None


def _rendered(vlm: VLM, question: str, framing: Framing, answer: object = None) -> str:
    asked = turns(question, framing, system_turn(vlm.processor, vlm.name, framing), answer)
    return render(vlm.processor, asked, add_generation_prompt=answer is None)


def _continuation(vlm: VLM, question: str, answer: str, prompt: str, framing: Framing) -> str:
    between = []
    if getattr(vlm.processor, "chat_template", None):
        for whole in _answered(vlm, question, answer, framing):
            gap, found, _ = whole.removeprefix(prompt).partition(answer)
            if whole.startswith(prompt) and found:
                if not gap.strip():
                    return gap + answer
                between.append(gap)
    if between:
        what = f"puts {between[-1]!r} between the prompt and the answer {answer!r}"
        raise _bad_template(vlm, what)
    return answer if prompt[-1:].isspace() else f" {answer}"


def _answered(vlm: VLM, question: str, answer: str, framing: Framing) -> Iterator[str]:
    for content in forms(answer):
        try:
            yield _rendered(vlm, question, framing, content)
        except TemplateFailed:
            continue


def _bad_template(vlm: VLM, what: str) -> InputError:
    found, hint = f"the chat template of {vlm.name} {what}", _WAY_OUT.format(mark=image_token(vlm))
    expected = "a prompt that asks the question once and ends where the answer starts"
    return InputError("--model", found, expected, hint)


def text_after(tokenizer: Any, last: int, ids: Sequence[int]) -> str:
    """Return the text of tokens, special ones too, as it stands after token `last`.

    A tokenizer that decodes tokens by themselves leaves out the space before the first.
    """
    start, whole = (
        tokenizer.decode(one, skip_special_tokens=False, clean_up_tokenization_spaces=False)
        for one in ([last], [last, *ids])
    )
    text: str = whole.removeprefix(start)
    return text or f"<token {' '.join(map(str, ids))}>"  # beyond the tokenizer's own


def ids_of(tokenizer: Any, text: str) -> list[int]:
    """Return the tokens of a text as it stands, without special ones around it."""
    found: list[int] = tokenizer(text, add_special_tokens=False)["input_ids"]
    return found


def find_answers(tokenizer: Any, prompt: str, continuations: tuple[str, str]) -> AnswerTokens:
    """Find the ids of yes and no by tokenising them where they will stand.

    `continuations` follow the prompt for yes and for no, leading space included: ``(" Yes", "
    No")``. An `InputError` if one is not exactly one token after the prompt's own, but for
    punctuation that both share, or both are the same token.
    """
    before = ids_of(tokenizer, prompt)
    whole = [ids_of(tokenizer, prompt + text) for text in continuations]
    added = [ids[len(before) :] for ids in whole]
    lead = _shared_lead(tokenizer, *added)
    found = []
    for text, ids, own in zip(continuations, whole, added, strict=True):
        if ids[: len(before)] != before or (len(own) != 1 and lead is None):
            raise _not_one_token(tokenizer, prompt, text, before, ids)
        found.append(own[len(lead or ())])
    if found[0] == found[1]:
        same = " and ".join(repr(text.strip()) for text in continuations)
        expected = "two answers that differ in their first token"
        raise InputError("answers", f"{same} are the same token", expected)
    yes, no = found
    return AnswerTokens(yes, no, lead=lead or ())


def _shared_lead(
    tokenizer: Any, first: Sequence[int], second: Sequence[int]
) -> tuple[int, ...] | None:
    """Return what two answers share before the one token in which they differ: ``(`` of ``(a)``.

    None if they differ in more, or what they share is no punctuation alone.
    """
    pairs = zip(first, second, strict=False)
    apart = [place for place, (one, other) in enumerate(pairs) if one != other]
    if len(first) != len(second) or len(apart) != 1:
        return None
    (place,) = apart
    shared = [*first[:place], *first[place + 1 :]]
    spelled = tokenizer.decode(shared) if shared else ""
    return None if any(map(str.isalnum, spelled)) else tuple(first[:place])


def variants_of(vlm: VLM, token: int) -> tuple[int, ...]:
    """Return the tokens that differ from a token in case, or in space around it, alone."""
    word = spelling(vlm.processor.tokenizer.decode([token]))
    return tuple(other for other in vlm.spellings.get(word, ()) if other != token)


def with_variants(vlm: VLM, answers: AnswerTokens) -> AnswerTokens:
    """Sum the variants of each answer, in every LD that is taken of them."""
    yes, no = (variants_of(vlm, token) for token in (answers.yes, answers.no))
    return replace(answers, variants=(yes, no))


def _not_one_token(
    tokenizer: Any, prompt: str, text: str, before: list[int], ids: list[int]
) -> InputError:
    """Say what the answer gives instead, or that the prompt's end joins it."""
    what = f"{text.strip()!r} is not one token after the prompt"
    pairs = enumerate(zip(before, ids, strict=False))
    alike = next((at for at, (one, other) in pairs if one != other), min(len(before), len(ids)))
    if alike == len(before):
        found = f"{what} (it gives {tokenizer.convert_ids_to_tokens(ids[max(alike - 1, 0) :])})"
        hint = "Set `answers` in the study, such as [Yes, No]."
        return InputError("answers", found, "answers of one token each", hint)
    end, joined = (tokenizer.convert_ids_to_tokens(one[alike:]) for one in (before, ids))
    last = "space" if prompt.endswith(" ") else f"token {' '.join(end)!r}"
    found = f"{what}: the prompt's last {last} joins it (together they are {' '.join(joined)!r})"
    hint = f"Take the {last} from the end of the chat template, or of `prompt` in the study."
    return InputError("answers", found, "a prompt that ends where the answer's token starts", hint)


def appended(vlm: VLM, ids: list[int], before: str) -> list[int]:
    """Return what the tokenizer has put behind the prompt, where the answer starts."""
    # A prompt that ends in something else that its text does not end in is refused.
    tokenizer: Any = vlm.processor.tokenizer
    image = image_token_id(vlm)
    mark = tokenizer.convert_tokens_to_ids(image_token(vlm))
    plain = reversed(ids_of(tokenizer, before))
    tail = list(takewhile(lambda token: token not in (image, mark), plain))[1::-1]
    for extra in ([], _ending(tokenizer)):
        rest = ids[: len(ids) - len(extra)]
        if rest + extra == ids and tail and rest[-len(tail) :] == tail:
            return extra
    if not tail:  # the image comes last: what follows its tokens is the processor's affair
        extra = _ending(tokenizer)
        return extra if extra and ids[-len(extra) :] == extra else []
    ends, asked = (tokenizer.convert_ids_to_tokens(one) for one in (ids[-2:], tail))
    found = f"the processor of {vlm.name} ends the prompt in {ends}, where the answer should start"
    hint = "See its tokenizer's post_processor, and padding in its processor's files."
    raise InputError("--model", found, f"a prompt that ends as its text does, in {asked}", hint)


def _ending(tokenizer: Any) -> list[int]:
    """Return the special tokens that a tokenizer ends every text with (``add_eos_token``)."""
    bare = ids_of(tokenizer, "x")
    whole = list(tokenizer("x", add_special_tokens=True)["input_ids"])
    places = (at for at in range(len(whole)) if whole[at : at + len(bare)] == bare)
    at = next(places, None)
    return [] if at is None else whole[at + len(bare) :]
