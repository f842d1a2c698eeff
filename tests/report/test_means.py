"""The chart of means over pairs: every head at its mean, its bar from low to high."""

import numpy as np
import pandas as pd
import pytest

from headpatch.present.effects_view import MOST_ROWS, mean_effects_chart

WAYS = [(kind, way) for kind in ("zero", "resample") for way in ("noising", "denoising")]


def effects(heads: int = 3) -> pd.DataFrame:
    rng = np.random.default_rng(0)
    rows = [
        {"heads": f"{head}.0", "kind": kind, "direction": way, "positions": "answer", "pairs": 7}
        for kind, way in WAYS
        for head in range(heads)
    ]
    table = pd.DataFrame(rows)
    table["normalized"] = rng.uniform(-0.5, 1, len(table))
    table["normalized_low"] = table["normalized"] - 0.1
    table["normalized_high"] = table["normalized"] + 0.2
    return table


def chart(table: pd.DataFrame, level: float = 0.95):
    return mean_effects_chart("a.png", table, level)


def test_every_mean_has_its_bar() -> None:
    table = effects()
    drawn = chart(table, 0.9)
    by_way = [
        table[(table["kind"] == kind) & (table["direction"] == way)]
        for way in ("noising", "denoising")
        for kind in ("zero", "resample")
    ]
    for panel, rows in zip(drawn.panels, by_way, strict=True):
        (series,) = panel.series
        assert panel.names == ["0.0", "1.0", "2.0"] and series.null_band is None
        ends = [rows[f"normalized{end}"] for end in ("", "_low", "_high")]
        np.testing.assert_allclose([series.y, series.low, series.high], ends)
    assert "over 7 pairs; z changed at: answer" in drawn.title
    assert "90% interval" in drawn.note


def test_too_many_heads_are_cut_to_the_largest() -> None:
    table = effects(heads=50)
    drawn = chart(table)
    size = table["normalized"].abs().groupby(table["heads"]).max().sort_values(ascending=False)
    assert drawn.panels[0].names == list(size.index[:MOST_ROWS])
    assert f"({MOST_ROWS} largest of 50)" in drawn.title


def test_what_is_undefined_has_no_bar() -> None:
    table = effects()
    table.loc[table["heads"] == "1.0", "normalized"] = np.nan
    (series,) = chart(table).panels[0].series
    assert np.isnan([series.low[1], series.high[1]]).all()


def test_random_heads_stand_behind() -> None:
    table = effects().assign(control_mean=0.1, control_mean_low=0.05, control_mean_high=0.2)
    (series,) = chart(table).panels[0].series
    np.testing.assert_allclose(series.null_band, [[0.05] * 3, [0.2] * 3])
    assert series.null_name == "random heads of the same layers"


def test_what_cannot_be_drawn_is_refused() -> None:
    with pytest.raises(ValueError, match="lack the columns normalized_low"):
        chart(effects().drop(columns="normalized_low"))
    with pytest.raises(ValueError, match="no row"):
        chart(effects().head(0))


def test_layers_and_long_sets_have_names_of_their_own() -> None:
    roles = {"0.1": "set", "0.1+0.2+1.3": "set", "0.1+0.2+1.3+1.4": "set", "0.1+0.2+1.3+1.5": "set",
             "2.0+2.1+2.2+2.3": "layer", "v2.0+v2.1": "layer"}  # fmt: skip
    table = effects(heads=len(roles))
    table["heads"] = list(roles) * len(WAYS)
    table["role"] = table["heads"].map(roles)
    assert chart(table).panels[0].names == [
        "0.1", "0.1+0.2+1.3", "set 1: 0.1+0.2+…", "set 2: 0.1+0.2+…", "layer:2", "layer:v2",
    ]  # fmt: skip


def test_several_places_are_said_by_the_rows() -> None:
    table = effects()
    table.loc[table["heads"] == "0.0", "positions"] = "answer+v:all"
    drawn = chart(table)
    assert "z changed as the rows say" in drawn.title
    assert "0.0 (answer+v:all)" in drawn.panels[0].names


@pytest.mark.parametrize(("largest", "ends"), [(0.07, 0.11), (0.6, 1.2)])
def test_the_axis_ends_near_the_effects_and_says_so(largest: float, ends: float) -> None:
    table = effects()
    shrunk = table["normalized"] / table["normalized"].abs().max() * largest
    table = table.assign(normalized=shrunk, normalized_low=shrunk, normalized_high=shrunk)
    made = chart(table)
    ((low, high),) = {(panel.x_scale.low, panel.x_scale.high) for panel in made.panels}
    assert low < 0 and largest < high < ends
    assert ("dotted line" in made.note) == (largest > 0.4)
    assert ("beyond the axis, which ends at 0.07" in made.note) == (largest < 0.4)
    assert all(bool(panel.guides) == (largest > 0.4) for panel in made.panels)
