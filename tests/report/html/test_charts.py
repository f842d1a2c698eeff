"""Axes and scales say what lies on them."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from headpatch.present.charts import along, counts_axis, rooted_heat, rooted_ticks, unread


@given(st.sets(st.integers(1, 5000), min_size=1, max_size=30))
def test_labels_of_counts_keep_apart_and_show_both_ends(found: set[int]) -> None:
    counts = [0, *sorted(found)]
    axis = counts_axis("k", counts)
    assert axis["ticktext"][0] == "0"
    assert axis["ticktext"][-1] == f"{counts[-1]:,}"
    room = (along(counts[-1]) - along(0)) / 11
    assert all(b - a >= room - 1e-3 for a, b in pairwise(axis["tickvals"]))


def test_ticks_of_a_root_scale_say_the_values() -> None:
    ticks = rooted_ticks(0.16, (-1.0, 0.0, 0.25, 1.0))
    assert ticks["tickvals"] == pytest.approx([-0.4, 0, 0.2, 0.4])
    assert [float(one.replace("−", "-")) for one in ticks["ticktext"]] == pytest.approx(
        [-0.16, 0, 0.04, 0.16]
    )


def test_a_root_map_is_symmetric_about_0() -> None:
    drawn = rooted_heat(np.array([[0.04, -0.01]]), [["a", "b"]], 0.09)
    assert drawn["z"] == [pytest.approx([0.2, -0.1])]
    assert (drawn["zmin"], drawn["zmax"]) == pytest.approx((-0.3, 0.3))


@pytest.mark.parametrize("axis", ["x", "y"])
def test_only_layers_past_the_one_that_is_read_are_shaded(axis: str) -> None:
    assert unread(3, 4, axis) == []
    (shade,) = unread(2, 4, axis)
    assert shade[f"{axis}0"] == 2.5
    assert shade[f"{axis}1"] > 3
