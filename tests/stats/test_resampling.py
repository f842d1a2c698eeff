"""Many pairs in bounded memory: whatever is cut into blocks has the bits of what is not."""

import tracemalloc
from collections.abc import Callable

import numpy as np
import pytest
from scipy.stats import t

from headpatch.stats import resampling
from headpatch.stats.circuit_areas import SHARES, circuit_areas
from headpatch.stats.disattenuated_rank_correlation import true_correlation
from headpatch.stats.intervals import mean_interval, t_interval
from headpatch.stats.per_pair import extremes
from headpatch.stats.rankings import correlation, effect_size, spearman
from headpatch.stats.ratio import dominating_pair, ratio_of_means
from headpatch.stats.resampling import ALIGNED, MANY, Resamples, blocks, cubes
from headpatch.stats.scenes import by_scene
from headpatch.stats.significance import (
    Moments,
    _beyond,
    effective_pairs,
    layer_rank,
    minimum_effect_test,
    resampled_q,
)
from headpatch.stats.verdict_labels import Rule
from headpatch.stats.verdicts import Observed, judge

PAIRS, SHAPE = 60, (6, 32)
RULE = Rule(0.02, 0.95, 300, 0)
Array = np.ndarray


def generator() -> np.random.Generator:
    return np.random.default_rng(7)


def effects(pairs: int = PAIRS, shape: tuple[int, ...] = SHAPE) -> Array:
    """Skewed, and of sizes that run from nothing to half of the difference."""
    rng = np.random.default_rng([pairs, *shape])
    size = 0.5 * 0.8 ** np.arange(np.prod(shape)).reshape(shape)
    return rng.normal(0, 0.02, (pairs, *shape)) + size * rng.exponential(1, (pairs, *shape))


def shrunk(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a block hold so little that every statistic takes several."""
    monkeypatch.setattr(resampling, "BLOCK", PAIRS * ALIGNED)
    resampling._lately.clear()


def judged() -> list[bytes]:
    scenes = generator().permutation(np.arange(PAIRS) // 2)
    levels = [["circle", "square", "star"][place % 3] for place in range(PAIRS)]
    lds = np.stack([generator().normal(4, 1, PAIRS), generator().normal(-4, 1, PAIRS)])
    looks = effects() / 10
    looks[:, 0, 0] = np.nan
    found = [
        judge(
            Observed(looks, effects(), effects()[::-1], raw=looks / 10, lds=lds, scenes=own,
                     factors={"shape": levels}),
            RULE,
        )
        for own in (None, scenes)
    ]  # fmt: skip
    tables = [table for one in found for table in (one.heads, one.factors)]
    return [table.to_csv(float_format="%.17g").encode() for table in tables]


def numbers(found: object) -> list[float]:
    return [value for value in vars(found).values() if isinstance(value, float)]


STATISTICS: dict[str, Callable[[], object]] = {
    "interval": lambda: mean_interval(effects(), 0.95, 500, generator()).ends,
    "t": lambda: t_interval(effects(), 0.95).ends,
    "p": lambda: minimum_effect_test(effects(), 0.02),
    "q": lambda: resampled_q(effects(), 0.02, 0.95, 300, generator()),
    "pairs that carry": lambda: effective_pairs(effects()),
    "ranks in a layer": lambda: layer_rank(effects()),
    "dominating": lambda: dominating_pair(effects()),
    "ratio": lambda: (
        ratio_of_means(
            effects(), effects()[:, 0, 0] + 8, 0.95, 300, generator(), np.arange(PAIRS) // 2
        ).ends
    ),
    "scenes": lambda: by_scene(effects(), np.arange(PAIRS) // 3),
    "rho": lambda: numbers(correlation(*[effects().reshape(PAIRS, -1)] * 3, 0.95)),
    "true rho": lambda: numbers(
        true_correlation(*(effects()[::way].reshape(PAIRS, -1) for way in (1, -1, 1)), 0.95)
    ),
    "verdicts": judged,
}


@pytest.mark.parametrize("name", STATISTICS)
def test_blocks_change_no_bit(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = STATISTICS[name]()
    shrunk(monkeypatch)
    assert len(list(blocks(PAIRS, SHAPE[0] * SHAPE[1]))) > 1
    np.testing.assert_array_equal(STATISTICS[name](), whole)


def test_draws_are_those_of_one_call_and_move_the_generator_on(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(resampling, "BLOCK", 1000)
    resampling._lately.clear()
    rngs = [generator() for _ in range(3)]
    plain = rngs[0].multinomial(90, np.full(90, 1 / 90), size=200)
    first, again = (Resamples.draw(90, 200, rng) for rng in rngs[1:])
    assert again is first and len(first.counts) > 1
    np.testing.assert_array_equal(np.concatenate(list(first.weights())), plain / 90)
    assert len({str(rng.bit_generator.state) for rng in rngs}) == 1
    assert Resamples.draw(90, 200, rngs[0]) is not first  # in another state


def test_what_was_drawn_is_kept_within_bounds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resampling, "_KEPT", 50_000)
    resampling._lately.clear()
    for seed in range(5):
        Resamples.draw(100, 200, np.random.default_rng(seed))
    assert [one.size for one, _ in resampling._lately.values()] == [20_000] * 2


def test_the_resampled_rate_is_that_of_all_heads_in_all_resamples() -> None:
    """The obvious twin: every power of every column, all resamples at once."""
    flat, delta, level, resamples = effects().reshape(PAIRS, -1), 0.02, 0.95, 400
    apart = flat - flat.mean(0)
    draws = generator().multinomial(PAIRS, np.full(PAIRS, 1 / PAIRS), size=resamples) / PAIRS
    mean, square, cube = (draws @ apart**power for power in (1, 2, 3))
    variance = np.maximum(square - mean**2, 0)
    error = np.sqrt(variance / (PAIRS - 1))
    third = cube - 3 * mean * square + 2 * mean**3
    skew = third / variance**1.5
    p = _beyond(Moments(mean, error, skew, PAIRS), 0.0)
    reach = t.ppf((1 + level) / 2, PAIRS - 1)
    by_chance = p[np.abs(mean) - reach * error > delta]
    found = t_interval(flat, level)
    called = (found.low > delta) | (found.high < -delta)
    own = minimum_effect_test(flat)[called]
    share = [(by_chance <= one).sum() / resamples / (own <= one).sum() for one in own]
    lowest = [min(s for s, other in zip(share, own, strict=True) if other >= one) for one in own]
    q = resampled_q(flat, delta, level, resamples, generator())
    assert len(by_chance) > 20 and 0 < called.sum() < called.size
    np.testing.assert_allclose(q[called], np.minimum(lowest, 1), rtol=1e-12)
    assert (q[~called] == 0).all()


def test_third_powers_of_many_pairs_differ_in_the_last_bit_at_most() -> None:
    values = generator().normal(size=(MANY + 1, 3))
    np.testing.assert_array_equal(cubes(values[:MANY]), values[:MANY] ** 3)
    np.testing.assert_allclose(cubes(values), values**3, rtol=3e-16)


def test_a_jackknife_leaves_pairs_out_one_by_one() -> None:
    looks, need, enough = (effects()[::way].reshape(PAIRS, -1) for way in (1, -1, 1))
    rest = [np.arange(PAIRS) != place for place in range(PAIRS)]
    rho = [spearman(looks[some].mean(0), effect_size(need[some].mean(0), enough[some].mean(0)))
           for some in rest]  # fmt: skip
    z = np.arctanh(rho)
    error = np.sqrt((PAIRS - 1) / PAIRS * ((z - z.mean()) ** 2).sum())
    found = correlation(looks, need, enough, 0.95)
    reach = t.ppf(0.975, PAIRS - 1) * error
    assert np.arctanh(found.high) - np.arctanh(found.rho) == pytest.approx(reach, rel=1e-9)

    kept = np.sort(generator().random((2, PAIRS, len(SHARES))), axis=2)
    empty, gaps = generator().normal(0, 0.01, PAIRS), generator().normal(8, 1, PAIRS)
    cpr, _ = circuit_areas(list(kept), empty, gaps, 0.95)
    left = [circuit_areas(list(kept[:, some]), empty[some], gaps[some], 0.95)[0].value
            for some in rest]  # fmt: skip
    error = np.sqrt((PAIRS - 1) / PAIRS * ((np.array(left) - np.mean(left)) ** 2).sum())
    assert cpr.high - cpr.value == pytest.approx(t.ppf(0.975, PAIRS - 1) * error, rel=1e-9)


def test_the_extremes_of_scenes_are_those_of_a_look_at_each() -> None:
    for scenes in (generator().permutation(PAIRS), generator().integers(20, size=PAIRS)):
        each = []
        for scene in np.unique(scenes):
            own = effects()[scenes == scene]
            each.append(np.take_along_axis(own, np.abs(own).argmax(0)[None], 0)[0])
        np.testing.assert_array_equal(extremes(effects(), scenes), np.stack(each))


def test_judging_takes_a_few_times_the_memory_of_its_effects(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Draws in float64 alone would take four times as much as the effects of one direction."""
    monkeypatch.setattr(resampling, "BLOCK", 1 << 18)
    resampling._lately.clear()
    looks, need, enough = (effects(3000, (8, 32)) for _ in range(3))
    levels = {"shape": [["circle", "square", "star"][place % 3] for place in range(3000)]}
    tracemalloc.start()
    judge(Observed(looks, need, enough, factors=levels), Rule(0.02, 0.95, 1000, 0))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 6 * need.nbytes
