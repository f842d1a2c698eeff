"""Axes and scales say what lies on them."""

import pytest

from headpatch.present.charts import unread


@pytest.mark.parametrize("axis", ["x", "y"])
def test_only_layers_past_the_one_that_is_read_are_shaded(axis: str) -> None:
    assert unread(3, 4, axis) == []
    (shade,) = unread(2, 4, axis)
    assert shade[f"{axis}0"] == 2.5
    assert shade[f"{axis}1"] > 3
