"""The figures and tables of a verdict, from tables made by hand."""

from collections.abc import Sequence
from itertools import combinations
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from rich.console import Console

from headpatch.present.canvas import Sheet
from headpatch.report.faithfulness import RANKINGS, faithfulness_curves
from headpatch.report.verdict_tables import areas, headline, heads, nulls, together
from headpatch.report.verdicts import CLASSES, verdict_map
from headpatch.stats.verdict_labels import CAUSAL


def verdicts(count: int = 64) -> pd.DataFrame:
    rng = np.random.default_rng(0)
    table = pd.DataFrame({"layer": np.arange(count) // 8, "head": np.arange(count) % 8})
    table["verdict"] = [[*CLASSES][i] if i < len(CLASSES) else "inert" for i in range(count)]
    table["attention_diff"] = rng.normal(0, 0.1, count)
    table["attention_rank"] = table["attention_diff"].rank(ascending=False).astype(int)
    for name in ("necessity", "sufficiency"):
        table[name] = np.where(np.arange(count) < 5, 0.3, rng.normal(0, 0.005, count))
        table[f"{name}_low"], table[f"{name}_high"] = table[name] - 0.02, table[name] + 0.02
        table[f"{name}_q"] = 0.01
    table["partners"] = ["7.1" if verdict == "redundant" else "" for verdict in table["verdict"]]
    return table


def curves() -> pd.DataFrame:
    rows = []
    for ranking in RANKINGS:
        for way in ("keep", "remove"):
            for k in (0, 1, 2, 4, 8):
                share = k / 8 if way == "keep" else 1 - k / 8
                rows.append(
                    {
                        "ranking": ranking, "way": way, "k": k, "share": share,
                        "share_low": share - 0.05, "share_high": share + 0.05, "area": 0.5,
                        "area_low": 0.4, "area_high": 0.6, "draws": 3, "pairs": 20,
                    }
                )  # fmt: skip
    return pd.DataFrame(rows)


def said(*parts: object) -> str:
    console = Console(width=200, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    for part in parts:
        console.print(part)
    return console.export_text()


@pytest.mark.parametrize("suffix", ["png", "pdf"])
def test_the_map_is_drawn_with_every_class(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"verdict.{suffix}"
    verdict_map(verdicts(), path, delta=0.02, level=0.95, pairs=20, question="q", region="r")
    assert path.stat().st_size > 10_000


@pytest.mark.parametrize("change", ["few", "none causal", "negative", "no attention"])
def test_odd_tables_are_drawn(tmp_path: Path, change: str) -> None:
    table = verdicts(4 if change == "few" else 64)
    if change == "none causal":
        table = table.assign(verdict="undecided", necessity=0.0, sufficiency=0.0)
    if change == "negative":
        table["necessity"] *= -1
        table["necessity_low"], table["necessity_high"] = (
            -table["necessity_high"],
            -table["necessity_low"],
        )
    if change == "no attention":
        table.loc[:8, "attention_diff"] = np.nan
    verdict_map(table, tmp_path / "v.png", delta=0.02, level=0.95, pairs=20)
    assert (tmp_path / "v.png").exists()


def test_every_head_that_acts_is_named_and_no_name_hides_another() -> None:
    table = verdicts()
    table.loc[20:45, "verdict"] = "redundant"  # crowded: small effects, alike attention
    table.loc[20:45, ["attention_diff", "necessity", "sufficiency"]] = 0.0
    sheet = Sheet()
    verdict_map(table, sheet, delta=0.02, level=0.95, pairs=20)
    acting = table[table["verdict"].isin(CAUSAL)]
    wanted = {f"{row.layer}.{row.head}" for row in acting.itertuples()}
    assert len(wanted) == 31
    for axes in sheet.figure.axes:
        names = [text for text in axes.texts if text.get_text()]
        assert wanted <= {text.get_text() for text in names}
        boxes = [text.get_window_extent() for text in names]
        assert not any(a.overlaps(b) for a, b in combinations(boxes, 2))


def test_one_number_of_pairs_and_one_name_of_a_ranking() -> None:
    sheet = Sheet()
    verdict_map(verdicts(), sheet, delta=0.02, level=0.95, pairs=20, of=50)
    words = " ".join(text.get_text() for text in sheet.figure.texts)
    assert "50 pairs, 20 of them judge" in words
    (legend,) = sheet.figure.legends
    named = [text.get_text() for text in legend.get_texts()]
    assert any(one.startswith("redundant: necessary only together with") for one in named)
    faithfulness_curves(curves(), sheet, level=0.95, of=50)
    assert any("of them judge" in text.get_text() for text in sheet.figure.texts)
    (legend,) = sheet.figure.legends
    for text in legend.get_texts():
        assert text.get_text() in said(areas(curves()))
    assert all(ranking in label for ranking, (*_, label) in RANKINGS.items())


def test_a_missing_column_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="necessity_low"):
        verdict_map(verdicts().drop(columns="necessity_low"), tmp_path / "v.png", delta=0.02,
                    level=0.95, pairs=2)  # fmt: skip
    with pytest.raises(ValueError, match="share_high"):
        faithfulness_curves(curves().drop(columns="share_high"), tmp_path / "f.png", level=0.95)
    with pytest.raises(ValueError, match="no head"):
        verdict_map(verdicts().iloc[:0], tmp_path / "v.png", delta=0.02, level=0.95, pairs=2)
    assert not list(tmp_path.iterdir())


def test_the_curves_are_drawn(tmp_path: Path) -> None:
    faithfulness_curves(curves(), tmp_path / "f.png", level=0.95, question="q", region="r")
    assert (tmp_path / "f.png").stat().st_size > 10_000
    text = said(areas(curves()))
    assert "attention" in text and "0.500 (0.400 to 0.600)" in text


def null(name: str, outcome: str) -> dict[str, object]:
    value = float("nan") if outcome == "not tested" else 0.25
    return {"null": name, "figure": "share", "value": value, "limit": "0", "outcome": outcome,
            "pairs": 7, "note": "why" if outcome == "not tested" else ""}  # fmt: skip


def test_a_failed_null_is_shouted_and_an_untested_one_is_not_passed() -> None:
    fine = said(nulls(pd.DataFrame([null("a", "passed"), null("b", "not tested")])))
    assert "FAILED" not in fine
    assert "not tested" in fine and "why" in fine and "nan" not in fine
    bad = said(nulls(pd.DataFrame([null("a", "passed"), null("mirrored", "failed")])))
    assert "A NULL FAILED (mirrored)" in bad


TRUE = {
    "rho": 0.2, "low": 0.08, "high": 0.3, "looks_reliability": 0.76, "effects_reliability": 0.95,
    "untold": "",
}  # fmt: skip


def found(causal: Sequence[str], missed: Sequence[str], hits: Sequence[str]) -> dict[str, object]:
    return {
        "pairs": 50, "heads": 64, "counts": {"inert": 60}, "picked": ("0.1", "0.2"),
        "picked_causal": hits, "picked_within": ("0.2",), "picked_undecided": (),
        "causal": causal, "missed": missed,
        "rho": {"rho": 0.1, "low": 0.05, "high": 0.15},
        "true_rho": TRUE,
        "precision": ({"k": 2, "hits": 1, "share": 0.5, "chance": 0.031, "p": 0.06},),
    }  # fmt: skip


def test_the_headline_says_no_more_than_the_numbers() -> None:
    text = said(headline(found(("0.1", "3.3"), ("3.3",), ("0.1",)), 0.02, 0.95))
    for words in (
        "2 heads that attention picks out",
        "1 is shown to act on the answer (0.1); 1 is shown to stay within ±0.02",
        "none is undecided",
        "2 are shown to act (0.1, 3.3). Attention misses 1 of them (3.3).",
        "means that were measured: +0.10 (95% interval over pairs +0.05 to +0.15; errors",
        "true values: +0.20 (95% interval +0.08 to +0.30); reliability of the rankings: 0.76",
        "Precision@2: 1 of the first 2",
        "chance 3.1%",
    ):
        assert words in " ".join(text.split()), words
    nothing = said(headline(found((), (), ()), 0.02, 0.95))
    assert "no proof that none does" in nothing
    assert "misses all of them" in said(headline(found(("3.3",), ("3.3",), ()), 0.02, 0.95))
    flat = found((), (), ()) | {"rho": {"rho": float("nan"), "low": 0.0, "high": 0.0}}
    assert "undefined" in said(headline(flat, 0.02, 0.95))


def test_sets_are_shown_whole_with_how_many_of_their_heads_are_redundant() -> None:
    table = verdicts()
    many = "+".join(f"6.{head}" for head in range(6))
    table.loc[3, "partners"] = f"7.1;{many}"
    assert "7.1; 6 others" in said(heads(table, ["0.3"], 0.95, 0.02))
    columns = {"joint": 0.9, "joint_low": 0.8, "joint_high": 0.95, "excess": 0.05,
               "excess_low": 0.03, "excess_high": 0.07, "q": 0.001}  # fmt: skip
    sets = pd.DataFrame([{"heads": f"0.3+{many}", **columns, "redundant": True},
                         {"heads": "0.1+0.2", **columns, "redundant": False}])  # fmt: skip
    named = pd.DataFrame([{"layer": int(one[0]), "head": int(one[2]), "verdict": "necessary"}
                          for one in ["0.1", "0.2", "0.3", *many.split("+")]])  # fmt: skip
    named.loc[3:4, "verdict"] = "redundant"
    text = said(together(sets, named, 0.95))
    for words in (
        "More together than alone",
        "2 of 7",
        "0.3 + 6.0 + 6.1",
        "+0.900",
        "+0.800 to +0.950",
        "+0.050",
        "1 of 2 sets",
    ):
        assert words in text, words
    assert "0.1" not in text
    assert "alone: 1; shown to do so: none" in said(together(sets.iloc[1:], named, 0.95))


def test_the_table_names_partners_only_where_there_are_some() -> None:
    text = said(heads(verdicts(), ["0.0", "0.3"], 0.95, 0.02))
    assert "redundant" in text and "7.1" in text and "with" in text
    assert "+0.300" in text and "+0.280 to +0.320" in text
    assert "partners" not in said(heads(verdicts(), ["0.0", "0.5"], 0.95, 0.02))
