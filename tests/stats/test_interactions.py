"""Redundant sets, on arrays whose necessities are made by a formula."""

from collections.abc import Callable
from itertools import combinations

import numpy as np
import pytest

from headpatch.heads import Grid, Head, HeadSet
from headpatch.stats.interactions import (
    HeldOutSets,
    excesses,
    judge_sets,
    leave_one_out,
    necessity_of,
    partners,
)
from headpatch.stats.verdict_labels import Rule

RULE = Rule(delta=0.02, level=0.95, resamples=400, seed=0)
PAIRS, GRID = 40, Grid(1, 6)
HEADS = list(GRID)
Necessity = Callable[[frozenset[int]], float]


def either(*members: int, size: float = 0.3) -> Necessity:
    """One of these suffices: only all of them together are missed."""
    return lambda gone: size * (set(members) <= gone)


def added(**sizes: float) -> Necessity:
    """Each head's own effect; named h0, h1, …"""
    return lambda gone: sum(sizes.get(f"h{head}", 0.0) for head in gone)


def measured(*parts: Necessity, noise: float = 0.01, seed: int = 0, most: int = 3):
    """Every set's joint necessity, up to so many heads, and that of every head alone."""
    rng = np.random.default_rng(seed)
    joint = {}
    for size in range(1, most + 1):
        for gone in combinations(range(len(HEADS)), size):
            members = HeadSet(tuple(HEADS[index] for index in gone))
            value = sum(part(frozenset(gone)) for part in parts)
            joint[members] = value + rng.normal(0, noise, PAIRS)
    alone = np.stack([joint.pop(HeadSet.of(head)) for head in HEADS], 1)[:, None]
    return joint, alone


def sets(*names: str) -> tuple[HeadSet, ...]:
    return tuple(map(HeadSet.parse, names))


def test_the_excess_of_two_heads_is_what_they_do_beyond_their_sum() -> None:
    joint, alone = measured(either(0, 1), added(h0=0.1))
    (members,) = sets("0.0+0.1")
    both = joint[members] - alone[:, 0, 0] - alone[:, 0, 1]
    np.testing.assert_allclose(excesses(members, joint, alone), np.stack([both, both], 1))
    np.testing.assert_allclose(necessity_of(HeadSet.of(Head(0, 1)), joint, alone), alone[:, 0, 1])


@pytest.mark.parametrize(
    ("name", "parts", "tested", "redundant"),
    [
        ("either of two", [either(0, 1)], "0.0+0.1", True),
        ("any of three", [either(0, 1, 2)], "0.0+0.1+0.2", True),
        ("any of three, by two", [either(0, 1, 2)], "0.0+0.1", False),
        ("one too many", [either(0, 1)], "0.0+0.1+0.2", False),
        ("one that only adds", [either(0, 1), added(h2=0.3)], "0.0+0.1+0.2", False),
        ("effects that add", [added(h0=0.3, h1=0.3)], "0.0+0.1", False),
        ("a backup of a necessary head", [either(0, 1), added(h0=0.2)], "0.0+0.1", True),
        ("nothing", [], "0.0+0.1", False),
        ("below the smallest effect", [either(0, 1, size=0.015)], "0.0+0.1", False),
        ("a brake with its backup", [either(0, 1), added(h0=-0.2, h1=-0.2)], "0.0+0.1", False),
    ],
)
def test_every_member_must_be_needed(
    name: str, parts: list[Necessity], tested: str, redundant: bool
) -> None:
    joint, alone = measured(*parts)
    (row,) = judge_sets([HeldOutSets(sets(tested), joint, alone)], RULE).to_dict("records")
    assert row["redundant"] == redundant, name
    assert row["joint_low"] <= row["joint"] <= row["joint_high"]
    assert row["excess_low"] <= row["excess"] <= row["excess_high"]


def test_the_excess_that_is_shown_is_the_weakest_members() -> None:
    joint, alone = measured(either(0, 1, 2), noise=0.0)
    joint[HeadSet.parse("0.0+0.1")] += 0.1  # 0.2 adds that much less once they are gone
    (row,) = judge_sets([HeldOutSets(sets("0.0+0.1+0.2"), joint, alone)], RULE).to_dict("records")
    assert row["joint"] == pytest.approx(0.3)
    assert row["excess"] == pytest.approx(0.2)
    assert row["redundant"]


def test_partners_are_the_others_of_each_set_the_fewest_first() -> None:
    joint, alone = measured(either(0, 1, size=0.2), either(0, 2, 3), either(4, 5, size=0.001))
    tested = sets("0.0+0.2+0.3", "0.0+0.1", "0.4+0.5")
    found = partners(judge_sets([HeldOutSets(tested, joint, alone)], RULE))
    assert {str(head): list(map(str, others)) for head, others in found.items()} == {
        "0.0": ["0.1", "0.2+0.3"],
        "0.1": ["0.0"],
        "0.2": ["0.0+0.3"],
        "0.3": ["0.0+0.2"],
    }
    others = leave_one_out(HeadSet.parse("0.0+0.2+0.3"))
    assert list(map(str, others)) == ["0.2+0.3", "0.0+0.3", "0.0+0.2"]


def test_nothing_tested_gives_an_empty_table() -> None:
    joint, alone = measured()
    table = judge_sets([HeldOutSets((), joint, alone)], RULE)
    assert table.empty and partners(table) == {}


def test_what_cannot_be_tested_is_refused() -> None:
    joint, alone = measured()
    with pytest.raises(ValueError, match="two heads or more"):
        judge_sets([HeldOutSets(sets("0.0"), joint, alone)], RULE)
    del joint[HeadSet.parse("0.0+0.1")]
    with pytest.raises(KeyError):
        judge_sets([HeldOutSets(sets("0.0+0.1+0.2"), joint, alone)], RULE)


def test_without_redundancy_few_sets_are_called_redundant() -> None:
    """100 studies of 15 pairs and 20 triples: everything adds, and each head matters alone."""
    rule = Rule(delta=1e-6, level=0.95, resamples=100, seed=0)
    called = 0
    for seed in range(100):
        joint, alone = measured(added(h0=0.3, h1=0.2, h2=0.1), noise=0.1, seed=seed)
        tested = [one for one in joint if len(one) in (2, 3)]
        called += bool(judge_sets([HeldOutSets(tested, joint, alone)], rule)["redundant"].any())
    assert called <= 5
