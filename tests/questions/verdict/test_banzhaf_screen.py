"""Scores of heads in random company, against sums over every set."""

from itertools import product

import numpy as np
import pytest

from headpatch.heads import Grid
from headpatch.questions.verdict.banzhaf_screen import SHARES, as_sets, random_members, scores

GRID = Grid(2, 4)


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
    drawn = [random_members(GRID, 1_000, 0, place) for place in range(pairs)]
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
