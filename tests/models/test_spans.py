"""Spans are found from token ids, wherever the image stands."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from headpatch.errors import InputError
from headpatch.models.spans import find_spans

IMAGE = 99
counts = st.integers(0, 12)


@given(before=counts, image=st.integers(1, 30), after=st.integers(1, 12), data=st.data())
def test_the_scopes_of_a_prompt(before: int, image: int, after: int, data: st.DataObject) -> None:
    text = data.draw(st.lists(st.integers(0, 98), min_size=before + after, max_size=before + after))
    ids = torch.tensor([*text[:before], *[IMAGE] * image, *text[before:]])
    spans = find_spans(ids, IMAGE)
    places = {
        scope: spans.positions(scope).tolist() for scope in ("answer", "question", "image", "all")
    }
    assert places["all"] == list(range(len(ids)))
    assert places["answer"] == [len(ids) - 1] == [spans.answer]
    assert places["image"] == list(range(before, before + image))
    assert places["question"] == list(range(before + image, len(ids)))
    assert (ids[places["image"]] == IMAGE).all()
    assert (ids[places["question"]] != IMAGE).all()
    assert places["answer"][0] in places["question"]


def test_the_question_begins_after_the_last_image_token() -> None:
    spans = find_spans(torch.tensor([1, IMAGE, IMAGE, 5, IMAGE, 6, 7]), IMAGE)
    assert spans.positions("image").tolist() == [1, 2, 4]
    assert spans.positions("question").tolist() == [5, 6]


def test_a_prompt_without_an_image_is_refused() -> None:
    with pytest.raises(InputError, match="no image token"):
        find_spans(torch.tensor([1, 2, 3]), IMAGE)


def test_a_scope_without_positions_is_refused() -> None:
    with pytest.raises(InputError, match="question"):
        find_spans(torch.tensor([1, IMAGE]), IMAGE).positions("question")
