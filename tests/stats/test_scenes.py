"""Scenes as the unit: means of their pairs, and intervals that cover where pairs share a scene."""

import numpy as np
import pytest

from benchmarks.scenes import coverage
from headpatch.stats.scenes import by_scene, shared_words


def test_each_scene_is_the_mean_of_its_pairs_in_the_order_of_its_first() -> None:
    values = np.array([[1.0, 10.0], [2.0, np.nan], [6.0, 30.0], [4.0, np.nan]])
    found = by_scene(values, np.array([5, 1, 5, 1]))
    np.testing.assert_array_equal(found, [[3.5, 20.0], [3.0, np.nan]])
    partly = by_scene(np.array([1.0, np.nan, 5.0]), np.array([0, 0, 1]))
    np.testing.assert_array_equal(partly, [1.0, 5.0])  # a pair without a figure does not count


def test_values_stay_what_they_are_where_each_pair_is_a_scene() -> None:
    values = np.random.default_rng(0).normal(size=(5, 2, 3)).astype(np.float32)
    assert by_scene(values, np.array([3, 1, 0, 9, 7])) is values


def test_as_many_scenes_as_pairs_are_asked_for() -> None:
    with pytest.raises((ValueError, TypeError)):  # TypeError: where types are checked
        by_scene(np.zeros(3), np.zeros(2, dtype=int))


def test_words_say_how_many_pairs_show_how_many_scenes() -> None:
    assert shared_words(40, 40) == ""
    assert shared_words(40, 4) == ("40 pairs show 4 scenes: pairs that share pictures count as one")
    assert shared_words(2, 1).startswith("2 pairs show 1 scene:")


def test_intervals_over_scenes_cover_where_those_over_pairs_fall_short() -> None:
    assert coverage("pairs", 300) < 0.75
    assert coverage("scenes", 300) >= 0.93
