"""Answers laid side by side: every token has one slot, equal tokens meet, order is kept."""

from hypothesis import given
from hypothesis import strategies as st

from headpatch.core.teacher_forcing import Answer
from headpatch.questions.trace.token_alignment import align, listed, slots_of

WORDS = st.lists(st.lists(st.sampled_from("abcd"), min_size=1, max_size=6), min_size=1, max_size=5)


@given(WORDS)
def test_every_token_has_a_slot_and_their_order_is_kept(answers: list[list[str]]) -> None:
    slots = align(answers)
    assert all(any(token is not None for token in slot) for slot in slots)
    for place, answer in enumerate(answers):
        tokens = [slot[place] for slot in slots if slot[place] is not None]
        assert tokens == list(range(len(answer)))


@given(st.lists(st.sampled_from("abcd"), min_size=1, max_size=6), st.integers(1, 4))
def test_equal_answers_are_aligned_token_by_token(answer: list[str], count: int) -> None:
    assert align([answer] * count) == [(place,) * count for place in range(len(answer))]


def said(text: str) -> Answer:
    words = tuple(text.split())
    return Answer("with", tuple(range(len(words))), words, text)


def test_shape_and_place_words_share_a_slot() -> None:
    slots = slots_of(
        [
            said("Yes , there is a square in the top left corner ."),
            said("Yes , there is a ring in the top right corner ."),
            said("Yes , there is a ring in the bottom left corner ."),
        ]
    )
    assert [dict(one.texts) for one in slots if len(one.texts) > 1] == [
        {"ring": 2, "square": 1},
        {"top": 2, "bottom": 1},
        {"left": 2, "right": 1},
    ]
    assert all(one.answers == [0, 1, 2] for one in slots)
    assert [one.index for one in slots] == list(range(12))


def test_a_word_of_more_tokens_begins_in_the_slot_of_the_shorter_one() -> None:
    """The first token decides which word it is; the others are in slots of their own."""
    slots = align([["a", "ring", "here"], ["a", "tri", "angle", "here"], ["a", "ring", "here"]])
    assert slots == [(0, 0, 0), (1, 1, 1), (None, 2, None), (2, 3, 2)]


def test_what_stands_before_the_middle_answer_or_is_left_out_of_it() -> None:
    assert align([["a", "b"], ["a", "b"], ["x", "y", "a", "b"], ["b"]]) == [
        (None, None, 0, None),
        (None, None, 1, None),
        (0, 0, 2, None),
        (1, 1, 3, 0),
    ]


def test_a_label_lists_the_most_common_tokens() -> None:
    assert listed({"ring": 3}) == "ring"
    assert listed({"ring": 3, "square": 2, "cross": 1}) == "ring/square/cross"
    assert listed({"ring": 3, "square": 2, "cross": 1, "disc": 1}) == "ring/square/cross/…"
    assert listed({}) == ""
