"""The figure over depth and its tables."""

from itertools import product

import numpy as np
import pytest
import torch
from PIL import Image

from headpatch.core.question import Context
from headpatch.present.figure import draw
from headpatch.present.interactive import figures
from headpatch.present.parts import Grid, Words
from headpatch.questions.path.view import path_chart, view
from tests.command import printed
from tests.report import synthetic
from tests.report.test_plots import assert_labelled, assert_unclipped

pytestmark = pytest.mark.filterwarnings("error")

SIZES = {"tiny": (2, 2, 2), "usual": (32, 32, 24), "large": (80, 64, 40)}


def saved(layers: int, heads: int, vision: int, attributed: bool = True):
    """Results as `headpatch path` writes them."""
    rng = np.random.default_rng(0)

    def curve(count: int):
        return torch.tensor(rng.uniform(-0.1, 1, count)).float()

    def curves(names: tuple[str, ...], count: int):
        return {name: {way: curve(count) for way in ("noising", "denoising")} for name in names}

    found = {
        "stream": curves(("before", "region", "other", "words", "answer"), layers),
        "vision": curves(("all", "region", "other"), vision) if vision else {},
        "edges": curves(("answer-region", "words-region", "answer-other"), layers),
        "window": 5,
        "feature_layer": vision - 2,
        "heads": ["1.1", "1.0", "1.0+1.1"],
        "ways": [["values", "region"], ["query", "answer"]],
        "head_paths": {way: torch.zeros(2, 3) for way in ("noising", "denoising")},
    }
    found["head_paths"]["noising"][0, 0] = 0.25
    if attributed:
        found |= {
            "attribution_heads": torch.tensor(rng.normal(0, 0.01, (layers, heads))).float(),
            "attribution_mlps": torch.tensor(rng.normal(0, 0.1, layers)).float(),
        }
    return found


def over_pairs(found, pairs: int = 24):
    """The same as means over pairs: every curve in a band of ±0.05."""

    def moved(value, by: float):
        if isinstance(value, dict):
            return {name: moved(one, by) for name, one in value.items()}
        return value + by

    found["attribution_layers"] = found["attribution_heads"].sum(1)
    curves = [name for name, one in found.items() if isinstance(one, dict | torch.Tensor)]
    for name, by in product(curves, (-0.05, 0.05)):
        found[f"{name}_{'low' if by < 0 else 'high'}"] = moved(found[name], by)
    return found | {"pairs": pairs, "pairs_heads": pairs // 2, "level": 0.95}


@pytest.mark.parametrize("size", SIZES)
def test_a_readable_figure_with_nothing_clipped(size: str, tmp_path, drawn) -> None:
    words = {"question": synthetic.QUESTION, "region": "top-left"}
    draw(path_chart(saved(*SIZES[size])), tmp_path / "f.png", **words)
    with Image.open(tmp_path / "f.png") as picture:
        assert picture.width == 1400
        assert_unclipped(picture)
    assert_labelled(drawn.last)
    assert any("It costs $5" in text for text in drawn.texts())


def test_towers_lie_side_by_side_over_one_axis(tmp_path, drawn, draft) -> None:
    results = saved(6, 2, 4)
    draw(path_chart(results), tmp_path / "f.png")
    panels = drawn.last.axes
    assert len(panels) == 4
    by_label = {line.get_label(): line for line in panels[0].lines}
    assert by_label["the answer position"].get_xdata().tolist() == [6, 7, 8, 9, 10, 11]
    assert by_label["all patches"].get_xdata().tolist() == [0, 1, 2, 3]
    drawn_curve = by_label["the answer position"].get_ydata()
    np.testing.assert_allclose(drawn_curve, results["stream"]["answer"]["noising"], atol=1e-6)
    shown = [tick.get_text() for tick in panels[-1].get_xticklabels()]
    assert shown == ["0", "1", "2", "3", "0", "1", "2", "3", "4", "5"]


def test_without_a_tower_or_attribution(tmp_path, drawn, draft) -> None:
    draw(path_chart(saved(4, 2, 0, attributed=False)), tmp_path / "f.png")
    assert len(drawn.last.axes) == 3
    assert "Language-model layer" in drawn.texts()
    with pytest.raises(ValueError, match="no curve of the stream"):
        path_chart({"stream": {}})


@pytest.mark.parametrize("size", ["usual", "large"])
def test_means_over_pairs_lie_in_their_intervals(size: str, tmp_path, drawn) -> None:
    results = over_pairs(saved(*SIZES[size]))
    draw(path_chart(results), tmp_path / "f.png", question=synthetic.QUESTION)
    with Image.open(tmp_path / "f.png") as picture:
        assert_unclipped(picture)
    assert_labelled(drawn.last)
    title = "Where the information about the object is, and when it moves: mean over 24 pairs"
    assert title in drawn.texts()
    note = " ".join(" ".join(drawn.texts()).split())
    assert "95% interval over pairs, of each layer by itself" in note
    panels = drawn.last.axes
    bands = [one for one in panels[0].collections if len(one.get_paths()) == 1]
    assert len(bands) == 3 + 4  # of the vision tower's tokens, and of the language model's
    for axes in panels[:2]:
        low, high = axes.get_ylim()
        for one in axes.collections:
            heights = one.get_paths()[0].vertices[:, 1]
            assert low <= heights.min() and heights.max() <= high
    answer = next(one for one in panels[0].lines if one.get_label() == "the answer position")
    y, right = answer.get_ydata(), answer.get_xdata().max()
    ends = [band.get_paths()[0].vertices for band in bands]
    assert any(
        end[:, 1].min() <= y.min() - 0.04 and end[:, 1].max() >= y.max() + 0.04
        for end in ends
        if end[:, 0].max() == right
    )


def test_tables_leave_out_rows_of_zeros_and_sentences_follow() -> None:
    results = saved(4, 2, 0) | {"summary": ["The answer position carries it."]}
    text = printed(view({"path.pt": results}, Context()))
    for part in ("answer → region", "0.25", "The answer position carries it."):
        assert part in text
    assert "query" not in text
    text = printed(view({"path.pt": over_pairs(results)}, Context()))
    assert "Means over 24 pairs; their intervals are in path_mean.csv." in text
    assert "means over 12 pairs" in text


def test_the_page_shows_the_same_curves() -> None:
    results = over_pairs(saved(6, 2, 4))
    page = figures(path_chart(results))
    assert list(page) == [f"path-{index}" for index in range(4)]
    traces = {trace["name"]: trace for trace in page["path-0"].data if trace["name"]}
    answer = traces["the answer position"]
    assert answer["x"] == [6, 7, 8, 9, 10, 11]
    expected = results["stream"]["answer"]["noising"].tolist()
    assert answer["y"] == pytest.approx(expected, abs=1e-4)
    assert "carry half of the difference or more" in page["path-0"].label
    edges = [trace for trace in page["path-2"].data if trace["name"]]
    assert {trace["name"] for trace in edges} == {
        "answer → region", "words → region", "answer → other",
    }  # fmt: skip
    assert "Largest: " in page["path-2"].label
    assert len(figures(path_chart(saved(6, 2, 4, attributed=False)))) == 3


def test_means_have_their_intervals_on_the_page_and_no_caveat_of_one_pair() -> None:
    for results, context, expected in (
        (saved(4, 2, 0), Context(), "+0.250"),
        (over_pairs(saved(4, 2, 0)), Context(pairs=24), "+0.250 [+0.200, +0.300]"),
    ):
        parts = list(view({"path.pt": results}, context))
        (grid,) = (one for one in parts if isinstance(one, Grid) and one.place == "page")
        assert grid.rows[0][:3] == ("values", "region", expected)
        words = " ".join(one.text for one in parts if isinstance(one, Words))
        assert ("One pair shows one case, not a rule." in words) is (context.pairs is None)
        assert ("Means over 24 pairs" in words) is (context.pairs == 24)
    *_, band, line = figures(path_chart(results))["path-2"].data  # the first series lies on top
    high = results["edges_high"]["answer-region"]["noising"].tolist()
    assert band["y"][:4] == pytest.approx(high, abs=1e-4)
    assert line["name"] == "answer → region"
