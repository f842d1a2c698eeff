"""What is seen of cut edges: lines over depth, heads side by side, tables, words over pairs."""

import math
from itertools import product

import numpy as np
import pandas as pd
import pytest

from headpatch.core.output.folder import find
from headpatch.core.question import Context
from headpatch.present.chart import Chart
from headpatch.present.figure import draw
from headpatch.questions.cut import VERB
from headpatch.questions.cut.view import view
from headpatch.reports import derived
from tests.command import printed
from tests.report import made
from tests.report.synthetic import CUT_GAP as GAP
from tests.report.synthetic import cuts

pytestmark = [pytest.mark.filterwarnings("error"), pytest.mark.usefixtures("draft")]

SPANS = ["0-2", "0-3", "0-4", "1-5", "2-6"]
CONTEXT = Context("Q?", "top-left", noise_floor=1e-6)


def windows(**options: object) -> pd.DataFrame:
    return cuts(SPANS, "window", **options)


def figure(table: pd.DataFrame, path) -> None:
    (chart,) = (part for part in view({"cuts.csv": table}, CONTEXT) if isinstance(part, Chart))
    draw(chart, path, **CONTEXT.title)


def shown(table: pd.DataFrame) -> str:
    return printed(view({"cuts.csv": table}, CONTEXT))


def test_a_panel_a_run_and_a_line_an_edge(tmp_path, drawn):
    table = windows()
    figure(table, tmp_path / "f.png")
    assert (tmp_path / "f.png").exists()
    above, below = drawn.last.axes
    for axes, run in ((above, "with"), (below, "without")):
        assert axes.get_title(loc="left") == f"Run {run} the object"
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
    figure(windows(), tmp_path / "f.png")
    for axes, sign in zip(drawn.last.axes, (-1, 1), strict=True):
        (right,) = axes.child_axes
        assert right.get_ylabel() == "Effect on LD (logits)"
        assert right._functions[0](np.array([0.0, 0.5, 1.0])).tolist() == [0, sign * 10, sign * 20]
        assert sorted(right.get_ylim()) == pytest.approx(
            sorted(sign * GAP * y for y in axes.get_ylim())
        )


def test_the_control_band_is_where_the_table_says(tmp_path, drawn):
    figure(windows(), tmp_path / "f.png")
    for axes in drawn.last.axes:
        (band,) = axes.collections  # one of the two edges has controls
        ys = band.get_paths()[0].vertices[:, 1]
        assert (ys.min(), ys.max()) == pytest.approx((0.03, 0.07))
    note = " ".join(" ".join(drawn.texts()).split())
    assert "Bands: the same cut with as many random image tokens in the region's place" in note


def legends(figure) -> list[str]:
    every = [legend for axes in figure.axes if (legend := axes.get_legend())] + figure.legends
    return [text.get_text() for legend in every for text in legend.get_texts()]


@pytest.mark.parametrize("count", [1, 4, 5, 6, 9])
def test_every_edge_is_named_inside_the_figure(count, tmp_path, drawn):
    ends = product(("answer", "question", "all"), ("region", "other", "image"))
    edges = tuple(map("-".join, ends))[:count]
    figure(windows(edges=edges), tmp_path / "f.png")
    assert legends(drawn.last) == [edge.replace("-", " → ") for edge in edges]
    for legend in drawn.last.legends:
        assert legend.get_window_extent().x1 <= drawn.last.bbox.x1


def test_heads_stand_side_by_side(tmp_path, drawn):
    joint = [cuts([heads], "joint") for heads in ("24.1+24.10", "1.1+2.2+3.3")]
    table = pd.concat([cuts(["24.10", "24.1"], "head"), *joint])
    figure(table, tmp_path / "f.png")
    axes = drawn.last.axes[-1]
    names = [label.get_text() for label in axes.get_xticklabels()]
    assert names == ["24.10", "24.1", "24.1+24.10", "joint: 3"]
    assert axes.get_xlabel() == "Heads cut (layer.head)"


def test_a_table_as_it_is_read_from_a_file(tmp_path, drawn):
    for table in (cuts(["10-14"], "layers"), cuts(["24.10"], "head")):
        made.run_yaml(tmp_path)
        table.to_csv(tmp_path / "cuts.csv", index=False)
        run = find(tmp_path).first("cuts.csv")
        figure(derived.saved(VERB, run)["cuts.csv"], tmp_path / "f.png")
    ticks = [[t.get_text() for t in one.axes[-1].get_xticklabels()] for one in drawn.figures]
    assert ticks == [["10-14"], ["24.10"]]
    assert drawn.figures[0].axes[-1].get_xlabel() == "Layers cut"


def test_the_largest_are_kept_when_a_page_is_full(tmp_path, drawn):
    table = cuts([f"3.{head}" for head in range(64)], "head", edges=("answer-other",))
    table.loc[table["heads"] == "3.63", "effect"] = -99.0
    figure(table, tmp_path / "f.png")
    names = [label.get_text() for label in drawn.last.axes[-1].get_xticklabels()]
    assert len(names) == 40
    assert names[-1] == "3.63"
    assert any("40 largest of 64" in text for text in drawn.texts())


def test_runs_of_equal_ld_have_no_normalized_effect(tmp_path, drawn):
    table = windows().assign(normalized=math.nan, ld_without=12.0, control_mean=math.nan)
    figure(table, tmp_path / "f.png")
    assert not any(axes.child_axes for axes in drawn.last.axes)
    assert "undefined" in shown(table)


def test_controls_and_the_noise_floor_are_no_subjects() -> None:
    controls = windows(seed=1).assign(role="control", centre=np.nan)
    table = windows()
    assert shown(pd.concat([table, controls])) == shown(table)


def test_tables_over_depth_and_of_the_largest() -> None:
    table = windows()
    table.loc[0, "effect"] = 5e-7
    text = shown(table)
    for part in ("Run with the object", "Run without the object", "(+5e-07)", "none"):
        assert part in text
    for span in SPANS:
        assert text.count(f"{span} ") >= 2
    by_edge = table[(table["edge"] == "answer-region") & (table["run"] == "with")]
    largest = by_edge.loc[by_edge["effect"].abs().idxmax()]
    lines = (line for line in text.splitlines() if "answer → region" in line)
    line = next(line for line in lines if f" {largest['layers']} " in line)
    assert f"{largest['effect']:+.4f}" in line
    assert "+0.0500±0.0200" in line


def test_every_cut_of_heads_is_listed() -> None:
    text = shown(pd.concat([cuts(["24.10"], "head"), cuts(["1.1+2.2+3.3+4.4"], "joint")]))
    assert "Every cut" in text
    rows = [line for line in text.splitlines() if " → " in line and " with" in line]
    assert sum(" 24.10 " in line for line in rows) == 4
    assert text.count("joint: 4 heads") == 4


def test_means_over_pairs_have_intervals_and_no_caveat_of_one_pair() -> None:
    table = windows().drop(columns=["pair", "ld_with", "ld_without", "ld", "control_sd"])
    table = table.assign(answer_changed=0.25, pairs=12, effect_low=-9.0, effect_high=9.0)
    ends = {"normalized_low": table["normalized"] - 0.1, "normalized_high": 0.75}
    table = table.assign(**ends)
    parts = list(view({"cuts_mean.csv": table}, Context("Q?", "top-left", pairs=12)))
    text = " ".join(printed(parts).split())
    assert "95% interval" in text and "mean over 12 pairs" in text
    assert "answer changed" in text and "25%" in text
    assert "The largest of many cuts is partly lucky." in text
    assert "One pair shows" not in text
    (chart,) = (part for part in parts if isinstance(part, Chart))
    assert "Means over 12 pairs" in chart.note
    assert all((series.high == 0.75).all() for panel in chart.panels for series in panel.series)
