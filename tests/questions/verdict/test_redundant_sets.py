"""Redundant sets on necessities made by a formula; scores of heads against sums over every set."""

from collections.abc import Callable, Sequence
from itertools import product

import numpy as np
import pytest

from headpatch.heads import Grid, Head, HeadSet
from headpatch.questions.verdict.redundant_sets import (
    SHARES,
    Search,
    as_sets,
    pool,
    random_members,
    scores,
)

GRID = Grid(3, 8)
HEADS = list(GRID)
PAIRS, DELTA = 8, 0.02
Necessity = Callable[[set[Head]], float]


def either(*names: str, size: float = 0.3) -> Necessity:
    """Only all of these together are missed."""
    members = {Head.parse(name) for name in names}
    return lambda gone: size * (members <= gone)


def some_of(*names: str, missed: int, size: float = 0.3) -> Necessity:
    """It takes so many of these to be missed; then each more costs as much again."""
    members = {Head.parse(name) for name in names}
    return lambda gone: size * max(len(members & gone) - missed + 1, 0)


def alone(name: str, size: float = 0.3) -> Necessity:
    return lambda gone: size * (Head.parse(name) in gone)


class Model:
    """Noises sets; counts what it was asked."""

    def __init__(self, *parts: Necessity, noise: float = 0.002) -> None:
        self.parts, self.noise, self.visits, self.asked = parts, noise, 0, 0
        self.rng = np.random.default_rng(0)

    def __call__(self, sets: Sequence[HeadSet]) -> np.ndarray:
        self.visits, self.asked = self.visits + 1, self.asked + len(sets)
        values = [sum(part(set(one.heads)) for part in self.parts) for one in sets]
        return np.array(values) + self.rng.normal(0, self.noise, (PAIRS, len(sets)))

    @property
    def alone(self) -> np.ndarray:
        return self([HeadSet.of(head) for head in HEADS]).reshape(PAIRS, GRID.layers, GRID.heads)


def found(*parts: Necessity, among: Sequence[Head] = HEADS, pairs: int = 8) -> set[str]:
    model = Model(*parts)
    return set(map(str, Search(model, model.alone, DELTA).sets(among, pairs)))


@pytest.mark.parametrize(
    ("parts", "wanted"),
    [
        ([], ""),
        ([alone("0.1"), alone("2.2")], ""),  # effects that add
        ([either("0.1", "2.2")], "0.1+2.2"),
        ([either("0.1", "1.3", "2.2")], "0.1+1.3+2.2"),
        ([either("0.0", "0.1", "1.3", "2.2", "2.7")], "0.0+0.1+1.3+2.2+2.7"),
        # two groups, which add
        ([either("0.1", "2.2"), either("0.3", "1.1", "2.1"), alone("1.0")], "0.1+2.2 0.3+1.1+2.1"),
        # a backup of a necessary head
        ([alone("0.1"), either("0.1", "2.2")], "0.1+2.2"),
        # every two of three
        ([some_of("0.1", "1.3", "2.2", missed=2)], "0.1+1.3+2.2 0.1+1.3 0.1+2.2 1.3+2.2"),
    ],
)
def test_sets_of_which_each_head_is_needed_are_found(parts: list[Necessity], wanted: str) -> None:
    assert found(*parts) == set(wanted.split())


def test_a_head_that_was_dropped_may_belong_to_a_later_set() -> None:
    """Where one group hides another: what is left of the pool is searched again."""
    first, second = ["0.0", "0.1", "0.2"], ["1.0", "1.1", "1.2"]

    def hidden(gone: set[Head]) -> float:
        one, two = (all(Head.parse(name) in gone for name in group) for group in (first, second))
        return 0.5 * (one or two)

    assert {"0.0+0.1+0.2", "1.0+1.1+1.2"} <= found(hidden)


def test_at_most_so_many_pairs_are_kept_those_with_the_largest_excess() -> None:
    parts = [either("0.0", f"1.{head}", size=0.1 + head / 10) for head in range(5)]
    kept = found(*parts, among=[Head.parse(n) for n in ("0.0", "1.0", "1.4", "1.2")], pairs=1)
    assert "0.0+1.4" in kept and "0.0+1.0" not in kept


def test_no_set_is_noised_twice() -> None:
    model = Model(either("0.1", "1.3", "2.2"), either("0.4", "2.4"))
    seen: list[HeadSet] = []

    def noise(sets: Sequence[HeadSet]) -> np.ndarray:
        seen.extend(sets)
        return model(sets)

    Search(noise, model.alone, DELTA).sets(HEADS, 8)
    assert len(set(seen)) == len(seen)
    assert all(len(one) > 1 for one in seen)
    assert model.visits <= 14


def test_fewer_than_two_heads_are_no_set() -> None:
    assert found(alone("0.1"), among=HEADS[:1]) == set()


def test_the_pool_is_half_by_score_and_half_by_effect() -> None:
    size, score = np.zeros((3, 8)), np.zeros((3, 8))
    size[0, :4] = 0.4, 0.3, 0.2, 0.1
    score[1, :4] = 0.1, 0.2, 0.3, 0.4
    score[0, 1] = 0.25
    assert list(map(str, pool(GRID, 4, size, score))) == ["1.3", "1.2", "0.1", "0.0"]
    assert list(map(str, pool(GRID, 3, size, score))) == ["1.3", "1.2", "0.0"]
    assert list(map(str, pool(GRID, 3, size, None))) == ["0.0", "0.1", "0.2"]
    assert pool(GRID, 0, size, score) == ()


SMALL = Grid(2, 4)


def necessity(gone: np.ndarray) -> float:
    """0.0 adds 0.2; of 0.1 and 0.2 either suffices; so does any of 1.0, 1.1 and 1.2."""
    return 0.2 * gone[0] + 0.4 * gone[[1, 2]].all() + 0.8 * gone[[4, 5, 6]].all()


def exact(share: float) -> np.ndarray:
    """The mean excess of all sets with each head less that of all without it."""
    every = np.array(list(product([False, True], repeat=8)))
    weight = np.where(every, share, 1 - share).prod(1)
    alone = np.array([necessity(np.arange(8) == head) for head in range(8)])
    excess = np.array([necessity(gone) for gone in every]) - every @ alone
    with_it = [np.average(excess[every[:, h]], weights=weight[every[:, h]]) for h in range(8)]
    without = [np.average(excess[~every[:, h]], weights=weight[~every[:, h]]) for h in range(8)]
    return np.array(with_it) - without


def test_scores_are_what_a_head_adds_in_random_company_beyond_what_it_does_alone() -> None:
    assert exact(1 / 2)[[0, 1, 4, 7]] == pytest.approx([0, 0.4 / 2, 0.8 / 4, 0])
    pairs = 20
    drawn = [random_members(SMALL, 1_000, 0, place) for place in range(pairs)]
    effects = [np.array([necessity(gone) for gone in members]) for members in drawn]
    alone = np.array([necessity(np.arange(8) == head) for head in range(8)]).reshape(2, 4)
    found = scores(drawn, effects, np.stack([alone] * pairs))
    wanted = np.max([exact(share) for share in SHARES], axis=0).reshape(2, 4)
    np.testing.assert_allclose(found, wanted, atol=0.02)


def test_random_sets_hold_their_share_and_are_never_empty() -> None:
    members = random_members(Grid(8, 8), 400, 0, 0)
    for turn, share in enumerate(SHARES):
        assert members[turn :: len(SHARES)].mean() == pytest.approx(share, abs=0.02)
    assert (random_members(Grid(1, 2), 200, 0, 0).sum(1) > 0).all()
    sets = as_sets(Grid(8, 8), members)
    assert [len(one) for one in sets] == list(members.sum(1))
    assert (random_members(Grid(8, 8), 400, 0, 1) != members).any()  # other pairs, other sets
    assert (random_members(Grid(8, 8), 400, 0, 0) == members).all()
