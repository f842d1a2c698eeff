"""The prompt as asked is the prompt as meant: chat templates that lose, print or add something."""

import copy
from dataclasses import replace
from functools import lru_cache

import pytest
import torch
from tokenizers.processors import TemplateProcessing

from headpatch.errors import InputError
from headpatch.models.prompt import as_run, encode
from headpatch.models.vlm import VLM
from headpatch.models.wording import continuations, prompt_text
from tests import refusals
from tests.tiny import QUESTION, image_pair, tiny_processor, tiny_prompt, tiny_vlm

CHAT = f"USER: <image>\n{QUESTION} ASSISTANT:"
START = "{% for m in messages %}{% if m['role'] == 'user' %}USER: <image>\n"
ASKED = "{{ m['content'][1]['text'] }}"
END = "{% endif %}{% endfor %}{% if add_generation_prompt %}ASSISTANT:{% endif %}"


def template(answer: str, asked: str = ASKED, end: str = END, system: str = "") -> str:
    """A chat template that writes the question as `asked` and the assistant's turn as `answer`."""
    return f"{system}{START}{asked} {{% else %}}ASSISTANT:{answer}{end}"


PARTS = template(" {{ m['content'][0]['text'] }}</s>")


@lru_cache
def plain() -> VLM:
    return tiny_vlm()


def vlm_with(chat: str) -> VLM:
    processor = tiny_processor()
    processor.chat_template = chat
    return replace(plain(), processor=processor)


def refusal(chat: str) -> str:
    return refusals.refusal(encode, vlm_with(chat), image_pair(), QUESTION)


@pytest.mark.parametrize(
    "answer",
    [
        " {{ m['content'] + '</s>' }}",  # adds a text to a list: fails
        " {{ m['content'] }}</s>",  # prints a list as it comes
        " {{ m['content'] | trim }}</s>",
        "{% generation %} {{ m['content'] }}</s>{% endgeneration %}",
    ],
)
def test_an_answer_is_given_as_text_where_a_list_fails(answer: str) -> None:
    expected = tiny_prompt(plain())
    found = encode(vlm_with(template(answer)), image_pair(), QUESTION)
    assert found.text == CHAT
    assert found.answers == expected.answers
    assert torch.equal(found.input_ids, expected.input_ids)


def test_words_between_prompt_and_answer_are_refused() -> None:
    chat = template(" <think></think> {{ m['content'][0]['text'] }}</s>")
    message = refusal(chat)
    assert "puts ' <think></think> ' between the prompt and the answer 'Yes'" in message
    assert "`prompt`" in message


@pytest.mark.parametrize(
    ("asked", "fault"),
    [
        ("{{ m['content'][1]['content'] }}", "leaves out the question"),
        ("{{ m['content'][1]['text'][:20] }}", "leaves out the question"),
        (f"{ASKED} {ASKED}", "asks the question 2 times"),
        ("{{ m['content'] | length }}", "leaves out the question"),
    ],
)
def test_a_template_asks_the_question_once(asked: str, fault: str) -> None:
    answer = " {{ m['content'][0]['text'] }}</s>"
    message = refusal(template(answer, asked))
    assert f"the chat template of tiny {fault}: it gives 'USER: <image>\\n" in message
    system = f"Answer such as {QUESTION} by Yes or No. "  # where it is not the user who asks
    assert fault in refusal(template(answer, asked, system=system))


@pytest.mark.parametrize(
    "asked",
    [
        ASKED,
        "{{ m['content'][1]['text'] | trim }}",
        "{{ m['content'][1]['text'] | e }}",
        "{{ m['content'][1]['text'] | tojson }}",
        "{{ m['content'][1]['text'].split() | join(' ') }}",
    ],
)
@pytest.mark.parametrize("question", [QUESTION, " Is it  \"red\" & <b>, or 'blue'?\n", "Ist's rö?"])
def test_a_question_may_be_stripped_or_escaped(asked: str, question: str) -> None:
    chat = template(" {{ m['content'][0]['text'] }}</s>", asked)
    assert "ASSISTANT:" in prompt_text(vlm_with(chat), question)
    system = f"Answer such as {QUESTION} by Yes or No. "
    chat = template(" {{ m['content'][0]['text'] }}</s>", asked, system=system)
    assert prompt_text(vlm_with(chat), question).startswith(system)


@pytest.mark.parametrize(
    "text", ["<image>\nIs it? ASSISTANT:", "<image>{question}{question}", "{question}", ""]
)
def test_a_template_of_the_study_holds_the_question_once(text: str) -> None:
    with pytest.raises(InputError, match=r"^prompt: .*\{question\}, once, and <image>"):
        prompt_text(plain(), QUESTION, text)


def test_a_space_at_the_end_that_joins_the_answer_is_named() -> None:
    message = refusal(PARTS.replace("ASSISTANT:{% endif", "ASSISTANT: {% endif"))
    assert message.startswith("answers: 'Yes' is not one token after the prompt: the prompt's last")
    assert "space joins it (together they are '▁Yes')" in message
    assert "chat template" in message


def test_a_template_that_raises_is_refused_in_one_line() -> None:
    for asked in ("{{ m['content'] + 1 }}", "{{ 1 // 0 }}", "{{ raise_exception('no images') }}"):
        assert "no chat template that works" in refusal(template(" x", asked))


def with_ending(*ends: str) -> VLM:
    """A model whose tokenizer ends every text with special tokens, as ``add_eos_token`` does."""
    processor = tiny_processor()
    processor.tokenizer = copy.deepcopy(processor.tokenizer)
    backend = processor.tokenizer.backend_tokenizer
    backend.post_processor = TemplateProcessing(
        single=" ".join(["<s> $A", *ends]),
        special_tokens=[(one, backend.token_to_id(one)) for one in ("<s>", *ends)],
    )
    return replace(plain(), processor=processor)


@pytest.mark.parametrize("ends", [("</s>",), ("</s>", "<pad>")])
def test_tokens_that_the_tokenizer_appends_are_left_out(ends: tuple[str, ...]) -> None:
    expected = tiny_prompt(plain())
    vlm = with_ending(*ends)
    found = encode(vlm, image_pair(), QUESTION)
    assert found.left_out == ends
    assert expected.left_out == ()
    assert found.inputs.keys() == expected.inputs.keys()
    for name, value in expected.inputs.items():
        assert torch.equal(found.inputs[name], value), name
    assert found.spans.answer == expected.spans.answer
    last = encode(vlm, image_pair(), QUESTION, framing="{question} <image>")  # ends in the image
    assert last.left_out == ends
    assert last.input_ids[-1] == vlm.model.config.image_token_id


def test_a_prompt_that_ends_in_something_else_is_refused() -> None:
    """A processor's padding behind the prompt: the answer does not start after it."""
    processor = tiny_processor()

    class Padded(type(processor)):
        def __call__(self, *args, **options):
            batch = super().__call__(*args, **options)
            ids, mask = batch["input_ids"], batch["attention_mask"]
            batch["input_ids"] = torch.cat([ids, torch.full_like(ids[:, :2], 3)], 1)
            batch["attention_mask"] = torch.cat([mask, torch.zeros_like(mask[:, :2])], 1)
            return batch

    processor.__class__ = Padded
    vlm = replace(plain(), processor=processor)
    found = "ends the prompt in ['<pad>', '<pad>'], where the answer should start"
    assert found in refusals.refusal(encode, vlm, image_pair(), QUESTION)


def test_the_prompt_as_run_shows_every_token() -> None:
    vlm = plain()
    assert as_run(vlm, tiny_prompt(vlm)) == f"<s> USER: <image>×16\n{QUESTION} ASSISTANT:"


def test_an_answer_follows_as_the_template_writes_it() -> None:
    chat = PARTS.replace("ASSISTANT: {{", "ASSISTANT:\n{{")
    vlm = vlm_with(chat)
    assert continuations(vlm, QUESTION, ("Yes", "No"), CHAT) == ("\nYes", "\nNo")
    assert continuations(plain(), QUESTION, ("Yes", "No"), CHAT) == (" Yes", " No")


def test_a_template_that_holds_the_time_is_rendered_once() -> None:
    """What is finished of a run is known by its prompt, and both walks over a dataset ask it."""
    vlm = vlm_with("{{ strftime_now('%H:%M:%S.%f') }} " + PARTS)
    assert prompt_text(vlm, QUESTION) == prompt_text(vlm, QUESTION)
    assert prompt_text(vlm, QUESTION) != prompt_text(
        vlm_with(vlm.processor.chat_template), QUESTION
    )
