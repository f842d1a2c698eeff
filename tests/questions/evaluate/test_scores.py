"""How texts are read: POPE's rule, words in a text, CHAIR's counts, by hand."""

import pytest

from headpatch.errors import InputError
from headpatch.pairs.labelled import Labelled
from headpatch.questions.evaluate.scores import (
    Objects,
    by_objects,
    by_pope,
    by_word,
    contains,
    exact,
    pope_answer,
    two_choices,
)

TABLE = ["person, man, woman", "dog, puppy, hot dog lover", "bus", "traffic light, stop light"]


def row(answer: str = "", **more: object) -> Labelled:
    return Labelled("r", "picture.png", "What is there?", answer, **more)


@pytest.mark.parametrize(
    ("text", "read"),
    [
        ("Yes, there is a dog.", "yes"),
        ("No, there is not.", "no"),
        ("no", "no"),
        ("There is not, I think", "no"),
        ("I see a dog. No cat.", "yes"),  # the first sentence alone
        ("NO", "yes"),  # as published: capitals are another word
        ("nothing", "yes"),
        ("No\nidea", "yes"),  # words are parted by spaces alone
        ("", "yes"),
    ],
)
def test_a_text_is_read_as_pope_reads_it(text: str, read: str) -> None:
    assert pope_answer(text) == read


def test_pope_is_of_yes_and_no_alone() -> None:
    found = by_pope([["Yes.", "No."], ["Maybe", "no"]], [row("yes"), row("No")])
    assert found.right is not None and found.yes is not None
    assert found.right.tolist() == [[1, 0], [0, 1]]
    assert found.yes.tolist() == [[True, True], [False, False]]
    with pytest.raises(InputError, match="wants 'left'"):
        by_pope([["left"]], [row("left")])


def test_answers_stand_in_texts_as_whole_words() -> None:
    asked = {"answer": "A dog"}
    assert exact(" a  dog. ", asked) == 1
    assert exact("a dogs", asked) == 0
    assert contains("I see a dog, there.", asked) == 1
    assert contains("I see a doghouse", asked) == 0
    assert contains("a C++ book", {"answer": "C++"}) == 1


def test_neither_is_wrong_and_no_yes() -> None:
    yes = row("Yes", choices=("Yes", "No"))
    found = by_word([["yes", " Perhaps"]], [yes])
    assert found.right is not None and found.yes is not None
    assert (found.right.ravel().tolist(), found.yes.ravel().tolist()) == ([1, 0], [True, False])


def test_yes_counts_as_yes_in_whatever_order_choices_come() -> None:
    rows = [row("no", choices=("no", "yes")), row("No", choices=("No", "Yes"))]
    assert two_choices(rows) == ("yes", "no")
    assert two_choices([*rows, row("A", choices=("A", "B"))]) == ()


def test_chair_counts_mentions_and_texts() -> None:
    """Text 1: man, dog, dog, bus, 2 of them not there; text 2: nothing; text 3: one, not there."""
    table = Objects(TABLE)
    texts = ["A man with two dogs; a puppy by the buses.", "A cat.", "Traffic lights!"]
    rows = [row(objects=("woman", "bus")), row(objects=("dog",)), row(objects=("person",))]
    assert table.mentioned(texts[0]) == ["person", "dog", "dog", "bus"]
    assert table.mentioned("a hot dog lover") == ["dog"]  # the longest name that fits
    assert table.mentioned("stop lights") == ["traffic light"]
    found = by_objects(table, [[one] for one in texts], rows)
    assert found.mentions is not None
    named, absent = found.mentions
    assert (named.tolist(), absent.tolist()) == ([[4, 0, 1]], [[2, 0, 1]])
    import numpy as np

    chair_i, chair_s = found.metrics(rows, np.arange(3), False)
    assert chair_i.values.tolist() == [3 / 5]
    assert chair_s.values.tolist() == [2 / 3]
