"""Agreement of means over pairs, and its intervals: against a loop over resampled pairs."""

import numpy as np
import pytest
from scipy.stats import norm, pearsonr, t

from headpatch.stats.agreement import agreement, mean_agreement


def sides(pairs: int = 6, heads: int = 50) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    exact = rng.standard_t(3, heads) + 0.3 * rng.standard_normal((pairs, heads))
    return exact + 0.8 * rng.standard_normal((pairs, heads)), exact


def test_the_figures_are_those_of_the_means() -> None:
    approx, exact = sides()
    found = mean_agreement(approx, exact, 10, 0.9, 200, np.random.default_rng(0))
    assert found.measured == agreement(approx.mean(0), exact.mean(0), 10)
    assert -1 <= found.low <= found.measured.pearson <= found.high <= 1


def test_the_interval_turns_the_quantiles_of_resampled_pairs_about_the_figure() -> None:
    approx, exact = sides()
    found = mean_agreement(approx, exact, 10, 0.9, 400, np.random.default_rng(3))
    drawn = []
    for counts in np.random.default_rng(3).multinomial(6, np.full(6, 1 / 6), size=400):
        chosen = np.repeat(np.arange(6), counts)
        drawn.append(pearsonr(approx[chosen].mean(0), exact[chosen].mean(0))[0])
    r, (low, high) = found.measured.pearson, np.quantile(drawn, [0.05, 0.95])
    wider = t.ppf(0.95, 5) / norm.ppf(0.95) * np.sqrt(6 / 5)
    expected = min(r - wider * (high - r), r), min(max(r + wider * (r - low), r), 1)
    assert (found.low, found.high) == pytest.approx(expected, abs=1e-9)


def test_the_interval_covers_the_correlation_of_the_population() -> None:
    """Means of 12 noisy pairs against the correlation without noise, which percentiles miss."""
    rng = np.random.default_rng(0)
    exact = rng.standard_t(3, 100)
    approx = np.where(rng.random(100) < 0.1, 0.4, 1) * exact
    truth, covered, times = pearsonr(approx, exact)[0], 0, 150
    for _ in range(times):
        noise = np.abs(exact) * rng.standard_normal((12, 100))
        found = mean_agreement(approx + 0.5 * noise, exact + noise, 20, 0.9, 150, rng)
        covered += found.low <= truth <= found.high
    assert covered / times > 0.85


def test_pairs_that_are_all_the_same_leave_nothing_open() -> None:
    approx, exact = (np.tile(side[:1], (4, 1)) for side in sides())
    found = mean_agreement(approx, exact, 5, 0.95, 100, np.random.default_rng(0))
    assert (found.low, found.high) == pytest.approx((found.measured.pearson,) * 2)


def test_a_constant_side_has_no_correlation() -> None:
    _, exact = sides()
    found = mean_agreement(np.zeros_like(exact), exact, 5, 0.95, 100, np.random.default_rng(0))
    assert np.isnan([found.measured.pearson, found.low, found.high]).all()


@pytest.mark.parametrize(
    ("pairs", "heads", "level", "part"),
    [(1, 9, 0.9, "two or more"), (3, 1, 0.9, "two or more"), (3, 9, 1.0, "level")],
)
def test_what_has_no_agreement_is_refused(pairs: int, heads: int, level: float, part: str) -> None:
    approx, exact = sides(pairs, heads)
    with pytest.raises(ValueError, match=part):
        mean_agreement(approx, exact, 5, level, 100, np.random.default_rng(0))
