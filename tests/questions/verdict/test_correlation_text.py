"""What is said of rho: what was measured, what is true, and why the latter cannot be told."""

from dataclasses import asdict

import numpy as np

from headpatch.questions.verdict.correlation_text import measured_words, true_words
from headpatch.stats.disattenuated_rank_correlation import TrueCorrelation, true_correlation
from headpatch.stats.rankings import Correlation

NAN = float("nan")


def test_both_come_with_interval_and_reliability() -> None:
    assert measured_words(asdict(Correlation(0.134, 0.05, 0.21)), 0.95).startswith(
        "+0.13 (95% interval over pairs +0.05 to +0.21; errors scramble ranks"
    )
    assert true_words(asdict(TrueCorrelation(0.19, 0.08, 0.3, 0.76, 0.95, "")), 0.9) == (
        "+0.19 (90% interval +0.08 to +0.30); reliability of the rankings: 0.76 (attention) and "
        "0.95 (effect)"
    )


def test_what_cannot_be_told_is_not_given_as_a_number() -> None:
    untold = TrueCorrelation(NAN, NAN, NAN, 0.9, 0.31, "as errors scramble the ranks too much")
    text = true_words(asdict(untold), 0.95)
    assert text == (
        "cannot be told, as errors scramble the ranks too much; reliability of the rankings: 0.90 "
        "(attention) and 0.31 (effect); 0.5 is needed"
    )
    values = np.ones((4, 8)) * np.arange(8)
    few = true_words(asdict(true_correlation(values, values, values, 0.95)), 0.95)
    assert few == "cannot be told, as there are fewer than 64 heads"
    flat = measured_words(asdict(Correlation(NAN, NAN, NAN)), 0.95)
    assert flat == "undefined, one of them does not vary"
