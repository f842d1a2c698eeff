"""The sentence on the first screen says what the figures say, and no more."""

from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest

from headpatch.core.output import read_table, read_tensors, write_columns, write_tensors
from headpatch.core.output.folder import find
from headpatch.report.html.headline import ONE_PAIR, Said, headline, share
from headpatch.report.html.heads import heads_of
from headpatch.stats.disattenuated_rank_correlation import TrueCorrelation
from tests.report.html import made


def said(folder: Path) -> Said:
    results = find(folder)
    return headline(results, heads_of(results))


def test_looking_alone_decides_nothing(tmp_path: Path) -> None:
    made.rank(tmp_path)
    found = said(tmp_path)
    assert "not which of them decide" in found.caution
    first = read_table(tmp_path / "heads.csv").iloc[0]
    assert f"{first['layer']:.0f}.{first['head']:.0f} turns to the region most" in found.sentence


def test_one_pair_is_called_one_pair(tmp_path: Path) -> None:
    made.rank(tmp_path)
    made.sweep(tmp_path / "sweep")
    found = said(tmp_path)
    assert found.caution == ONE_PAIR
    assert "Head 3.2 has the largest effect of any single head, 60% of the difference" in (
        found.sentence
    )


def test_a_verdict_counts_what_attention_picks(tmp_path: Path) -> None:
    made.verdict(tmp_path)
    table = read_table(tmp_path / "verdicts.csv")
    acting = table["verdict"].isin(
        ["necessary+sufficient", "necessary", "sufficient", "redundant", "inhibitory"]
    )
    picked = table["attention_rank"] <= 20
    both, every = int((acting & picked).sum()), int(acting.sum())
    found = said(tmp_path)
    assert f"Of the 20 heads that attention picks out, {both} are shown to act" in found.sentence
    assert f"Of all 24 heads, {every} are shown to act, judged on 30 pairs." in found.more[0]
    assert found.failed == ""


def test_the_true_rho_is_said_where_the_run_kept_it(tmp_path: Path) -> None:
    made.verdict(tmp_path)
    assert "true values" not in found_rho(tmp_path)
    saved = read_tensors(tmp_path / "verdict.pt")
    true = TrueCorrelation(0.19, 0.08, 0.3, 0.76, 0.95, "")
    write_tensors(tmp_path / "verdict.pt", saved | {"true_rho": asdict(true)})
    assert "Of their true values: +0.19 (95% interval +0.08 to +0.30)" in found_rho(tmp_path)


def found_rho(folder: Path) -> str:
    return said(folder).more[1]


def test_no_acting_head_is_no_proof(tmp_path: Path) -> None:
    made.verdict(tmp_path)
    table = read_table(tmp_path / "verdicts.csv")
    table["verdict"] = "undecided"
    write_columns(tmp_path / "verdicts.csv", {name: list(table[name]) for name in table})
    found = said(tmp_path)
    assert "none is shown to act" in found.sentence
    assert "no proof that none does" in found.more[0]


def test_a_failed_null_is_named(tmp_path: Path) -> None:
    made.verdict(tmp_path, failed=True)
    assert said(tmp_path).failed == "self-patch"


def test_heads_are_ranked_on_the_pairs_that_chose_them(tmp_path: Path) -> None:
    """A verdict's ranking is its own; the difference beside it is of the judging pairs."""
    made.verdict(tmp_path)
    heads = heads_of(find(tmp_path))
    assert heads is not None
    table = read_table(tmp_path / "verdicts.csv")
    np.testing.assert_array_equal(heads.looks[0].rank.ravel(), table["attention_rank"])


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.187, "19%"),
        (0.0123, "1.2%"),
        (-0.000584, "−0.058%"),
        (1.004, "100%"),
        (3e-6, "less than 0.01%"),
        (float("nan"), "undefined"),
    ],
)
def test_shares_keep_two_digits(value: float, text: str) -> None:
    assert share(value) == text
