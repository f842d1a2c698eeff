import math

import numpy as np
import pandas as pd
import pytest
from rich.console import Console

from headpatch.report.cut_tables import cut_tables
from headpatch.report.cuts import MOST_PLACES, cut_effects
from tests.report.synthetic import CUT_GAP as GAP
from tests.report.synthetic import cuts

pytestmark = [pytest.mark.filterwarnings("error"), pytest.mark.usefixtures("draft")]

SPANS = ["0-2", "0-3", "0-4", "1-5", "2-6"]


def windows(**options: object) -> pd.DataFrame:
    return cuts(SPANS, "window", **options)


def printed(table: pd.DataFrame, floor: float = 1e-6) -> str:
    console = Console(width=200)
    with console.capture() as capture:
        console.print(cut_tables(table, floor))
    return capture.get()


def test_a_panel_a_run_and_a_line_an_edge(tmp_path, drawn):
    table = windows()
    cut_effects(table, tmp_path / "f.png", question="Q?", region="top-left")
    assert (tmp_path / "f.png").exists()
    above, below = drawn.last.axes
    assert [above.get_title(loc="left"), below.get_title(loc="left")] == [
        "Run with the object",
        "Run without the object",
    ]
    for axes, run in ((above, "with"), (below, "without")):
        lines = {line.get_label(): line for line in axes.lines if "→" in str(line.get_label())}
        assert list(lines) == ["answer → region", "question → other"]
        for label, line in lines.items():
            own = table[(table["run"] == run) & (table["edge"] == label.replace(" → ", "-"))]
            assert line.get_xdata().tolist() == [0, 1, 2, 3, 4]
            assert line.get_ydata().tolist() == own["normalized"].tolist()
    assert below.get_xlim() == (-0.5, 4.5)
    texts = drawn.texts()
    assert "Language-model layer on which the window is centred" in texts
    assert any("5 consecutive layers" in text for text in texts)
    assert texts.count("Normalized effect") == 2


def test_the_right_axis_gives_logits_with_their_sign(tmp_path, drawn):
    """The with-run falls by the whole difference where the effect is 1; the other run rises."""
    cut_effects(windows(), tmp_path / "f.png")
    for axes, sign in zip(drawn.last.axes, (-1, 1), strict=True):
        (right,) = axes.child_axes
        assert right.get_ylabel() == "Effect on LD (logits)"
        assert right._functions[0](np.array([0.0, 0.5, 1.0])).tolist() == [0, sign * 10, sign * 20]
        assert sorted(right.get_ylim()) == pytest.approx(
            sorted(sign * GAP * y for y in axes.get_ylim())
        )


def test_the_control_band_is_where_the_table_says(tmp_path, drawn):
    cut_effects(windows(), tmp_path / "f.png")
    for axes in drawn.last.axes:
        (band,) = axes.collections  # one of the two edges has controls
        ys = band.get_paths()[0].vertices[:, 1]
        assert (ys.min(), ys.max()) == pytest.approx((0.03, 0.07))
    note = " ".join(" ".join(drawn.texts()).split())
    assert "Bands: the same cut with as many random image tokens in the region's place" in note


def legends(figure) -> list[str]:
    found = [one for axes in figure.axes if (one := axes.get_legend())] + figure.legends
    return [text.get_text() for one in found for text in one.get_texts()]


@pytest.mark.parametrize("count", [1, 4, 5, 6, 9])
def test_every_edge_is_named_inside_the_figure(count, tmp_path, drawn):
    edges = tuple(
        f"{start}-{end}"
        for start in ("answer", "question", "all")
        for end in ("region", "other", "image")
    )[:count]
    cut_effects(windows(edges=edges), tmp_path / "f.png")
    figure = drawn.last
    assert legends(figure) == [edge.replace("-", " → ") for edge in edges]
    for legend in figure.legends:
        assert legend.get_window_extent().x1 <= figure.bbox.x1


def test_heads_stand_side_by_side(tmp_path, drawn):
    table = pd.concat(
        [
            cuts(["24.10", "24.1"], "head"),
            cuts(["24.1+24.10"], "joint"),
            cuts(["1.1+2.2+3.3"], "joint"),
        ]
    )
    cut_effects(table, tmp_path / "f.png")
    axes = drawn.last.axes[-1]
    names = [label.get_text() for label in axes.get_xticklabels()]
    assert names == ["24.10", "24.1", "24.1+24.10", "joint: 3"]
    assert axes.get_xlabel() == "Heads cut (layer.head)"


def test_a_table_as_it_is_read_from_a_file(tmp_path, drawn):
    for table in (cuts(["10-14"], "layers"), cuts(["24.10"], "head")):
        file = tmp_path / "cuts.csv"
        table.to_csv(file, index=False)
        from headpatch.core.output import read_table

        cut_effects(read_table(file), tmp_path / "f.png")
    ticks = [[t.get_text() for t in one.axes[-1].get_xticklabels()] for one in drawn.figures]
    assert ticks == [["10-14"], ["24.10"]]
    assert drawn.figures[0].axes[-1].get_xlabel() == "Layers cut"


def test_the_largest_are_kept_when_a_page_is_full(tmp_path, drawn):
    table = cuts([f"3.{head}" for head in range(64)], "head", edges=("answer-other",))
    table.loc[table["heads"] == "3.63", "effect"] = -99.0
    cut_effects(table, tmp_path / "f.png")
    names = [label.get_text() for label in drawn.last.axes[-1].get_xticklabels()]
    assert len(names) == MOST_PLACES
    assert names[-1] == "3.63"
    assert any(f"{MOST_PLACES} largest of 64" in text for text in drawn.texts())


def test_runs_of_equal_ld_have_no_normalized_effect(tmp_path, drawn):
    table = windows().assign(normalized=math.nan, ld_without=12.0, control_mean=math.nan)
    cut_effects(table, tmp_path / "f.png")
    assert not any(axes.child_axes for axes in drawn.last.axes)
    assert "undefined" in printed(table)


def test_controls_and_the_noise_floor_are_no_subjects(tmp_path, drawn):
    table = pd.concat([windows(), windows(seed=1).assign(role="control", centre=np.nan)])
    cut_effects(table, tmp_path / "f.png")
    with pytest.raises(ValueError, match="no row of the roles"):
        cut_effects(table[table["role"] == "control"], tmp_path / "g.png")
    with pytest.raises(ValueError, match="lack the columns control_sd, edge"):
        cut_effects(table.drop(columns=["edge", "control_sd"]), tmp_path / "g.png")
    assert not (tmp_path / "g.png").exists()


def test_tables_over_depth_and_of_the_largest() -> None:
    table = windows()
    table.loc[0, "effect"] = 5e-7
    text = printed(table)
    assert "Run with the object" in text
    assert "Run without the object" in text
    assert "(+5e-07)" in text
    for span in SPANS:
        assert text.count(f" {span} ") >= 2
    by_edge = table[(table["edge"] == "answer-region") & (table["run"] == "with")]
    largest = by_edge.loc[by_edge["effect"].abs().idxmax()]
    line = next(
        line
        for line in text.splitlines()
        if "answer → region" in line and f" {largest['layers']} " in line
    )
    assert f"{largest['effect']:+.4f}" in line
    assert "+0.0500±0.0200" in line
    assert "none" in text


def test_every_cut_of_heads_is_listed() -> None:
    text = printed(
        pd.concat([cuts(["24.10"], "head"), cuts(["1.1+2.2+3.3+4.4"], "joint")], ignore_index=True)
    )
    assert "Every cut" in text
    assert text.count("24.10") == 4
    assert text.count("joint: 4 heads") == 4
