"""Metrics, their intervals and tests, by figures that are worked out by hand."""

import numpy as np
import pytest
from scipy.stats import binomtest

from headpatch.stats.behaviour import (
    Metric,
    by_scene_sums,
    right_together,
    sign_flip_p,
    yes_no_metrics,
)
from headpatch.stats.intervals import mean_interval


def test_popes_metrics_on_a_made_table() -> None:
    """TP 3, FP 1, FN 2, TN 4, and under the change TP 2, FP 3, FN 3, TN 2."""
    positive = np.array([1, 1, 1, 1, 1, 0, 0, 0, 0, 0], dtype=bool)
    before = np.array([1, 1, 1, 0, 0, 1, 0, 0, 0, 0], dtype=bool)
    after = np.array([1, 1, 0, 0, 0, 1, 1, 1, 0, 0], dtype=bool)
    found = yes_no_metrics(np.stack([before, after]), positive, np.arange(10))
    values = {one.name: one.values.tolist() for one in found}
    assert values["yes_rate"] == [0.4, 0.5]
    assert values["precision"] == [3 / 4, 2 / 5]
    assert values["recall"] == [3 / 5, 2 / 5]
    precision, recall = 3 / 4, 3 / 5
    assert values["f1"][0] == pytest.approx(2 * precision * recall / (precision + recall))
    assert values["f1"][1] == pytest.approx(2 / 5)


def test_a_metric_that_divides_by_nothing_is_undefined() -> None:
    no = np.zeros((2, 3), dtype=bool)
    found = {
        one.name: one for one in yes_no_metrics(no, np.array([True, True, False]), np.arange(3))
    }
    assert np.isnan(found["precision"].values).all()
    assert found["recall"].values.tolist() == [0, 0]
    ends = found["precision"].differences(0.95, 200, np.random.default_rng(0))
    assert np.isnan([ends.mean, ends.low, ends.high]).all()


@pytest.mark.parametrize("rows", [1, 3])
def test_an_accuracys_interval_is_that_of_the_mean_over_scenes(rows: int) -> None:
    """Where scenes have equally many rows; they are the unit, not the rows."""
    rng = np.random.default_rng(1)
    right = (rng.random((3, 40 * rows)) < 0.7).astype(np.float64)
    scenes = np.repeat(np.arange(40), rows)
    ends = Metric("accuracy", right, np.ones(right.shape), scenes).differences(
        0.95, 500, np.random.default_rng(2)
    )
    by_hand = (right[1:] - right[0]).reshape(2, 40, rows).mean(-1).T
    expected = mean_interval(by_hand, 0.95, 500, np.random.default_rng(2))
    for one, other in zip(ends.ends, expected.ends, strict=True):
        assert one == pytest.approx(other)


def test_the_interval_of_f1_covers_it() -> None:
    """90 % intervals of the difference in F1 between two unlike answerers, 60 scenes of 1 to 3."""
    rng, covered, studies = np.random.default_rng(0), 0, 150
    truth = 2 * 0.8 / (0.8 + 0.2 + 1) - 2 * 0.6 / (0.6 + 0.3 + 1)  # hits / (yes said + yes meant)
    for _ in range(studies):
        scenes = np.repeat(np.arange(60), rng.integers(1, 4, 60))
        positive = rng.random(len(scenes)) < 0.5
        yes = np.stack(
            [rng.random(len(scenes)) < np.where(positive, *p) for p in ((0.6, 0.3), (0.8, 0.2))]
        )
        f1 = yes_no_metrics(yes, positive, scenes)[-1]
        ends = f1.differences(0.9, 200, np.random.default_rng(3))
        covered += bool(ends.low[0] <= truth <= ends.high[0])
    assert 0.84 < covered / studies < 0.98


def test_scenes_that_all_differ_alike_show_only_that_others_are_rare() -> None:
    """Twelve scenes of which none changes: fewer than 26.5 % of all do, either way."""
    right = np.ones((3, 12))
    right[2] = 0
    metric = Metric("accuracy", right, np.ones(right.shape), np.arange(12))
    ends = metric.differences(0.95, 200, np.random.default_rng(0))
    rare = 1 - 0.025 ** (1 / 12)
    assert rare == pytest.approx(0.265, abs=5e-4)
    assert ends.low.tolist() == pytest.approx([-rare, -1])
    assert ends.high.tolist() == pytest.approx([rare, -1 + 2 * rare])


def test_groups_are_right_where_all_their_rows_are() -> None:
    """NaturalBench's: of two groups of four, by group, by question, by picture."""
    right = np.array([[1, 1, 1, 1, 1, 1, 0, 1, 0]], dtype=np.float64)
    group = np.array([0, 0, 0, 0, 1, 1, 1, 1, 2])
    question = np.array([0, 0, 1, 1, 2, 2, 3, 3, 4])
    picture = np.array([0, 1, 0, 1, 2, 3, 2, 3, 4])
    found = [right_together("x", right, one, group) for one in (group, question, picture)]
    assert [one.values.tolist() for one in found if one] == [[1 / 2], [3 / 4], [3 / 4]]
    assert right_together("x", right, np.arange(9), group) is None


@pytest.mark.parametrize(("lost", "gained"), [(0, 0), (1, 0), (9, 2), (5, 5), (30, 12)])
def test_flipped_signs_are_mcnemars_exact_test(lost: int, gained: int) -> None:
    differences = np.array([1] * lost + [-1] * gained + [0] * 7)
    expected = binomtest(lost, lost + gained).pvalue if lost + gained else 1.0
    assert sign_flip_p(differences) == pytest.approx(expected)


def test_flipped_signs_of_scenes_are_every_choice_counted() -> None:
    """Sums of 3, -1 and 2: of 8 choices of signs, 4 lie as far from 0 as 4."""
    scenes = np.array([0, 0, 0, 1, 2, 2])
    sums = by_scene_sums(np.array([1, 1, 1, -1, 1, 1]), scenes)
    assert sums.tolist() == [3, -1, 2]
    assert sign_flip_p(sums) == pytest.approx(4 / 8)
