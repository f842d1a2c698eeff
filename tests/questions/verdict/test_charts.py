"""Charts of a verdict hold the tables' numbers."""

from itertools import combinations, product

import numpy as np
import pandas as pd
import pytest

from headpatch.present.canvas import Sheet
from headpatch.present.chart import Chart
from headpatch.present.figure import draw
from headpatch.present.interactive import figures
from headpatch.questions.verdict.charts import CLASSES, RANKINGS, faithfulness_chart, verdict_chart
from headpatch.stats.verdict_labels import CAUSAL

pytestmark = pytest.mark.filterwarnings("error")


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
    points = product(RANKINGS, ("keep", "remove"), (0, 1, 2, 4, 8))
    table = pd.DataFrame(points, columns=["ranking", "way", "k"])
    share = (table["k"] / 8).where(table["way"] == "keep", 1 - table["k"] / 8)
    table = table.assign(share=share, share_low=share - 0.05, share_high=share + 0.05)
    return table.assign(area=0.5, area_low=0.4, area_high=0.6, draws=3, pairs=20)


def chart_of(table: pd.DataFrame, of: int | None = None) -> Chart:
    return verdict_chart(table, delta=0.02, level=0.95, pairs=20, of=of)


@pytest.mark.parametrize("change", ["", "few", "none causal", "negative", "no attention"])
def test_every_head_lies_where_the_table_says(change: str) -> None:
    table = verdicts(4 if change == "few" else 64)
    if change == "none causal":
        table = table.assign(verdict="undecided", necessity=0.0, sufficiency=0.0)
    if change == "negative":
        table["necessity"] *= -1
        table[["necessity_high", "necessity_low"]] = -table[["necessity_low", "necessity_high"]]
    if change == "no attention":
        table.loc[:8, "attention_diff"] = np.nan
    chart = chart_of(table)
    known = table[table["attention_diff"].notna()]
    for panel, way in zip(chart.panels, ("necessity", "sufficiency"), strict=True):
        points = {point for one in panel.series for point in zip(one.x, one.y, strict=True)}
        assert points == set(zip(known["attention_diff"], known[way], strict=True))
    draw(chart, Sheet(), "q", "r")
    assert len(figures(chart)) == 2


def test_every_head_that_acts_is_named_and_no_name_hides_another() -> None:
    table = verdicts()
    table.loc[20:45, "verdict"] = "redundant"  # crowded: small effects, alike attention
    table.loc[20:45, ["attention_diff", "necessity", "sufficiency"]] = 0.0
    sheet = Sheet()
    draw(chart_of(table), sheet)
    acting = table[table["verdict"].isin(CAUSAL)]
    wanted = {f"{row.layer}.{row.head}" for row in acting.itertuples()}
    assert len(wanted) == 31
    for axes in sheet.figure.axes:
        names = [text for text in axes.texts if text.get_text()]
        assert wanted <= {text.get_text() for text in names}
        boxes = [text.get_window_extent() for text in names]
        assert not any(a.overlaps(b) for a, b in combinations(boxes, 2))


def test_one_number_of_pairs() -> None:
    chart = chart_of(verdicts(), of=50)
    assert "50 pairs, 20 of them judge" in chart.title
    names = [one.name for one in chart.panels[0].series]
    assert any(one.startswith("redundant: necessary only together with") for one in names)
    assert "of them judge" in faithfulness_chart(curves(), level=0.95, of=50).title


def test_a_missing_column_is_named() -> None:
    with pytest.raises(ValueError, match="necessity_low"):
        chart_of(verdicts().drop(columns="necessity_low"))
    with pytest.raises(ValueError, match="share_high"):
        faithfulness_chart(curves().drop(columns="share_high"), level=0.95)
    with pytest.raises(ValueError, match="no head"):
        chart_of(verdicts().iloc[:0])


def test_a_curve_a_ranking_with_its_interval_and_area() -> None:
    table, chart = curves(), faithfulness_chart(curves(), level=0.95)
    for panel, way in zip(chart.panels, ("keep", "remove"), strict=True):
        for series, ranking in zip(panel.series, RANKINGS, strict=True):
            rows = table[(table["ranking"] == ranking) & (table["way"] == way)]
            columns = ["k", "share", "share_low", "share_high"]
            drawn = np.array([series.x, series.y, series.low, series.high]).T
            np.testing.assert_array_equal(drawn, rows[columns])
            assert f"{ranking}\N{NO-BREAK SPACE}0.50" in panel.note
    draw(chart, Sheet(), "q", "r")
    assert len(figures(chart)) == 2
