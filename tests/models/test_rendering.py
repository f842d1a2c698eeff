"""Chat templates are programs of strangers: they end, and stay small, or are refused."""

import copy
import os
import time
from collections.abc import Callable, Mapping
from typing import Any
from weakref import WeakKeyDictionary

import pytest

from headpatch.errors import InputError
from headpatch.models import rendering
from headpatch.models.prompt import prompt_text
from headpatch.models.rendering import TemplateFailed, render, render_ahead
from tests.tiny import CHAT_TEMPLATE, QUESTION, tiny_processor, tiny_vlm

TURNS = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": QUESTION}]}]
DOUBLING = (
    "{% set n = namespace(s='abcdefgh') %}"
    "{% for i in range(60) %}{% set n.s = n.s ~ n.s %}{% endfor %}{{ n.s|length }}"
)
ENDLESS = "{% for i in range(10**5) %}{% for j in range(10**5) %}{% endfor %}{% endfor %}"


@pytest.fixture(autouse=True)
def hurried(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rendering, "SECONDS", 1)
    monkeypatch.setattr(rendering, "_MEMORY", 64 << 20)
    monkeypatch.setattr(rendering, "_known", WeakKeyDictionary())


def rendered(template: str) -> str:
    processor = tiny_processor()
    processor.chat_template = template
    return render(processor, TURNS, add_generation_prompt=True)


def test_a_template_writes_what_transformers_writes() -> None:
    plain = tiny_processor().apply_chat_template(TURNS, add_generation_prompt=True)
    assert rendered(CHAT_TEMPLATE) == plain


@pytest.mark.parametrize(
    ("template", "reason"),
    [
        (ENDLESS, "seconds of computing"),
        (DOUBLING, "MiB of memory"),
        ("{{ 'a' * 10**10 }}", "MiB of memory"),  # computed while it is compiled
        ("{{ 'a'|center(10**10) }}", "MiB of memory"),
        ("{{ 'a' * 10**6 }}", "1,000,000 characters"),
        ("{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}", "recursion"),
        ("{% for %}", "Expected an expression"),
        ("{{ raise_exception('no pictures') }}", "no pictures"),
    ],
)
def test_a_template_that_does_not_end_well_is_refused(template: str, reason: str) -> None:
    start = time.process_time()
    with pytest.raises(TemplateFailed, match=reason):
        rendered(template)
    assert time.process_time() - start < 1  # of this process; the trial is another one's


def asking(question: str) -> list[Mapping[str, Any]]:
    return [{"role": "user", "content": [{"type": "text", "text": question}]}]


@pytest.fixture
def copies(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Grows by one with every copy of the process."""
    made: list[int] = []
    fork: Callable[[], int] = os.fork

    def counted() -> int:
        made.append(1)
        return fork()

    monkeypatch.setattr(os, "fork", counted)
    return made


@pytest.mark.parametrize(
    ("explode", "reason"), [(ENDLESS, "seconds of computing"), (DOUBLING, "MiB of memory")]
)
def test_a_template_that_explodes_for_one_question_is_refused_then(
    explode: str, reason: str, copies: list[int]
) -> None:
    """Whatever it wrote before for a question as long."""
    processor = tiny_processor()
    processor.chat_template = (
        f"{{% if 'cat' in messages[0].content[0].text %}}{explode}{{% endif %}}{CHAT_TEMPLATE}"
    )
    assert "a dog?" in render(processor, asking("Is it a dog?"), True)
    with pytest.raises(TemplateFailed, match=reason):
        render(processor, asking("Is it a cat?"), True)
    render_ahead(processor, [asking(f"Is it a {one}?") for one in ("cow", "cat", "hen")], True)
    count = len(copies)
    assert "a hen?" in render(processor, asking("Is it a hen?"), True)
    with pytest.raises(TemplateFailed, match=reason):
        render(processor, asking("Is it a cat?"), True)
    assert len(copies) == count  # what is known is not tried again


def test_conversations_are_told_apart_where_one_explodes() -> None:
    processor = tiny_processor()
    processor.chat_template = (
        "{% if 'b' in messages[0].content[0].text %}" + ENDLESS + "{% endif %}ok"
    )
    render_ahead(processor, [asking("a"), asking("b"), asking("c")], True)
    assert render(processor, asking("a"), True) == render(processor, asking("c"), True) == "ok"
    with pytest.raises(TemplateFailed, match="seconds of computing"):
        render(processor, asking("b"), True)


def test_models_of_one_kind_share_what_was_written(copies: list[int]) -> None:
    for _ in range(3):
        render(tiny_processor(), asking("Is it?"), add_generation_prompt=True)
    assert len(copies) == 1
    processor = tiny_processor()
    processor.chat_template = "{{ bos_token }}"
    first = render(processor, asking("Is it?"), add_generation_prompt=True)
    processor.tokenizer = copy.deepcopy(processor.tokenizer)  # which all tests share
    processor.tokenizer.bos_token = "</s>"
    assert first != render(processor, asking("Is it?"), add_generation_prompt=True) == "</s>"


def test_a_long_text_comes_back_whole() -> None:
    text = rendered("{{ 'ü\U0001f408\0\n' * 49999 }}")
    assert text == "ü\U0001f408\0\n" * 49999


def test_a_study_with_such_a_template_is_refused_in_one_line() -> None:
    vlm = tiny_vlm()
    vlm.processor.chat_template = DOUBLING
    with pytest.raises(InputError, match="MiB of memory") as caught:
        prompt_text(vlm, QUESTION)
    assert "\n" not in str(caught.value) and "`prompt`" in str(caught.value)
