"""What README says of the committed verdict is what its tables hold."""

import re
from pathlib import Path

import pandas as pd
import pytest
from scipy.stats import spearmanr

from headpatch.stats.verdict_labels import CAUSAL

ROOT = Path(__file__).parent.parent
KEPT = ROOT / "attention_data" / "verdict"


@pytest.fixture(scope="module")
def said() -> str:
    return " ".join((ROOT / "README.md").read_text(encoding="utf-8").split())


@pytest.fixture(scope="module")
def heads() -> pd.DataFrame:
    table = pd.read_csv(KEPT / "verdicts.csv", keep_default_na=False)
    table["name"] = table["layer"].astype(str) + "." + table["head"].astype(str)
    return table.set_index("name")


def one(pattern: str, text: str) -> tuple[str, ...]:
    found = re.findall(pattern, text)
    assert len(found) == 1, (pattern, found)
    return found[0] if isinstance(found[0], tuple) else (found[0],)


def test_how_many_heads_act_and_which_attention_picks_out(heads: pd.DataFrame, said: str) -> None:
    acting = heads[heads["verdict"].isin(CAUSAL)]
    (count,) = one(r"of all 1,024 heads (\d+) are shown to act", said)
    assert len(heads) == 1024 and len(acting) == int(count)
    picked = heads[heads["attention_rank"] <= 20]
    assert "of the 20 heads that attention picks out, **none** is shown to act" in said
    assert not picked["verdict"].isin(CAUSAL).any()
    assert "all 20 are shown to be small: the mean, and 95 % of pairs, within ±2 % of it" in said
    assert (picked[["equivalence_q", "tolerance_q"]] < 0.05).all().all()


def test_how_many_heads_look_and_do_next_to_nothing(heads: pd.DataFrame, said: str) -> None:
    counts = heads["verdict"].value_counts()
    watch, away, inert = one(r"(\d+) heads watch: .* (\d+) look away\. .*the other (\d+) are", said)
    found = [counts[name] for name in ("watches", "looks away", "inert")]
    assert found == [int(watch), int(away), int(inert)]
    assert "One is undecided" in said and counts["undecided"] == 1


def test_what_the_picked_heads_do_together(said: str) -> None:
    table = pd.read_csv(KEPT / "together.csv").set_index(["ranking", "direction"])
    row = table.loc["attention", "noising"]
    share, low, high, random, p = one(
        r"together they take away (\S+) % \((\S+) to (\S+)\), as .* do \((\S+) %, p = (\S+)\)", said
    )
    found = [row[name] for name in ("effect", "effect_low", "effect_high", "random")]
    words = [f"{100 * value:+.1f}".replace("-", "−") for value in found]
    assert words == [share, low, high, random]
    assert f"{row['p']:.2f}" == p


def test_what_the_necessary_heads_do_by_shape(said: str) -> None:
    table = pd.read_csv(KEPT / "factors.csv")
    table["name"] = table["layer"].astype(str) + "." + table["head"].astype(str)
    effect = table.set_index(["name", "direction", "level"])["effect"]
    first, rings, triangles, second, more, circles = one(
        r"shape: (\S+) takes (\d+) % for rings and (\d+) % for triangles, (\S+) takes (\d+) % for "
        r"triangles and (\d+) % for circles",
        said,
    )
    for name, level, share in (
        (first, "ring", rings), (first, "triangle", triangles), (second, "triangle", more),
        (second, "circle", circles),
    ):  # fmt: skip
        assert f"{100 * effect[name, 'necessity', level]:.0f}" == share


def test_the_necessary_heads(heads: pd.DataFrame, said: str) -> None:
    first, second, *figures = one(
        r"necessary alone \((\S+) and (\S+): \+(\S+) and \+(\S+); "
        r"attention ranks (\d+) and (\d+)\)",
        said,
    )
    necessary = heads[heads["verdict"] == "necessary"]
    assert set(necessary.index) == {first, second}
    expected = [f"{necessary.loc[name, 'necessity']:.2f}" for name in (first, second)]
    ranks = [str(necessary.loc[name, "attention_rank"]) for name in (first, second)]
    assert figures == expected + ranks
    assert "and turn the answer on none of the 200 pairs" in said
    assert set(necessary["necessity_turned"]) == {0}


def test_the_largest_set(said: str, heads: pd.DataFrame) -> None:
    share, low, high = one(
        r"carries \*\*(\d+) %\*\* \((\d+) to (\d+)\) when changed together", said
    )
    sets = pd.read_csv(KEPT / "partners.csv")
    largest = sets[sets["redundant"]].nlargest(1, "joint").iloc[0]
    found = [f"{100 * largest[name]:.0f}" for name in ("joint", "joint_low", "joint_high")]
    assert found == [share, low, high]
    members = heads.loc[largest["heads"].split("+")]
    (count,) = one(r"A set of (\d+) heads in", said)
    assert len(members) == int(count)
    assert members["necessity"].max() < 0.015  # "about 1 %"


def test_rho_of_the_measured_means(heads: pd.DataFrame, said: str) -> None:
    (rho,) = one(r"size of mean effect is \+(\S+) as measured", said)
    size = heads[["necessity", "sufficiency"]].abs().max(axis=1)
    assert f"{spearmanr(heads['attention_diff'], size).statistic:.2f}" == rho


def test_what_the_first_heads_carry(said: str) -> None:
    curves = pd.read_csv(KEPT / "faithfulness.csv")
    kept = curves[curves["way"] == "keep"].set_index(["ranking", "k"])["share"]
    exact, attention = one(
        r"Kept alone, the 16 heads with the largest exact effects carry (\d+) % .{0,90}128 heads of"
        r" the attention ranking carry (\d+) %",
        said,
    )
    assert f"{100 * kept['effect', 16]:.0f}" == exact
    assert f"{100 * kept['attention', 128]:.0f}" == attention
