"""The ids of Yes and No are those of the answer where it stands, not of bare words."""

from functools import lru_cache

import pytest
from tokenizers import Regex, Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from headpatch.models.prompt import encode, spell
from headpatch.models.wording import find_answers
from tests import refusals
from tests.tiny import QUESTION, image_pair, tiny_tokenizer, tiny_vlm

PROMPT = "USER: <image>\nIs it? ASSISTANT:"


def ids_of(*tokens: str) -> list[int]:
    return tiny_tokenizer().convert_tokens_to_ids(list(tokens))


def refusal(prompt: str, continuations: tuple[str, str], tokenizer: object = None) -> str:
    tokenizer = tokenizer or tiny_tokenizer()
    return refusals.refusal(find_answers, tokenizer, prompt, continuations, of="answers")


def test_after_a_space_and_after_a_line_end_the_ids_differ() -> None:
    yes, no, bare_yes, bare_no = ids_of("▁Yes", "▁No", "Yes", "No")
    assert len({yes, no, bare_yes, bare_no}) == 4
    spaced = find_answers(tiny_tokenizer(), PROMPT, (" Yes", " No"))
    assert (spaced.yes, spaced.no) == (yes, no)
    unspaced = find_answers(tiny_tokenizer(), "Answer:\n", ("Yes", "No"))
    assert (unspaced.yes, unspaced.no) == (bare_yes, bare_no)


def test_each_id_continues_the_prompt() -> None:
    tokenizer = tiny_tokenizer()
    found = find_answers(tokenizer, PROMPT, (" Yes", " No"))
    before = tokenizer(PROMPT, add_special_tokens=False)["input_ids"]
    for answer, token in ((" Yes", found.yes), (" No", found.no)):
        whole = tokenizer(PROMPT + answer, add_special_tokens=False)["input_ids"]
        assert whole == [*before, token]


@pytest.mark.parametrize("pair", [(" Yesterday", " No"), (" Yes", " Not so"), (" Yes", "")])
def test_an_answer_of_several_tokens_or_none_is_refused(pair: tuple[str, str]) -> None:
    assert "is not one token" in refusal(PROMPT, pair)


def test_the_message_shows_the_tokens() -> None:
    assert "'▁Yes'" in refusal(PROMPT, (" Yes,", " No"))


def test_two_answers_with_the_same_token_are_refused() -> None:
    assert "same token" in refusal(PROMPT, (" Yes", " Yes"))


@lru_cache
def words_only() -> PreTrainedTokenizerFast:
    """Whole words, all others unknown; ``:a`` is one word, so that answers can merge backwards."""
    tokenizer = Tokenizer(models.WordLevel({"<unk>": 0, "x:": 1, "a": 2, "x:a": 3}, "<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(" "), behavior="removed")
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="<unk>")


def test_two_unknown_words_are_the_same_token() -> None:
    assert "same token" in refusal("x:", (" oui", " non"), words_only())


def test_an_answer_that_merges_into_the_prompt_is_refused() -> None:
    """Then the prompt's own last token would change, and its logits give another thing."""
    assert "is not one token" in refusal("x:", ("a", " a"), words_only())


def test_answers_in_brackets_differ_in_one_token_after_a_shared_lead() -> None:
    """Both runs are made to say the bracket; LD is of the letters behind it."""
    tokenizer = tiny_tokenizer()
    found = find_answers(tokenizer, PROMPT, (" (a)", " (b)"))
    before = tokenizer(PROMPT, add_special_tokens=False)["input_ids"]
    for answer, token in ((" (a)", found.yes), (" (b)", found.no)):
        whole = tokenizer(PROMPT + answer, add_special_tokens=False)["input_ids"]
        assert whole[: len(before) + len(found.lead) + 1] == [*before, *found.lead, token]
    assert found.lead and tokenizer.decode(found.lead).strip() == "("
    vlm = tiny_vlm()
    both = ("Yes", "No"), ("(a)", "(b)")
    plain, led = (encode(vlm, image_pair(), QUESTION, words) for words in both)
    assert led.input_ids.tolist() == [*plain.input_ids.tolist(), *led.answers.lead]
    assert led.spans.answer == plain.spans.answer + len(led.answers.lead)
    assert [led.answers.yes] == spell(vlm, led, ("(a)", "(b)"), "(a)")[:1]
