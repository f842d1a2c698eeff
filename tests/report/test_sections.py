"""Sections that join what several runs found: the first sentence, all heads, the vision layers."""

from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
import torch

from headpatch.core.output.files import read_table, read_tensors, write_tensors
from headpatch.core.output.folder import find
from headpatch.reports import derived, maps
from headpatch.reports.first import ONE_PAIR, Said, headline, share
from headpatch.reports.heads import Heads, heads_of
from headpatch.stats.disattenuated_rank_correlation import TrueCorrelation
from tests.report import made


def gathered(folder: Path) -> Heads:
    heads = heads_of(find(folder))
    assert heads is not None
    return heads


def said(folder: Path) -> Said:
    return headline(find(folder), gathered(folder))


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
    largest = "Head 3.2 has the largest effect of any single head, 60% of the difference"
    assert largest in found.sentence


def test_a_verdict_counts_what_attention_picks(tmp_path: Path) -> None:
    """And ranks heads on the pairs that chose them; the difference is of the judging ones."""
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
    rank = gathered(tmp_path).looks[0].rank
    np.testing.assert_array_equal(rank.ravel(), table["attention_rank"])


def test_the_true_rho_is_said_where_the_run_kept_it(tmp_path: Path) -> None:
    made.verdict(tmp_path)
    assert "true values" not in said(tmp_path).more[1]
    saved = read_tensors(tmp_path / "verdict.pt")
    true = TrueCorrelation(0.19, 0.08, 0.3, 0.76, 0.95, "")
    write_tensors(tmp_path / "verdict.pt", saved | {"true_rho": asdict(true)})
    words = "Of their true values: +0.19 (95% interval +0.08 to +0.30)"
    assert words in said(tmp_path).more[1]


def test_no_acting_head_is_no_proof(tmp_path: Path) -> None:
    made.verdict(tmp_path)
    made.write(
        tmp_path / "verdicts.csv", read_table(tmp_path / "verdicts.csv"), verdict="undecided"
    )
    found = said(tmp_path)
    assert "none is shown to act" in found.sentence
    assert "no proof that none does" in found.more[0]


def test_a_failed_null_is_named(tmp_path: Path) -> None:
    made.verdict(tmp_path, failed=True)
    assert said(tmp_path).failed == "self-patch"


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


def of_the_vision_tower(folder: Path) -> None:
    """Of the shape of the language model."""
    made.sweep(folder)
    saved = torch.load(folder / "sweep.pt", weights_only=True)
    assert "tower" not in saved  # as of earlier versions: the language model's
    torch.save(saved | {"tower": "vision"}, folder / "sweep.pt")


def test_heads_of_the_vision_tower_are_not_taken_for_the_language_model_s(tmp_path: Path) -> None:
    of_the_vision_tower(tmp_path / "alone")
    assert heads_of(find(tmp_path / "alone")) is None
    made.sweep(tmp_path / "both" / "lm")
    of_the_vision_tower(tmp_path / "both" / "vision")
    found = gathered(tmp_path / "both")
    assert found.shape == (6, 4)
    assert [one.where for one in found.effects] == ["this pair"] * 4


@pytest.mark.parametrize("read", [False, True])
def test_a_verdict_gives_vision_layers_with_intervals(tmp_path: Path, read: bool) -> None:
    """Those that the language model never reads are shaded, where a run says which it reads."""
    made.verdict(tmp_path)
    if read:
        made.rank(tmp_path)
    found = made.section(maps.tower, tmp_path)
    assert found.values["judged"] == {"pairs": "30", "layer": "4", "value": "+0.040",
                                      "interval": "[+0.030, +0.060]"}  # fmt: skip
    figure = found.figures["tower-judged"]
    band, line = figure.data
    assert line["y"] == [0, 0.01, 0.02, 0.03, 0.04]
    assert max(band["y"]) == 0.06
    assert [(one["x0"], one["x1"]) for one in figure.layout["shapes"]] == [(3.5, 4.6)] * read


def test_a_sweep_of_the_tower_is_shown_elsewhere(tmp_path: Path) -> None:
    made.tower(tmp_path)
    assert maps.tower(find(tmp_path)) is None


def test_pairs_whose_answers_are_unlikely_are_counted(tmp_path: Path) -> None:
    made.over_pairs(tmp_path)
    (words, failed) = made.section(derived.gate, tmp_path).values["blocks"]
    assert words["text"].startswith("Gate: 2 of 3 pairs pass (66.7%)")
    assert "probability" not in words["text"]
    assert [cell for cell, *_ in failed["rows"][0]] == [
        "c", "4", made.QUESTION, "-1.000", "-4.000", "says No of the picture with the object"
    ]  # fmt: skip
    yes = [0.45, 0.1, 5e-10]
    shares = {"p_yes_with": yes, "p_no_with": 0.6, "p_yes_without": yes, "p_no_without": 0.0}
    made.write(tmp_path / "gate.csv", read_table(tmp_path / "gate.csv"), **shares)
    words = made.section(derived.gate, tmp_path).values["blocks"][0]["text"]
    assert "1 pair has an LD of the wrong sign." in words
    assert "2 pairs have less than 0.5 of the probability on both answers together." in words
    assert "1 pair has less than 0.01 of the probability on both answers together." in words
