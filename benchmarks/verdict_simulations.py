"""False calls and power of the verdicts' rule, in simulated studies whose truth is known.

No model is run. A study has heads by pairs, necessity and sufficiency; δ is 2% of the difference,
the level 95%. The first table has no mean that differs from 0: the share of studies with any head
called, and such heads a study. The second has 12 of 128 heads with a true necessity: the share of
them called, and false calls a study. "t" is the rule without `resampled_q`: the q of a t-test over
all heads and both directions, and an interval beyond ±δ; "both" is the rule of a verdict.

    python -m benchmarks.verdict_simulations [--studies 300] [--resamples 500] [--part null power]
"""

import argparse
from collections.abc import Callable

import numpy as np

from headpatch.stats.intervals import mean_interval
from headpatch.stats.significance import adjusted, minimum_effect_test, resampled_q

DELTA, LEVEL = 0.02, 0.95
TRUE = 12
Draw = Callable[[np.random.Generator, tuple[int, int]], np.ndarray]


def rare(rng: np.random.Generator, shape: tuple[int, int]) -> np.ndarray:
    """9 in one pair of ten, -1 in the others; a third of it."""
    return np.where(rng.random(shape) < 0.1, 9.0, -1.0) / 3


def unlike(rng: np.random.Generator, shape: tuple[int, int]) -> np.ndarray:
    """Pairs differ in their spread, as those with small gaps do."""
    return rng.normal(size=shape) * rng.lognormal(size=(shape[0], 1))


def shared(rng: np.random.Generator, shape: tuple[int, int]) -> np.ndarray:
    """The heads of a pair go together."""
    return 0.7 * rng.normal(size=(shape[0], 1)) + 0.7 * rng.normal(size=shape)


NULL: dict[str, Draw] = {
    "normal": lambda rng, shape: rng.normal(size=shape),
    "t, 3 degrees": lambda rng, shape: rng.standard_t(3, shape),
    "t, 2 degrees": lambda rng, shape: rng.standard_t(2, shape),
    "exponential": lambda rng, shape: rng.exponential(1, shape) - 1,
    "lognormal": lambda rng, shape: rng.lognormal(size=shape) - np.exp(0.5),
    "rare, 1 in 10": rare,
    "rare, and noise": lambda rng, shape: rare(rng, shape) + 0.1 * rng.normal(size=shape),
    "pairs of unlike spread": unlike,
    "heads go together": shared,
}
NULL_PAIRS = (20, 50, 70, 100)
NULL_HEADS = 256  # of which each has its own spread, in all lognormal about 0.05


def added(mean: float, share: float = 1.0, spread: float = 0.0) -> Draw:
    """Effects of true heads: in a share of the pairs, of the same size but for a spread."""
    return lambda rng, shape: np.where(
        rng.random(shape) < share, rng.normal(mean, spread, shape), 0.0
    )


def noise(size: float) -> Draw:
    return lambda rng, shape: rng.normal(0, size, shape)


def tails(rng: np.random.Generator, shape: tuple[int, int]) -> np.ndarray:
    """T with 3 degrees of freedom, each head with a spread of its own about 0.02."""
    return rng.standard_t(3, shape) * rng.lognormal(np.log(0.02), 1, (1, shape[1]))


def skewed(rng: np.random.Generator, shape: tuple[int, int]) -> np.ndarray:
    size = rng.lognormal(np.log(0.02), 1, (1, shape[1]))
    return (rng.lognormal(size=shape) - np.exp(0.5)) * size


# What the true heads add, what all heads have, pairs
POWER: dict[str, tuple[Draw, Draw, tuple[int, ...]]] = {
    "2δ, sd 2δ": (added(0.04), noise(0.04), (20, 50, 100)),
    "2δ, sd 4δ": (added(0.04), noise(0.08), (20, 50, 100, 200, 400)),
    "2δ, sd 8δ": (added(0.04), noise(0.16), (100, 200, 400)),
    "15δ in a quarter of pairs": (added(0.3, 0.25), noise(0.005), (20, 50, 100)),
    "15δ in a quarter, sd 4δ": (added(0.3, 0.25), noise(0.08), (20, 50, 100)),
    "8δ in a quarter": (added(0.15, 0.25), noise(0.005), (20, 50, 100)),
    "3δ ± δ, others with tails": (added(0.06, spread=0.02), tails, (20, 50, 100)),
    "3δ ± δ, others skewed": (added(0.06, spread=0.02), skewed, (20, 50, 100)),
}


def calls(
    effects: np.ndarray,
    resamples: int,
    seed: int,
    alpha: float = 1 - LEVEL,
    q: np.ndarray | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Which columns the t-test's q and the interval call, and which `resampled_q` agrees to."""
    called = (adjusted(minimum_effect_test(effects)) if q is None else q) < alpha
    rng = np.random.default_rng([seed, 0])
    near = np.flatnonzero(called)  # the others' intervals change nothing
    if not near.size:
        return called, called
    found = mean_interval(effects[:, near], 1 - alpha, resamples, rng)
    called[near] = (found.low > DELTA) | (found.high < -DELTA)
    by_chance = resampled_q(effects, DELTA, 1 - alpha, resamples, rng)
    return called, called & (by_chance < alpha)


def null_study(draw: Draw, pairs: int, seed: int) -> np.ndarray:
    """Both directions of every head; a head's spread is its own in each."""
    rng = np.random.default_rng([seed, pairs])
    shape = (pairs, 2 * NULL_HEADS)
    return draw(rng, shape) * rng.lognormal(np.log(0.05), 1, (1, shape[1]))


def power_study(true: Draw, others: Draw, pairs: int, seed: int) -> np.ndarray:
    rng = np.random.default_rng([seed, pairs])
    effects = others(rng, (pairs, 256))
    if others in (tails, skewed):  # the true heads are even; their spread is what they add
        effects[:, :TRUE] = 0
    effects[:, :TRUE] += true(rng, (pairs, TRUE))
    return effects


def null_table(studies: int, resamples: int) -> None:
    print(
        f"{'no effect':26}{'pairs':>6}   any false: {'t':>5} {'both':>6}   a study: {'t':>6} both"
    )
    for name, draw in NULL.items():
        for pairs in NULL_PAIRS:
            false = np.array(
                [
                    [found.sum() for found in calls(null_study(draw, pairs, seed), resamples, seed)]
                    for seed in range(studies)
                ]
            )
            (t, both), (t_heads, heads) = (false > 0).mean(0), false.mean(0)
            print(
                f"{name:26}{pairs:>6}   {t:>16.1%} {both:>6.1%}   {t_heads:>15.2f} {heads:.2f}",
                flush=True,
            )


def power_table(studies: int, resamples: int) -> None:
    print(f"{'true effect':26}{'pairs':>6}   power: {'t':>5} both   false a study: {'t':>5} both")
    for name, (true, others, sizes) in POWER.items():
        for pairs in sizes:
            found = [
                calls(power_study(true, others, pairs, seed), resamples, seed)
                for seed in range(studies)
            ]
            hits = np.array([[one[:TRUE].mean() for one in both] for both in found]).mean(0)
            false = np.array([[one[TRUE:].sum() for one in both] for both in found]).mean(0)
            print(
                f"{name:26}{pairs:>6}   {hits[0]:>12.2f} {hits[1]:.2f}"
                f"   {false[0]:>20.2f} {false[1]:.2f}",
                flush=True,
            )


def main() -> None:
    tables = {"null": null_table, "power": power_table}
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--studies", type=int, default=300, help="of each row")
    parser.add_argument("--resamples", type=int, default=500)
    parser.add_argument("--part", nargs="+", choices=tables, default=list(tables))
    options = parser.parse_args()
    error = 1.96 * (LEVEL * (1 - LEVEL) / options.studies) ** 0.5
    print(f"{options.studies} studies a row: a share of 5% is known to ±{error:.1%}")
    for part in options.part:
        tables[part](options.studies, options.resamples)


if __name__ == "__main__":
    main()
