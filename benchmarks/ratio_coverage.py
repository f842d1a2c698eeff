"""How often intervals of a ratio of means cover it, and how far a mean of ratios lies from it.

Studies are drawn of pairs whose gaps in LD differ, with heads of several kinds. A row gives, for
studies of 20, 50 and 100 pairs, the share of 95% intervals that cover the true ratio of means, in
percent; then the true mean of ratios over the true ratio of means.

    python benchmarks/ratio_coverage.py [--studies 1000] [--resamples 1000]
"""

import argparse
from collections.abc import Callable

import numpy as np

from headpatch.stats.ratio import ratio_of_means

LEVEL = 0.95
PAIRS = (20, 50, 100)
MANY = 2_000_000  # pairs that stand for all
Draw = Callable[[np.random.Generator, np.ndarray], np.ndarray]

GAPS: dict[str, Callable[[np.random.Generator, int], np.ndarray]] = {
    "about 20 logits": lambda rng, n: rng.uniform(18, 22, n),
    "log-uniform, 1 to 27": lambda rng, n: np.exp(rng.uniform(0, np.log(27), n)),
    "1 of 10 about 1.2, else 20": lambda rng, n: np.where(
        rng.random(n) < 0.1, rng.uniform(1, 1.4, n), rng.uniform(18, 22, n)
    ),
    "lognormal, sd of log 0.8": lambda rng, n: np.maximum(1, np.exp(rng.normal(2, 0.8, n))),
}
EFFECTS: dict[str, Draw] = {
    "0.3 ± 0.3 logits": lambda rng, gap: rng.normal(0.3, 0.3, gap.shape),
    "10% ± 10% of the gap": lambda rng, gap: gap * rng.normal(0.1, 0.1, gap.shape),
    "exponential share": lambda rng, gap: gap * rng.exponential(0.1, gap.shape),
    "lognormal logits": lambda rng, gap: rng.lognormal(0, 1, gap.shape),
    "40% in 1 pair of 4": lambda rng, gap: (
        np.where(rng.random(gap.shape) < 0.25, 0.4 * gap, 0) + rng.normal(0, 0.02, gap.shape)
    ),
    "40% in 1 pair of 10": lambda rng, gap: (
        np.where(rng.random(gap.shape) < 0.1, 0.4 * gap, 0) + rng.normal(0, 0.02, gap.shape)
    ),
}


def covered(
    effect: Draw,
    gap: Callable[[np.random.Generator, int], np.ndarray],
    truth: float,
    pairs: int,
    studies: int,
    resamples: int,
) -> float:
    """Return the share of studies whose interval holds the true ratio of means."""
    hits = 0
    for study in range(studies):
        rng = np.random.default_rng([study, pairs])
        gaps = gap(rng, pairs)
        found = ratio_of_means(effect(rng, gaps), gaps, LEVEL, resamples, rng)
        hits += bool(found.low <= truth <= found.high)
    return hits / studies


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--studies", type=int, default=1000)
    parser.add_argument("--resamples", type=int, default=1000)
    asked = parser.parse_args()
    counts = "".join(f"{pairs:>7d}" for pairs in PAIRS)
    print(f"{'effect':22s}{'gaps':28s}{counts}   mean of ratios / ratio of means")
    for effect_name, effect in EFFECTS.items():
        for gap_name, gap in GAPS.items():
            rng = np.random.default_rng(0)
            gaps = gap(rng, MANY)
            effects = effect(rng, gaps)
            truth = effects.mean() / gaps.mean()
            shares = [
                covered(effect, gap, truth, pairs, asked.studies, asked.resamples)
                for pairs in PAIRS
            ]
            cells = "".join(f"{100 * share:7.1f}" for share in shares)
            apart = (effects / gaps).mean() / truth
            print(f"{effect_name:22s}{gap_name:28s}{cells}   {apart:.2f}", flush=True)


if __name__ == "__main__":
    main()
