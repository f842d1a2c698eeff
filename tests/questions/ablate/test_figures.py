import math

import pytest

from headpatch.questions.ablate.figure import MOST_ROWS, head_effects
from tests.report import synthetic

pytestmark = [pytest.mark.filterwarnings("error"), pytest.mark.usefixtures("draft")]

HEADS = ["24.17", "23.20", "19.31", "24.10"]


def row_names(figure) -> list[str]:
    return [label.get_text() for label in figure.axes[0].get_yticklabels()]


def test_one_panel_a_kind_and_direction_heads_first_joint_last(tmp_path, drawn):
    head_effects(synthetic.effects(HEADS), tmp_path / "f.png")
    assert len(drawn.last.axes) == 6
    assert row_names(drawn.last) == [*HEADS, "joint: 4 heads"]
    kinds = [axes.get_title(loc="left") for axes in drawn.last.axes[:3]]
    assert kinds == ["Zero", "Mean", "Resample"]


def test_a_small_joint_set_is_named_in_full(tmp_path, drawn):
    head_effects(synthetic.effects(HEADS[:2]), tmp_path / "f.png")
    assert row_names(drawn.last)[-1] == "24.17+23.20"


def test_values_controls_and_noise_floor_are_where_the_table_says(tmp_path, drawn):
    table = synthetic.effects(HEADS[:1])
    first = table.index[(table["kind"] == "zero") & (table["direction"] == "noising")][0]
    table.loc[first, ["normalized", "control_mean", "control_sd"]] = [0.5, 0.1, 0.2]
    table.loc[table["role"] == "noise floor", "normalized"] = [-0.03, 0.01]
    head_effects(table, tmp_path / "f.png")
    axes = drawn.last.axes[0]
    boxes = [(p.get_x(), p.get_x() + p.get_width()) for p in axes.patches]
    assert any(box == pytest.approx((-0.1, 0.3)) for box in boxes)
    assert any(box == pytest.approx((-0.03, 0.03)) for box in boxes)
    assert "+0.50" in [text.get_text() for text in axes.texts]
    assert "patched with own z (±0.03)" in drawn.texts()


def test_without_control_columns_the_control_rows_make_the_band(tmp_path, drawn):
    table = synthetic.effects(HEADS[:1]).drop(columns=["control_mean", "control_sd", "control_n"])
    zero = table[table["kind"] == "zero"]
    controls = [zero.assign(heads=f"24.{i}", role="control", normalized=i / 10) for i in range(3)]
    import pandas as pd

    head_effects(pd.concat([table, *controls]), tmp_path / "f.png")
    boxes = [(p.get_x(), p.get_x() + p.get_width()) for p in drawn.last.axes[0].patches]
    assert any(box == pytest.approx((0.0, 0.2)) for box in boxes)


def test_a_head_without_controls_borrows_no_others_band(tmp_path, drawn):
    table = synthetic.effects(HEADS[:1])
    table[["control_mean", "control_sd"]] = math.nan
    table.loc[table["kind"] == "mean", "role"] = "control"
    head_effects(table, tmp_path / "f.png")
    assert not any("random heads" in text for text in drawn.texts())


def test_a_changed_answer_is_a_filled_marker(tmp_path, drawn):
    table = synthetic.effects(HEADS[:1])
    table["answer_after"] = table["answer_before"]
    table.loc[table["kind"] == "mean", "answer_after"] = "Maybe"
    head_effects(table, tmp_path / "f.png")
    faces = [axes.lines[-1].get_markerfacecolor() for axes in drawn.last.axes[3:]]
    assert [face == "white" for face in faces] == [True, False, True]


def test_several_pairs_are_averaged_and_several_positions_kept_apart(tmp_path, drawn):
    table = synthetic.effects(HEADS[:1], pairs=3)
    head_effects(table, tmp_path / "f.png")
    here = (table["kind"] == "zero") & (table["direction"] == "noising")
    mean = table.loc[here, "normalized"].mean()
    assert f"+{mean:.2f}" in [text.get_text() for text in drawn.last.axes[0].texts]
    table.loc[table["pair"] == "pair2", "positions"] = "image"
    head_effects(table, tmp_path / "f.png")
    assert row_names(drawn.last) == ["24.17 (answer)", "24.17 (image)"]


def test_an_undefined_effect_is_said_to_be(tmp_path, drawn):
    table = synthetic.effects(HEADS[:1])
    table.loc[0, "normalized"] = math.nan
    head_effects(table, tmp_path / "f.png")
    assert drawn.texts().count("undefined") == 1


def test_the_largest_are_kept_when_a_page_is_full(tmp_path, drawn):
    table = synthetic.effects([f"3.{head}" for head in range(64)], joint=False)
    table = table[(table["kind"] == "resample") & (table["direction"] == "noising")]
    table.loc[table["heads"] == "3.63", "normalized"] = -5.0
    head_effects(table, tmp_path / "f.png")
    assert len(row_names(drawn.last)) == MOST_ROWS
    assert row_names(drawn.last)[-1] == "3.63"
    assert any(f"{MOST_ROWS} largest of 64" in text for text in drawn.texts())


def test_one_direction_and_one_kind(tmp_path, drawn):
    table = synthetic.effects(HEADS[:2])
    one = table[(table["kind"] == "resample") & (table["direction"] == "denoising")]
    head_effects(one, tmp_path / "f.png")
    assert len(drawn.last.axes) == 1


def test_what_is_no_table_of_effects_is_refused(tmp_path):
    table = synthetic.effects(HEADS[:1])
    with pytest.raises(ValueError, match="kind, role"):
        head_effects(table.drop(columns=["kind", "role"]), tmp_path / "f.png")
    with pytest.raises(ValueError, match="no row with the role"):
        head_effects(table[table["role"] == "noise floor"], tmp_path / "f.png")
    assert not list(tmp_path.iterdir())
