"""Agreement of estimates with exact effects, in a table: of one pair, and over pairs."""

import math
from io import StringIO
from typing import Any

import pytest
from rich.console import Console, RenderableType

from headpatch.report.agreement_tables import agreement
from tests.report import synthetic

FIGURES = synthetic.agreement()
OVER_PAIRS = FIGURES | {
    "top_recall_low": 0.8, "top_recall_high": 0.9, "of_means_pearson": 0.75,
    "of_means_pearson_low": 0.7, "of_means_pearson_high": 0.8, "of_means_spearman": 0.5,
    "of_means_top_recall": 0.95, "pairs": 30,
}  # fmt: skip


def said(part: RenderableType) -> str:
    out = StringIO()
    Console(file=out, width=140).print(part, crop=False, markup=False)
    return " ".join(out.getvalue().split())


def test_agreement_is_shown_with_its_interval_and_chance() -> None:
    words = said(agreement({"resample_denoising": FIGURES}, False, 0.95))
    assert "against the exact effects of 1,024 heads" in words
    assert "top-20 recall" in words
    assert "resample denoising +0.29 -0.12 to +0.71 +0.97 0.85 0.02" in words
    assert "no substitute" in words
    assert "sets, which are not" in said(agreement({"zero_noising": FIGURES}, True, 0.9))


@pytest.mark.parametrize("found", [{}, {"zero_noising": dict.fromkeys(FIGURES, float("nan"))}])
def test_what_cannot_be_compared_is_said(found: dict[str, Any]) -> None:
    if found:
        found["zero_noising"] |= {"k": 2, "heads": 2}
    words = said(agreement(found, False, 0.95))
    assert ("undefined" if found else "nothing to say") in words


def test_over_pairs_the_means_of_the_pairs_stand_beside_the_mean_effects() -> None:
    words = said(agreement({"resample_noising": OVER_PAIRS}, sets=False, level=0.95))
    for part in (
        "against the exact effects of 1,024 heads",
        "resample noising mean of the pairs +0.29 -0.12 to +0.71 +0.97 0.85 0.80 to 0.90 0.02",
        "resample noising mean effects +0.75 +0.70 to +0.80 +0.50 0.95 0.02",
        "averaged over 30 pairs",
        "no substitute",
    ):
        assert part in words, part
    assert "1,024 sets" in said(agreement({"zero_noising": OVER_PAIRS}, sets=True, level=0.95))
    nothing = {key: math.nan for key in OVER_PAIRS if "pearson" in key}
    words = said(agreement({"zero_noising": OVER_PAIRS | nothing}, sets=False, level=0.95))
    assert words.count("undefined") == 2 and "nan" not in words
