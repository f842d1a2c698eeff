"""How often intervals of a mean cover it, where the mean is known.

Studies of few and many pairs are drawn from each distribution; a row gives, for each method, the
share of its 95% intervals that cover the mean, in percent, and their median width over that of
Student's t. `mean_interval`, which every verb uses, is the first: the outer of the next three. What
it was chosen over comes last: the outer of BCa and t alone, and the bootstrap-t (quantiles of the
resampled means over their resampled errors).

    python benchmarks/interval_coverage.py [--studies 4000] [--resamples 1000]
"""

import argparse
from collections.abc import Callable
from math import sqrt

import numpy as np
from scipy.stats import norm

from headpatch.stats.intervals import (
    Interval,
    bca_interval,
    hall_interval,
    mean_interval,
    t_interval,
)

LEVEL = 0.95
PAIRS = (10, 20, 30, 50, 100, 200)
BATCH = 250  # studies that share their resamples
Draw = Callable[[np.random.Generator, tuple[int, int]], np.ndarray]
Method = Callable[[np.ndarray, int, np.random.Generator], Interval]


def some(share: float) -> Draw:
    """Effects of a head that acts in some pairs only."""
    return lambda rng, shape: np.where(rng.random(shape) < share, rng.normal(0.7, 0.2, shape), 0.0)


def more(share: float) -> Draw:
    """Effects of a head that acts in some pairs, and varies about 0 in the others."""
    return lambda rng, shape: np.where(
        rng.random(shape) < share, rng.normal(3, 1, shape), rng.normal(0, 0.5, shape)
    )


def flips(share: float) -> Draw:
    """Whether each pair's answer flips."""
    return lambda rng, shape: (rng.random(shape) < share).astype(float)


KNOWN: dict[str, tuple[Draw, float]] = {
    "normal": (lambda rng, shape: rng.normal(3, 2, shape), 3.0),
    "uniform": (lambda rng, shape: rng.random(shape), 0.5),
    "one to five": (lambda rng, shape: rng.integers(1, 6, shape).astype(float), 3.0),
    "exponential": (lambda rng, shape: rng.exponential(1, shape), 1.0),
    "lognormal": (lambda rng, shape: rng.lognormal(size=shape), float(np.exp(0.5))),
    "gamma, shape 1/2": (lambda rng, shape: rng.gamma(0.5, size=shape), 0.5),
    "t, 5 degrees": (lambda rng, shape: rng.standard_t(5, shape), 0.0),
    "t, 3 degrees": (lambda rng, shape: rng.standard_t(3, shape), 0.0),
    "acts in 1 of 2": (some(0.5), 0.35),
    "acts in 1 of 4": (some(0.25), 0.175),
    "more in 1 of 10": (more(0.1), 0.3),
    "flips in 1 of 2": (flips(0.5), 0.5),
    "flips in 1 of 4": (flips(0.25), 0.25),
    "flips in 1 of 10": (flips(0.1), 0.1),
}


def studentized(values: np.ndarray, resamples: int, rng: np.random.Generator) -> Interval:
    """The bootstrap-t interval; a resample without spread lies endlessly far out."""
    n, mean = len(values), values.mean(0)
    apart, error = values - mean, values.std(0, ddof=1) / sqrt(n)
    draws = rng.multinomial(n, np.full(n, 1 / n), size=resamples) / n
    means = draws @ apart
    errors = np.sqrt(np.maximum(draws @ apart**2 - means**2, 0) / (n - 1))
    flat = errors <= 1e-9 * error
    ratio = np.where(flat, np.sign(means) * 1e9, means / np.where(flat, 1, errors))
    low, high = np.quantile(ratio, [(1 - LEVEL) / 2, (1 + LEVEL) / 2], axis=0)
    return Interval(mean, mean - high * error, mean - low * error)


def without_hall(values: np.ndarray, resamples: int, rng: np.random.Generator) -> Interval:
    drawn, straight = bca_interval(values, LEVEL, resamples, rng), t_interval(values, LEVEL)
    low, high = np.minimum(drawn.low, straight.low), np.maximum(drawn.high, straight.high)
    return Interval(straight.mean, low, high)


METHODS: dict[str, Method] = {
    "mean_interval": lambda values, resamples, rng: mean_interval(values, LEVEL, resamples, rng),
    "BCa": lambda values, resamples, rng: bca_interval(values, LEVEL, resamples, rng),
    "Student's t": lambda values, resamples, rng: t_interval(values, LEVEL),
    "Hall's t": lambda values, resamples, rng: hall_interval(values, LEVEL),
    "BCa and t": without_hall,
    "bootstrap-t": studentized,
}


def coverage(
    draw: Draw, mean: float, pairs: int, studies: int, resamples: int
) -> dict[str, tuple[float, float]]:
    """Share covered and median width, by method; all methods see the same studies."""
    rng = np.random.default_rng([pairs, resamples])
    hits, widths = dict.fromkeys(METHODS, 0), {name: list[np.ndarray]() for name in METHODS}
    for _ in range(studies // BATCH):
        values = draw(rng, (pairs, BATCH))
        for name, method in METHODS.items():
            found = method(values, resamples, rng)
            slack = 1e-12  # an end that equals the mean but for rounding
            covered = (found.low <= mean + slack) & (mean - slack <= found.high)
            hits[name] += int(covered.sum())
            widths[name].append(found.high - found.low)
    total = studies // BATCH * BATCH
    return {
        name: (hits[name] / total, float(np.median(np.concatenate(widths[name]))))
        for name in METHODS
    }


def ratio(wide: float, width: float) -> str:
    """Of two widths; a bootstrap-t can be endless."""
    return "1.00" if width == 0 else f"{wide / width:.2f}" if wide < 100 * width else ">100"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--studies", type=int, default=4000, help=f"of each row; by {BATCH}")
    parser.add_argument("--resamples", type=int, default=1000)
    options = parser.parse_args()
    if options.studies < BATCH:
        parser.error(f"--studies must be {BATCH} or more")
    error = sqrt(LEVEL * (1 - LEVEL) / options.studies)
    print(
        f"{options.studies} studies a row: a coverage of 95% is known to "
        f"±{100 * float(norm.ppf(0.975)) * error:.1f}%. In brackets: width over that of t."
    )
    print(f"{'pairs':>5}  {'values':18}" + "".join(f"{name:>15}" for name in METHODS))
    for pairs in PAIRS:
        for name, (draw, mean) in KNOWN.items():
            found = coverage(draw, mean, pairs, options.studies, options.resamples)
            width = found["Student's t"][1]
            cells = (
                f"{100 * share:.1f} ({ratio(wide, width)})".rjust(15)
                for share, wide in found.values()
            )
            print(f"{pairs:>5}  {name:18}" + "".join(cells), flush=True)


if __name__ == "__main__":
    main()
