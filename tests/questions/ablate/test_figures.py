"""The chart of named heads: every effect beside its controls."""

import math

import numpy as np
import pandas as pd
import pytest

from headpatch.present.figure import draw
from headpatch.questions.ablate.view import MOST_HEADS, named_effects_chart
from tests.report import synthetic

HEADS = ["24.17", "23.20", "19.31", "24.10"]


def test_one_panel_a_kind_and_direction_heads_first_joint_last():
    chart = named_effects_chart(synthetic.effects(HEADS))
    assert [panel.title for panel in chart.panels] == [
        f"{kind}, {way}"
        for way in ("noising (necessary?)", "denoising (sufficient?)")
        for kind in ("Zero", "Mean", "Resample")
    ]
    assert chart.columns == 3 and chart.panels[0].names == [*HEADS, "joint: 4 heads"]
    small = named_effects_chart(synthetic.effects(HEADS[:2]))
    assert small.panels[0].names[-1] == "24.17+23.20"


def test_values_controls_and_noise_floor_are_where_the_table_says():
    table = synthetic.effects(HEADS[:1])
    first = table.index[(table["kind"] == "zero") & (table["direction"] == "noising")][0]
    table.loc[first, ["normalized", "control_mean", "control_sd"]] = [0.5, 0.1, 0.2]
    table.loc[table["role"] == "noise floor", "normalized"] = [-0.03, 0.01]
    panel = named_effects_chart(table).panels[0]
    effects = panel.series[0]
    ends = [effects.y, effects.null, effects.null_low, effects.null_high]
    np.testing.assert_allclose([values[0] for values in ends], [0.5, 0.1, -0.1, 0.3])
    assert effects.texts[0] == "+0.50"
    floor = panel.guides[-1]
    assert (floor.at, floor.to, floor.name) == (-0.03, 0.03, "patched with own z (±0.03)")


def test_a_head_without_controls_borrows_no_others_band():
    table = synthetic.effects(HEADS[:1])
    table[["control_mean", "control_sd"]] = math.nan
    table.loc[table["kind"] == "mean", "role"] = "control"
    panels = named_effects_chart(table).panels
    assert len(panels) == 4 and all(panel.series[0].null_band is None for panel in panels)


def test_a_changed_answer_is_a_filled_marker():
    table = synthetic.effects(HEADS[:1])
    table["answer_after"] = table["answer_before"]
    table.loc[table["kind"] == "mean", "answer_after"] = "Maybe"
    hollow = [panel.series[0].hollow[0] for panel in named_effects_chart(table).panels]
    assert hollow == [True, False, True] * 2


def test_several_positions_are_kept_apart():
    table = synthetic.effects(HEADS[:1])
    both = pd.concat([table, table.assign(positions="image")])
    names = named_effects_chart(both).panels[0].names
    assert names == ["24.17 (answer)", "24.17 (image)"]


@pytest.mark.usefixtures("draft")
def test_an_undefined_effect_is_said_to_be_and_one_that_is_not_there_is_left_out(tmp_path, drawn):
    table = synthetic.effects(HEADS[:2])
    table.loc[0, "normalized"] = math.nan
    draw(named_effects_chart(table.drop(index=1)), tmp_path / "f.png")
    assert drawn.texts().count("undefined") == 1
    undefined = table.assign(normalized=math.nan, control_mean=math.nan)
    draw(named_effects_chart(undefined), tmp_path / "none.png")


def test_the_largest_are_kept_when_a_page_is_full():
    table = synthetic.effects([f"3.{head}" for head in range(64)], joint=False)
    table = table[(table["kind"] == "resample") & (table["direction"] == "noising")]
    table.loc[table["heads"] == "3.63", "normalized"] = -5.0
    chart = named_effects_chart(table)
    (panel,) = chart.panels
    assert len(panel.names) == MOST_HEADS and panel.names[0] == "3.63"
    assert f"{MOST_HEADS} largest of 64" in chart.title


def test_what_is_no_table_of_effects_is_refused():
    table = synthetic.effects(HEADS[:1])
    with pytest.raises(ValueError, match="kind, role"):
        named_effects_chart(table.drop(columns=["kind", "role"]))
    with pytest.raises(ValueError, match="no row with the role"):
        named_effects_chart(table[table["role"] == "noise floor"])
