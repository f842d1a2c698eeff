"""What README and docs/results.md say of the committed results is what their tables hold."""

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
    return " ".join((ROOT / "docs/results.md").read_text(encoding="utf-8").split())


@pytest.fixture(scope="module")
def readme() -> str:
    return (ROOT / "README.md").read_text(encoding="utf-8")


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


def test_the_readmes_paragraph(heads: pd.DataFrame, readme: str) -> None:
    acting, necessary, redundant, members, *joint, rho = one(
        r"(\d+) heads are shown to act, none of them among those 20: (\d+) are necessary by "
        r"themselves, (\d+) only together with others \(a set of (\d+) carries (\d+) %, 95 % "
        r"interval (\d+) to (\d+)\)\. Attention difference and size of effect correlate at "
        r"ρ = \+(\S+)\. ",
        " ".join(readme.split()),
    )
    causal = heads[heads["verdict"].isin(CAUSAL)]
    assert len(causal) == int(acting) and causal["attention_rank"].min() > 20
    counts = heads["verdict"].value_counts()
    assert [counts["necessary"], counts["redundant"]] == [int(necessary), int(redundant)]
    sets = pd.read_csv(KEPT / "partners.csv")
    largest = sets[sets["redundant"]].nlargest(1, "joint").iloc[0]
    assert len(largest["heads"].split("+")) == int(members)
    names = ("joint", "joint_low", "joint_high")
    assert [f"{100 * largest[name]:.0f}" for name in names] == joint
    size = heads[["necessity", "sufficiency"]].abs().max(axis=1)
    assert f"{spearmanr(heads['attention_diff'], size).statistic:.2f}" == rho


def test_the_readmes_tables(readme: str) -> None:
    """What it shows of `rank` and `sweep` is in the committed results of the same study."""
    ranked = pd.read_csv(ROOT / "attention_data/heads.csv").set_index("rank")
    rows = re.findall(r"^(\d+) +(\d+) +(\d+) +(\+\S+) +(\S+) +(\S+) +(\+\S+) ", readme, re.M)
    assert len(rows) >= 3
    for rank, *cells in rows:
        row = ranked.loc[int(rank)]
        shown = [f"{row['layer']:.0f}", f"{row['head']:.0f}", f"{row['diff']:+.4f}"]
        shown += [f"{row['with']:.4f}", f"{row['without']:.4f}", f"{row['diff_raw']:+.4f}"]
        assert cells == shown
    swept = pd.read_csv(ROOT / "attention_data/sweep/effects.csv", dtype={"heads": str})
    effects = swept[swept["direction"] == "noising"].set_index("heads")
    rows = re.findall(r"^\d+ +(\d+\.\d+) +(\S+) +(\S+) +same +(\d+)", readme, re.M)
    assert len(rows) >= 3
    for heads, *cells in rows:
        row = effects.loc[heads]
        shown = [f"{row['effect']:+.4f}", f"{row['normalized']:+.4f}", str(row["attention_rank"])]
        assert cells == shown
