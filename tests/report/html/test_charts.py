"""Axes and scales say what lies on them."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headpatch.present.charts import along, counts_axis, unread


@given(st.sets(st.integers(1, 5000), min_size=1, max_size=30))
def test_labels_of_counts_keep_apart_and_show_both_ends(found: set[int]) -> None:
    counts = [0, *sorted(found)]
    axis = counts_axis("k", counts)
    assert axis["ticktext"][0] == "0"
    assert axis["ticktext"][-1] == f"{counts[-1]:,}"
    room = (along(counts[-1]) - along(0)) / 11
    assert all(b - a >= room - 1e-3 for a, b in pairwise(axis["tickvals"]))


@pytest.mark.parametrize("axis", ["x", "y"])
def test_only_layers_past_the_one_that_is_read_are_shaded(axis: str) -> None:
    assert unread(3, 4, axis) == []
    (shade,) = unread(2, 4, axis)
    assert shade[f"{axis}0"] == 2.5
    assert shade[f"{axis}1"] > 3
