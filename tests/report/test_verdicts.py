"""The figures and tables of a verdict, from tables made by hand."""

from collections.abc import Sequence

import pandas as pd
from rich.console import Console

from headpatch.questions.verdict.charts import RANKINGS
from headpatch.report.verdict_tables import areas, headline, heads, nulls, together
from tests.questions.verdict.test_charts import curves, verdicts


def said(*parts: object) -> str:
    console = Console(width=200, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    for part in parts:
        console.print(part)
    return console.export_text()


def test_areas_are_shown_with_their_intervals() -> None:
    text = said(areas(curves()))
    assert "0.500 (0.400 to 0.600)" in text
    assert all(words in text for _, words in RANKINGS.values())


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
