"""How often the interval of the true rho covers it, where the true rho is known.

Studies are simulated: heads have true attention differences and effects, every pair measures them
with error, and `headpatch.stats.disattenuated_rank_correlation` and the interval of the measured
rho (`headpatch.stats.rankings.correlation`) see the pairs alone. Each draws its own condition:

- true rho (before what follows changes it): 0, 0.1, 0.3 or 0.7; pairs: 20, 50, 100 or 200
- effects: median |mean| over its error 0.1, 0.3, 1, 3 or 10; attention differences: 1, 3 or 10
- sizes of effects: nearly all near zero and a few large (log-normal over 4 decades), less so (over
  2), half-normal, none at all for 7 heads in 10, or related to attention in the largest fifth alone
- errors of effects: the same for every head, larger for larger effects, and larger for heads that
  attend more (weakly or strongly)
- errors of different heads in one pair share 0, 20% or 50% of their variance; those of attention
  difference and effect of one head correlate by 0 or 0.2; normal, or of heavy tails and skewed

A row of a table gives, for all studies of one condition: the share whose true rho is told; of
these, the share of 95% intervals that cover it, the mean error and the median width; and for all
studies, the share of intervals of the measured rho that cover the true one.

    python benchmarks/rho_coverage.py [--studies 1600] [--heads 1024] [--seed 0] [--workers 1]
"""

import argparse
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from functools import partial

import numpy as np
import pandas as pd
from scipy.stats import norm, rankdata

from headpatch.stats.disattenuated_rank_correlation import LEAST, true_correlation
from headpatch.stats.rankings import correlation, spearman

LEVEL = 0.95
SIZES = ("a few large", "2 decades", "half-normal", "most none", "largest related")
ERRORS = ("the same", "with effect", "with looks, weakly", "with looks")


@dataclass(frozen=True)
class Condition:
    """Under which a study is simulated; see the module."""

    rho: float
    pairs: int
    effects: float
    looks: float
    sizes: str
    errors: str
    between_heads: float
    within_head: float
    heavy: bool


def condition(rng: np.random.Generator) -> Condition:
    return Condition(
        float(rng.choice([0, 0.1, 0.3, 0.7])),
        int(rng.choice([20, 50, 100, 200])),
        float(rng.choice([0.1, 0.3, 1, 3, 10])),
        float(rng.choice([1, 3, 10])),
        str(rng.choice(SIZES)),
        str(rng.choice(ERRORS)),
        float(rng.choice([0, 0.2, 0.5])),
        float(rng.choice([0, 0.2])),
        bool(rng.random() < 0.5),
    )


def truth(rng: np.random.Generator, of: Condition, heads: int) -> tuple[np.ndarray, np.ndarray]:
    """True attention differences (both signs, heavy-tailed) and sizes of effects."""
    pearson = 2 * np.sin(np.pi * of.rho / 6)
    x, other = rng.normal(size=(2, heads))
    y = pearson * x + np.sqrt(1 - pearson**2) * other
    if of.sizes == "largest related":
        y = other
        x = x + 4 * of.rho * (y > norm.ppf(0.8))
    size = {
        "a few large": np.exp(2.5 * y),
        "2 decades": np.exp(1.2 * y),
        "half-normal": np.abs(norm.ppf((norm.cdf(y) + 1) / 2)),
        "most none": np.where(y > norm.ppf(0.7), np.exp(y), 0.0),
        "largest related": np.exp(2 * y),
    }[of.sizes]
    return np.sinh(1.2 * x), size


def measured(
    rng: np.random.Generator, of: Condition, heads: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray, float]:
    """Attention differences, necessity and sufficiency of every pair, and the true rho."""
    look, size = truth(rng, of, heads)
    smaller, first = size * rng.beta(2, 1, heads), rng.random(heads) < 0.5
    signs = rng.choice([-1, 1], (2, heads))
    means = signs * np.where(first, [size, smaller], [smaller, size])
    usual = np.where(size > 0, size, np.median(size[size > 0]) * np.exp(rng.normal(size=heads)))
    looking = norm.ppf((rankdata(look) - 0.5) / heads)
    spread = {
        "the same": np.ones(heads),
        "with effect": usual**0.7 * np.exp(0.5 * rng.normal(size=heads)),
        "with looks, weakly": usual**0.5 * np.exp(0.7 * rng.normal(size=heads) + 0.3 * looking),
        "with looks": usual**0.35 * np.exp(0.7 * rng.normal(size=heads) + 0.7 * looking),
    }[of.errors]
    there = size > 0
    spread *= np.median(size[there] / spread[there]) / of.effects * np.sqrt(of.pairs)
    look_spread = np.exp(0.4 * rng.normal(size=heads))
    look_spread *= np.median(np.abs(look)) / of.looks * np.sqrt(of.pairs)

    def noise() -> np.ndarray:
        shape = (of.pairs, heads)
        own = rng.normal(size=shape)
        if of.heavy:
            skewed = rng.random(heads) < 0.3
            tails = rng.standard_t(5, shape) / np.sqrt(5 / 3)
            own = np.where(skewed, rng.exponential(size=shape) - 1, tails)
        common = rng.normal(size=(of.pairs, 3)) @ rng.normal(size=(3, heads)) / np.sqrt(3)
        return np.sqrt(1 - of.between_heads) * own + np.sqrt(of.between_heads) * common

    one, two, three = noise(), noise(), noise()
    both = signs[0] * one  # errors of the two effects of a head go together, too
    looks = look + look_spread * (np.sqrt(1 - of.within_head**2) * three + of.within_head * both)
    necessity = means[0] + spread * one
    sufficiency = means[1] + spread * (0.6 * signs[1] * both + 0.8 * two)
    return looks, necessity, sufficiency, spearman(look, np.abs(means).max(0))


def study(number: int, seed: int, heads: int) -> dict[str, float | str]:
    rng = np.random.default_rng([seed, number])
    of = condition(rng)
    looks, necessity, sufficiency, true = measured(rng, of, heads)
    started = time.perf_counter()
    found = true_correlation(looks, necessity, sufficiency, LEVEL)
    seconds = time.perf_counter() - started
    plain = correlation(looks, necessity, sufficiency, LEVEL)
    return {
        **asdict(of),
        "true": true,
        "told": not found.untold,
        "covered": found.low <= true <= found.high,
        "error": found.rho - true,
        "width": found.high - found.low,
        "looks_reliability": found.looks_reliability,
        "effects_reliability": found.effects_reliability,
        "measured_covers": plain.low <= true <= plain.high,
        "seconds": seconds,
    }


def row(rows: pd.DataFrame) -> dict[str, str]:
    told = rows[rows["told"]]
    return {
        "studies": str(len(rows)),
        "told": f"{rows['told'].mean():.0%}",
        "covered": f"{told['covered'].mean():.1%}" if len(told) else "",
        "error": f"{told['error'].mean():+.3f}" if len(told) else "",
        "width": f"{told['width'].median():.2f}" if len(told) else "",
        "measured covers": f"{rows['measured_covers'].mean():.0%}",
    }


def show(found: pd.DataFrame, by: list[str]) -> None:
    table = pd.DataFrame(
        [
            dict(zip(by, name if isinstance(name, tuple) else (name,), strict=True)) | row(rows)
            for name, rows in found.groupby(by, observed=True, sort=True)
        ]
    )
    print(f"\n{table.to_string(index=False)}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--studies", type=int, default=1600)
    parser.add_argument("--heads", type=int, default=1024)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--workers", type=int, default=1)
    options = parser.parse_args()
    one = partial(study, seed=options.seed, heads=options.heads)
    with ProcessPoolExecutor(options.workers) as pool:
        found = pd.DataFrame(list(pool.map(one, range(options.studies), chunksize=4)))
    steps = [0, 0.25, LEAST, 0.6, 0.7, 0.8, 0.9, 0.95, 1]
    for name in ("looks_reliability", "effects_reliability"):
        found[name] = pd.cut(found[name], steps, include_lowest=True)
    print(
        f"{options.studies} studies of {options.heads} heads; {found['seconds'].median():.1f} s "
        "each for the true rho (median)"
    )
    show(found.assign(all="all"), ["all"])
    show(found, ["effects", "pairs"])
    show(found, ["rho"])
    show(found, ["sizes", "errors"])
    for name in ("effects_reliability", "looks_reliability", "between_heads", "within_head"):
        show(found, [name])
    show(found, ["looks"])
    show(found, ["heavy"])


if __name__ == "__main__":
    main()
