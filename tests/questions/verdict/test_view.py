"""What is seen of a verdict, from tables made by hand: in a terminal and on the page."""

from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pandas as pd

from headpatch.core.output.folder import find
from headpatch.core.question import Context
from headpatch.questions.verdict import VERB
from headpatch.questions.verdict.charts import RANKINGS, measured_words, true_words
from headpatch.questions.verdict.headline import Headline, headline_words
from headpatch.questions.verdict.view import view
from headpatch.reports import derived
from headpatch.stats.disattenuated_rank_correlation import TrueCorrelation, true_correlation
from headpatch.stats.rankings import Correlation, Precision
from tests.command import printed
from tests.questions.verdict.test_charts import curves, verdicts
from tests.report import made

CONTEXT = Context(options={"delta": 0.02, "top": 3})


def shown(**tables: pd.DataFrame) -> str:
    """Print a verdict with some tables, others left out."""
    tables = {"verdicts": verdicts(), **tables}
    return printed(view({f"{name}.csv": table for name, table in tables.items()}, CONTEXT))


def test_areas_are_shown_with_their_intervals() -> None:
    text = shown(faithfulness=curves())
    assert "0.500 (0.400 to 0.600)" in text
    assert all(words in text for _, words in RANKINGS.values())


def test_the_benchmarks_areas_stand_beside_where_the_table_has_them() -> None:
    assert "CPR" not in shown(faithfulness=curves())
    more = {f"{name}{end}": 0.25 for name in ("cpr", "cmd") for end in ("", "_low", "_high")}
    text = shown(faithfulness=curves().assign(**more))
    assert "CPR" in text and "CMD" in text and "0.250 (0.250 to 0.250)" in text


def null(name: str, outcome: str) -> dict[str, object]:
    value = float("nan") if outcome == "not tested" else 0.25
    return {"null": name, "figure": "share", "value": value, "limit": "0", "outcome": outcome,
            "pairs": 7, "note": "why" if outcome == "not tested" else ""}  # fmt: skip


def test_a_failed_null_is_shouted_and_an_untested_one_is_not_passed() -> None:
    fine = shown(nulls=pd.DataFrame([null("a", "passed"), null("b", "not tested")]))
    assert "FAILED" not in fine
    assert "not tested" in fine and "why" in fine and "nan" not in fine
    bad = shown(nulls=pd.DataFrame([null("a", "passed"), null("mirrored", "failed")]))
    assert "A NULL FAILED (mirrored)" in bad


HEADLINE = Headline(
    pairs=50, heads=64, counts={"inert": 60}, picked=("0.1", "0.2"), picked_causal=("0.1",),
    picked_within=("0.2",), picked_mixed=(), picked_undecided=(), causal=("0.1", "3.3"),
    missed=("3.3",),
    rho=Correlation(0.1, 0.05, 0.15), true_rho=TrueCorrelation(0.2, 0.08, 0.3, 0.76, 0.95, ""),
    precision=(Precision(2, 1, 0.5, 0.031, 0.06),),
)  # fmt: skip


def test_the_headline_says_no_more_than_the_numbers() -> None:
    def said(**changed: object) -> str:
        return "\n".join(headline_words(replace(HEADLINE, **changed), CONTEXT))  # type: ignore[arg-type]

    for words in (
        "2 heads that attention picks out",
        "Heads are changed at the answer position.",
        "1 is shown to act on the answer (0.1); 1 is shown to be small",
        "none is undecided",
        "2 are shown to act (0.1, 3.3). Attention misses 1 of them (3.3).",
        "means that were measured: +0.10 (95% interval over pairs +0.05 to +0.15; errors",
        "true values: +0.20 (95% interval +0.08 to +0.30); reliability of the rankings: 0.76",
        "Precision@2: 1 of the first 2",
        "chance 3.1%",
    ):
        assert words in said(), words
    assert "Each is shown to be small, or mixed." in said(causal=(), missed=())
    some = said(causal=(), missed=(), counts={"undecided": 3})
    assert "no proof that none does: 3 are undecided" in some
    assert "misses all of them" in said(causal=("3.3",))
    assert "undefined" in said(rho=Correlation(float("nan"), 0.0, 0.0))


def test_sets_are_shown_whole_with_how_many_of_their_heads_are_redundant() -> None:
    table = verdicts()
    many = "+".join(f"6.{head}" for head in range(6))
    table.loc[3, "partners"] = f"7.1;{many}"
    assert "7.1; 6 others" in shown(verdicts=table)
    columns = {"joint": 0.9, "joint_low": 0.8, "joint_high": 0.95, "excess": 0.05,
               "excess_low": 0.03, "excess_high": 0.07, "q": 0.001}  # fmt: skip
    sets = pd.DataFrame([{"heads": f"0.3+{many}", **columns, "redundant": True},
                         {"heads": "0.1+0.2", **columns, "redundant": False}])  # fmt: skip
    table["verdict"] = "necessary"
    members = table["layer"].eq(6) & table["head"].lt(2)
    table.loc[members, "verdict"] = "redundant"
    text = shown(partners=sets, verdicts=table)
    for words in ("More together than alone", "2 of 7", "0.3 + 6.0 + 6.1", "+0.900",
                  "+0.800 to +0.950", "+0.050", "1 of 2 sets"):  # fmt: skip
        assert words in text, words
    assert "alone: 1; shown to do so: none" in shown(partners=sets.iloc[1:])


def test_the_table_names_partners_only_where_there_are_some() -> None:
    text = shown()
    assert "redundant" in text and "7.1" in text and "with:" in text
    assert "+0.300" in text and "+0.280 to +0.320" in text
    assert "with:" not in shown(verdicts=verdicts().assign(partners=""))


def test_the_page_shows_what_files_hold_and_chooses_heads(tmp_path: Path) -> None:
    """Also where files of an earlier version are missing."""
    made.verdict(tmp_path, failed=True)
    for name in ("", "faithfulness.csv", "nulls.csv", "verdict.pt", "partners.csv"):
        (tmp_path / name).unlink(missing_ok=True) if name else None
        section = derived.section("verdict")(find(tmp_path))
        assert section is not None
        blocks = section.values["blocks"]
        grids = {block["title"]: block for block in blocks if block["kind"] == "grid"}
        acting = grids["Heads that are shown to act"]["rows"]
        assert [kind for _, _, kind in acting[0]][:2] == ["head", "verdict"]
        words = " ".join(block["text"] for block in blocks if block["kind"] == "words")
        assert ("A NULL FAILED (self-patch)" in words) is (tmp_path / "nulls.csv").exists()
        assert len(section.figures) == (2 + 2 * (tmp_path / "faithfulness.csv").exists())


def test_every_column_that_is_written_is_declared() -> None:
    """The committed verdict has those of every table, in order."""
    folder = Path(__file__).parents[3] / "attention_data" / "verdict"
    for schema in VERB.schemas:
        there = list(pd.read_csv(folder / schema.file, nrows=0).columns)
        assert [column.name for column in schema] == there, schema.file


def test_both_come_with_interval_and_reliability() -> None:
    assert measured_words(asdict(Correlation(0.134, 0.05, 0.21)), 0.95).startswith(
        "+0.13 (95% interval over pairs +0.05 to +0.21; errors scramble ranks"
    )
    assert true_words(asdict(TrueCorrelation(0.19, 0.08, 0.3, 0.76, 0.95, "")), 0.9) == (
        "+0.19 (90% interval +0.08 to +0.30); reliability of the rankings: 0.76 (attention) and "
        "0.95 (effect)"
    )


def test_what_cannot_be_told_is_not_given_as_a_number() -> None:
    nan = float("nan")
    untold = TrueCorrelation(nan, nan, nan, 0.9, 0.31, "as errors scramble the ranks too much")
    text = true_words(asdict(untold), 0.95)
    assert text == (
        "cannot be told, as errors scramble the ranks too much; reliability of the rankings: 0.90 "
        "(attention) and 0.31 (effect); 0.5 is needed"
    )
    values = np.ones((4, 8)) * np.arange(8)
    few = true_words(asdict(true_correlation(values, values, values, 0.95)), 0.95)
    assert few == "cannot be told, as there are fewer than 64 heads"
    flat = measured_words(asdict(Correlation(nan, nan, nan)), 0.95)
    assert flat == "undefined, one of them does not vary"
