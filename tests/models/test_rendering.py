"""Chat templates are programs of strangers: they end, and stay small, or are refused."""

import time
from collections.abc import Iterator

import pytest

from headpatch.errors import InputError
from headpatch.models import rendering
from headpatch.models.prompt import prompt_text
from headpatch.models.rendering import TemplateFailed, render
from tests.tiny import CHAT_TEMPLATE, QUESTION, tiny_processor, tiny_vlm

TURNS = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": QUESTION}]}]
DOUBLING = (
    "{% set n = namespace(s='abcdefgh') %}"
    "{% for i in range(60) %}{% set n.s = n.s ~ n.s %}{% endfor %}{{ n.s|length }}"
)
ENDLESS = "{% for i in range(10**5) %}{% for j in range(10**5) %}{% endfor %}{% endfor %}"


@pytest.fixture(autouse=True)
def hurried(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(rendering, "SECONDS", 1)
    monkeypatch.setattr(rendering, "_MEMORY", 64 << 20)
    rendering._try.cache_clear()
    yield
    rendering._try.cache_clear()


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


def test_questions_of_one_length_are_tried_once(monkeypatch: pytest.MonkeyPatch) -> None:
    processor, tried = tiny_processor(), rendering._try
    for question in ("Is it?", "Is it not?"):
        turns = [{"role": "user", "content": [{"type": "text", "text": question}]}]
        assert question in render(processor, turns, add_generation_prompt=True)
    assert tried.cache_info().misses == 1
    processor.chat_template = "{{ raise_exception('no') }}"  # another template is tried anew
    with pytest.raises(TemplateFailed):
        render(processor, turns, add_generation_prompt=True)
    assert tried.cache_info().misses == 2


def test_a_study_with_such_a_template_is_refused_in_one_line() -> None:
    vlm = tiny_vlm()
    vlm.processor.chat_template = DOUBLING
    with pytest.raises(InputError, match="MiB of memory") as caught:
        prompt_text(vlm, QUESTION)
    assert "\n" not in str(caught.value) and "`prompt`" in str(caught.value)
