"""What a mean hides: tests of single pairs, and of effects by the levels of a factor."""

from collections.abc import Callable

import numpy as np
import pytest
from scipy.stats import norm

from headpatch.stats.factors import dependences
from headpatch.stats.per_pair import (
    OUTSIDE,
    extremes,
    few_outside,
    hidden_test,
    most_outside,
    tolerance_test,
)
from headpatch.stats.significance import equivalence_test
from headpatch.stats.verdict_labels import SMALL, Rule
from headpatch.stats.verdicts import Observed, judge

DELTA, LAYERS, HEADS = 0.02, 2, 16
RULE = Rule(DELTA, 0.95, 200, 0)
Draw = Callable[[np.random.Generator, int], np.ndarray]
HIDDEN: dict[str, Draw] = {
    "2δ up or down": lambda rng, n: np.where(rng.random(n) < 0.5, 2, -2) * DELTA,
    "5δ up or down": lambda rng, n: np.where(rng.random(n) < 0.5, 5, -5) * DELTA,
    "5δ in a pair of ten": lambda rng, n: np.where(rng.random(n) < 0.1, 5 * DELTA, 0),
    "15δ in a pair of 33": lambda rng, n: np.where(rng.random(n) < 1 / 33, 15 * DELTA, 0),
}


def verdicts(values: np.ndarray, seed: int) -> list[str]:
    """Judge a study whose first head has these effects, both ways, and whose others are idle."""
    rng, shape = np.random.default_rng([seed, 1]), (len(values), LAYERS, HEADS)
    looks, need, enough = (rng.normal(0, 0.002, shape) for _ in range(3))
    need[:, 0, 0] += values
    enough[:, 0, 0] += values
    return list(judge(Observed(looks, need, enough), RULE).heads["verdict"])


@pytest.mark.parametrize("n", [50, 100, 200])
@pytest.mark.parametrize("name", HIDDEN)
def test_no_head_that_acts_on_pairs_is_said_to_do_next_to_nothing(name: str, n: int) -> None:
    """Of 40 studies; a head is not called small unless no pair drawn shows what it does."""
    called = []
    for seed in range(40):
        values = HIDDEN[name](np.random.default_rng([seed, n]), n)
        first, *others = verdicts(values, seed)
        if np.abs(values).max() > DELTA:
            called.append(first)
        assert set(others) == {"inert"}
    assert not set(called) & set(SMALL)
    if "up or down" in name:
        assert set(called) == {"mixed"}


@pytest.mark.parametrize("n", [20, 59, 100, 400])
def test_the_tolerance_test_errs_as_often_as_it_says(n: int) -> None:
    """Values of which just 5% lie outside ±δ: one end at the 97.5% quantile, or both."""
    rng, z = np.random.default_rng(n), norm.ppf(1 - OUTSIDE / 2)
    for mean in (0.0, 0.5 * DELTA):
        values = rng.normal(mean, (DELTA - mean) / z, (n, 4000))
        assert np.mean(tolerance_test(values, DELTA) < 0.05) <= 0.06


def test_values_without_spread_are_judged_by_their_size() -> None:
    values = np.tile([0.0, 0.5 * DELTA, DELTA, 2 * DELTA], (20, 1))
    np.testing.assert_array_equal(tolerance_test(values, DELTA) < 0.05, [True, True, False, False])


def test_how_many_pairs_may_lie_outside_by_hand() -> None:
    """0.95^59 = 0.0485 and 0.95^58 = 0.051: no pair outside shows it from 59 on, one from 93."""
    assert [most_outside(n, 0.05) for n in (20, 58, 59, 92, 93, 123, 124)] == [0, 0, 0, 0, 1, 1, 2]
    values = np.zeros((93, 2))
    values[0] = 1
    values[1, 1] = 1
    np.testing.assert_array_equal(few_outside(values, DELTA, 0.05), [True, False])


def test_a_head_whose_mean_is_about_delta_hides_nothing() -> None:
    values = np.random.default_rng(0).normal(DELTA, 0.2 * DELTA, (100, 1))
    assert hidden_test(values, equivalence_test(values, DELTA), DELTA)[0] > 0.9


def test_the_extreme_of_a_scene_is_that_of_its_pairs() -> None:
    values = np.array([[0.1, -0.5], [-0.3, 0.2], [0.0, 0.1]])
    found = extremes(values, np.array([0, 0, 1]))
    np.testing.assert_array_equal(found, [[-0.3, -0.5], [0.0, 0.1]])


def by_shape(n: int, circle: float, square: float, seed: int) -> tuple[np.ndarray, list[str]]:
    rng = np.random.default_rng(seed)
    shapes = ["circle" if i % 2 else "square" for i in range(n)]
    values = rng.normal(0, 0.005, (n, LAYERS, HEADS))
    values[:, 0, 0] += np.where(np.array(shapes) == "circle", circle, square)
    return values, shapes


@pytest.mark.parametrize(("circle", "square"), [(0.23, 0.0), (2 * DELTA, -2 * DELTA)])
def test_an_effect_for_one_level_only_is_found_and_told(circle: float, square: float) -> None:
    values, shapes = by_shape(40, circle, square, 0)
    idle = np.random.default_rng(1).normal(0, 0.002, values.shape)
    found = judge(Observed(idle, values, idle, factors={"shape": shapes}), RULE)
    table = found.factors.set_index("level")
    assert set(zip(table["layer"], table["head"], strict=True)) == {(0, 0)}
    assert set(table["direction"]) == {"necessity"}
    for level, effect in (("circle", circle), ("square", square)):
        assert table.loc[level, "effect"] == pytest.approx(effect, abs=0.004)
        assert table.loc[level, "effect_low"] < table.loc[level, "effect_high"]
    verdict = found.heads["verdict"].iloc[0]
    assert verdict == ("mixed" if circle + square == 0 else "necessary")


def test_without_dependence_few_heads_depend_on_a_factor() -> None:
    """100 studies of 32 heads whose effects are of interest but the same for both shapes."""
    called = 0
    for seed in range(100):
        values, shapes = by_shape(40, 0.0, 0.0, seed)
        (one,) = dependences(values + 0.1, {"shape": shapes}, RULE)
        called += bool(one.shown.any())
    assert called <= 8


def test_names_and_rare_levels_are_no_factors_to_compare_by() -> None:
    values = np.random.default_rng(0).normal(size=(20, LAYERS, HEADS))
    names = [f"picture {i}" for i in range(20)]
    rare = ["red"] * 17 + ["blue"] * 3
    assert dependences(values, {"name": names, "colour": rare, "same": ["a"] * 20}, RULE) == ()
