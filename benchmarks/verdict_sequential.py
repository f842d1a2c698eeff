"""False calls, power and pairs saved if a verdict is looked at after every batch of pairs.

No model is run; δ is 2% of the difference, α 5%, at most 400 pairs are drawn. Looks come after
every 50 pairs ("8 looks"), after 50, 100, 200 and 400 ("doubling"), or after 20, 40, 80, 160 and
400 ("from 20").

The first table has no effect at all (256 heads, two directions) and looks to the end: the share of
studies in which *any* look calls a head, which bounds the error of every rule for stopping. The
second has heads whose mean is δ itself: the share ever said to act, and ever to stay within ±δ.
The third has 12 true heads of 128 and stops when the 12 are decided, or at 400: their share that
is called, false calls a study, pairs drawn on average, and pairs until all 128 heads are decided.

"full α" tests at 5% at every look. "even" spends α in proportion to pairs
(`headpatch.stats.sequential`), "late" like O'Brien and Fleming (K. K. G. Lan and D. L. DeMets,
Discrete sequential boundaries for clinical trials, Biometrika 70, 1983), s(t) = 2 - 2Φ(z/√t).
"mixture" is an always-valid p of any number of looks: I. Waudby-Smith, D. Arbour, R. Sinha,
E. H. Kennedy and A. Ramdas, Time-uniform central limit theory and asymptotic confidence sequences,
Annals of Statistics 52, 2024, tuned to be tightest at 100 pairs.

    python -m benchmarks.verdict_sequential [--studies 300] [--part null delta power] [--kind ...]
"""

import argparse
from collections import defaultdict
from collections.abc import Sequence
from functools import cache, cached_property

import numpy as np
from scipy.stats import norm

from benchmarks.verdict_simulations import DELTA, LEVEL, NULL, TRUE, calls, null_study
from headpatch.stats.sequential import spent_alpha
from headpatch.stats.significance import adjusted, equivalence_test, minimum_effect_test

MOST, ALPHA = 400, 1 - LEVEL
PLANS = {
    "8 looks": tuple(range(50, MOST + 1, 50)),
    "doubling": (50, 100, 200, MOST),
    "from 20": (20, 40, 80, 160, MOST),
}
KINDS = ("normal", "t, 3 degrees", "exponential", "lognormal", "rare, 1 in 10", "heads go together")
RULES = ("full α", "even", "late", "mixture")
CASES = [(name, plan, rule) for name, plan in PLANS.items() for rule in RULES]

# By name: mean and spread of the 12 true heads, spread of the others, in units of δ
TRUE_HEADS = {
    "15δ ± 5δ, others ± δ/4": (15.0, 5.0, 0.25),
    "3δ ± 3δ, others ± δ": (3.0, 3.0, 1.0),
    "2δ ± 4δ, others ± 4δ": (2.0, 4.0, 4.0),
    "0 ± δ, others ± δ": (0.0, 1.0, 1.0),
}


def mixture_p(p: np.ndarray, pairs: int) -> np.ndarray:
    """Always-valid p of a two-sided p, by the normal mixture; the variance of the mixture is 1/ρ².

    A test of normal values at one look has such a p where its z is that of the p given, so that the
    t-test's care for few pairs and skewness is kept.
    """
    weight = 8 * pairs / 100  # ρ² n: about tightest at 100 pairs
    squared = norm.isf(np.maximum(p, 1e-300) / 2) ** 2
    log = 0.5 * np.log1p(weight) - squared / 2 * weight / (1 + weight)
    return np.minimum(np.exp(log), 1.0)


class Look:
    """What is tested of the pairs up to a look, once for all rules."""

    def __init__(self, effects: np.ndarray, resamples: int, seed: int) -> None:
        self.effects, self.resamples, self.seed = effects, resamples, seed
        self.heads = effects.shape[1] // 2
        self.p = minimum_effect_test(effects)
        self.q = adjusted(self.p)
        self.acts = cache(self._acts)  # by α: two rules for stopping ask for the same

    @cached_property
    def inside(self) -> np.ndarray:
        """P of a head's effects lying outside ±δ."""
        return equivalence_test(self.effects, DELTA).reshape(2, self.heads).max(0)

    def _acts(self, alpha: float | None) -> np.ndarray:
        """Which heads are said to act, at the α of the look, or by always-valid p if None."""
        if alpha is not None:
            found = calls(self.effects, self.resamples, self.seed, alpha, self.q)[1]
        else:
            found = np.asarray(adjusted(self._valid(self.p)) < ALPHA)
            if found.any():  # the interval lies beyond ±δ where the test against δ is below α
                found &= self._valid(minimum_effect_test(self.effects, DELTA)) < ALPHA
        return np.asarray(found.reshape(2, self.heads).any(0))

    def small(self, alpha: float | None) -> np.ndarray:
        """Which heads are said to stay within ±δ."""
        if alpha is not None:
            return adjusted(self.inside) < alpha
        return adjusted(self._valid(np.minimum(2 * self.inside, 1.0))) < ALPHA

    def _valid(self, p: np.ndarray) -> np.ndarray:
        return mixture_p(p, len(self.effects))


def looks(effects: np.ndarray, resamples: int, seed: int) -> dict[int, Look]:
    """By pairs seen: every look of the plans."""
    return {
        seen: Look(effects[:seen], resamples, seed) for seen in sorted(set().union(*PLANS.values()))
    }


def spent(plan: tuple[int, ...], rule: str) -> tuple[float | None, ...]:
    """The α of each look."""
    if rule == "mixture":
        return (None,) * len(plan)
    if rule == "late":
        total = 2 * norm.sf(norm.isf(ALPHA / 2) / np.sqrt(np.array(plan) / plan[-1]))
        return tuple(np.maximum(np.diff(total, prepend=0.0), 1e-6).tolist())
    return (ALPHA,) * len(plan) if rule == "full α" else spent_alpha(ALPHA, plan)


def at_delta(pairs: int, seed: int) -> np.ndarray:
    """128 heads of which both effects are δ, spread 2δ."""
    return np.random.default_rng([seed, 9]).normal(DELTA, 2 * DELTA, (pairs, 256))


def null_table(studies: int, resamples: int, kinds: Sequence[str]) -> None:
    print("no effect: studies with a false head at any look")
    print(f"{'':26}{'looks':10}" + "".join(f"{rule:>9}" for rule in RULES))
    for kind in kinds:
        false = dict.fromkeys(CASES, 0)
        for seed in range(studies):
            seen = looks(null_study(NULL[kind], MOST, seed), resamples, seed)
            for name, plan, rule in CASES:
                alphas = zip(plan, spent(plan, rule), strict=True)
                false[name, plan, rule] += any(seen[at].acts(alpha).any() for at, alpha in alphas)
        show(kind, {case: count / studies for case, count in false.items()})


def show(title: str, shares: dict[tuple[str, tuple[int, ...], str], float]) -> None:
    for name, plan in PLANS.items():
        cells = "".join(f"{shares[name, plan, rule]:>9.1%}" for rule in RULES)
        print(f"{title:26}{name:10}{cells}", flush=True)


def power_study(true: tuple[float, float, float], seed: int) -> np.ndarray:
    """128 heads, necessity and sufficiency; the first 12 act in both."""
    mean, spread, others = (DELTA * of for of in true)
    rng = np.random.default_rng([seed, 11])
    effects = rng.normal(0, others, (MOST, 2, 128))
    effects[:, :, :TRUE] = rng.normal(mean, spread, (MOST, 2, TRUE))
    return effects.reshape(MOST, 256)


def stopped(
    seen: dict[int, Look], plan: tuple[int, ...], rule: str, named: int
) -> tuple[int, np.ndarray, np.ndarray]:
    """Pairs at the look where the first `named` heads are decided, or at the last; its verdicts."""
    for at, alpha in zip(plan, spent(plan, rule), strict=True):
        acts, small = seen[at].acts(alpha), seen[at].small(alpha)
        if (acts | small)[:named].all():
            break
    return at, acts, small


def delta_table(studies: int, resamples: int) -> None:
    print("heads at δ: share ever said to act, and ever to stay within ±δ")
    acts, small = (dict.fromkeys(CASES, 0.0) for _ in "ab")
    for seed in range(studies):
        seen = looks(at_delta(MOST, seed), resamples, seed)
        for case in CASES:
            _, plan, rule = case
            alphas = list(zip(plan, spent(plan, rule), strict=True))
            ever_acts = np.any([seen[at].acts(alpha) for at, alpha in alphas], 0)
            ever_small = np.any([seen[at].small(alpha) for at, alpha in alphas], 0)
            acts[case] += ever_acts.mean() / studies
            small[case] += ever_small.mean() / studies
    show("act", acts)
    show("within", small)


def power_table(studies: int, resamples: int) -> None:
    heading = ("called", "within", "false", "pairs", "all heads")
    print(f"{'true heads':26}{'looks':10}{'rule':>9}" + "".join(f"{one:>10}" for one in heading))
    cases = [("once", (MOST,), "full α")]
    cases += [(name, plan, rule) for name, plan in PLANS.items() for rule in RULES[1:]]
    for title, true in TRUE_HEADS.items():
        rows: dict[tuple[str, str], list[tuple[float, ...]]] = defaultdict(list)
        for seed in range(studies):
            seen = looks(power_study(true, seed), resamples, seed)
            for name, plan, rule in cases:
                pairs, acts, small = stopped(seen, plan, rule, TRUE)
                shown = acts[:TRUE].mean(), small[:TRUE].mean(), acts[TRUE:].sum()
                rows[name, rule].append((*shown, pairs, stopped(seen, plan, rule, 128)[0]))
        for (name, rule), found in rows.items():
            cells = "".join(f"{value:>10.2f}" for value in np.mean(found, 0))
            print(f"{title:26}{name:10}{rule:>9}{cells}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--studies", type=int, default=300, help="of each row")
    parser.add_argument("--resamples", type=int, default=500)
    parts = ("null", "delta", "power")
    parser.add_argument("--part", nargs="+", choices=parts, default=parts)
    parser.add_argument("--kind", nargs="+", choices=KINDS, default=KINDS, help="without effect")
    options = parser.parse_args()
    if "null" in options.part:
        null_table(options.studies, options.resamples, options.kind)
    if "delta" in options.part:
        delta_table(max(options.studies // 10, 1), options.resamples)  # 128 heads a study
    if "power" in options.part:
        power_table(options.studies, options.resamples)


if __name__ == "__main__":
    main()
