"""Figures of ranked heads: the right values in the right place."""

import math

import numpy as np
import pandas as pd
import pytest
import torch
from matplotlib.collections import LineCollection

from headpatch.questions.rank.figures import (
    mean_attention,
    spatial_distribution,
    top_different_heads,
)
from headpatch.questions.rank.layer_figures import divergence_analysis, vision_encoder_layers
from tests.report import synthetic

pytestmark = [pytest.mark.filterwarnings("error"), pytest.mark.usefixtures("draft")]

SEED_TOP = [  # layer, head, diff, with, without: the top five of the published analysis
    (24, 17, 0.4832, 0.8042, 0.3210),
    (23, 20, 0.4280, 0.7754, 0.3474),
    (19, 31, 0.4055, 0.5908, 0.1853),
    (17, 13, 0.3677, 0.6733, 0.3057),
    (17, 30, 0.3496, 0.5947, 0.2451),
]


def seed_results(image_mass: float = 0.3) -> dict:
    with_, without = np.full((32, 32), 0.25), np.full((32, 32), 0.25)
    for layer, head, _, present, absent in SEED_TOP:
        with_[layer, head], without[layer, head] = present, absent
    rank = np.empty(1024, dtype=np.int64)
    rank[np.argsort(without.ravel() - with_.ravel(), kind="stable")] = np.arange(1, 1025)
    shares = {"with": with_, "without": without, "diff": with_ - without}
    raw = {f"{key}_raw": value * image_mass for key, value in shares.items()}
    results = {k: torch.from_numpy(v).float() for k, v in (shares | raw).items()}
    return {**results, "rank": torch.from_numpy(rank.reshape(32, 32)), "top": 5}


def test_the_compared_values_are_printed_in_order(tmp_path, drawn):
    top_different_heads(seed_results(), 5, tmp_path / "f.png")
    shares = drawn.last.axes[0]
    names = [label.get_text() for label in shares.get_yticklabels()]
    assert names == ["24.17", "23.20", "19.31", "17.13", "17.30"]
    assert shares.yaxis_inverted()  # the first is on top
    texts = drawn.texts()
    for _, _, diff, present, absent in SEED_TOP:
        assert {f"+{np.float32(diff):.3f}", f"{present:.3f}", f"{absent:.3f}"} <= set(texts)
    assert not any("†" in text for text in texts)


def test_layers_are_counted(tmp_path, drawn):
    top_different_heads(seed_results(), 5, tmp_path / "f.png")
    heights = [bar.get_height() for bar in drawn.last.axes[2].patches]
    assert len(heights) == 32
    assert {i: h for i, h in enumerate(heights) if h} == {17: 2, 19: 1, 23: 1, 24: 1}


def test_heads_that_hardly_look_at_the_image_are_marked(tmp_path, drawn):
    results = seed_results()
    for key in ("with_raw", "without_raw"):
        results[key][23, 20] *= 0.1  # 3% of its attention is on the image
    top_different_heads(results, 5, tmp_path / "f.png")
    names = [label.get_text() for label in drawn.last.axes[0].get_yticklabels()]
    assert names == ["24.17", "23.20 †", "19.31", "17.13", "17.30"]
    assert any("Less than 5%" in text for text in drawn.texts())


def test_a_head_with_no_image_attention_at_all_is_drawn(tmp_path):
    results = {k: torch.zeros(1, 2) for k in ("with", "without", "diff", "with_raw", "without_raw")}
    results["rank"] = torch.tensor([[1, 2]])
    top_different_heads(results, 20, tmp_path / "f.png")
    assert (tmp_path / "f.png").exists()


def test_top_must_be_positive(tmp_path):
    with pytest.raises(ValueError, match="top"):
        top_different_heads(seed_results(), 0, tmp_path / "f.png")


def without_class_token() -> dict:
    return {k: v for k, v in synthetic.spatial(4, 6).items() if "vision_cls" not in k}


def test_quadrants_stand_where_they_are_in_the_image(tmp_path, drawn):
    spatial = synthetic.spatial(4, 6)
    spatial_distribution(spatial, tmp_path / "f.png")
    panels = [axes for axes in drawn.last.axes if axes.patches]
    place = {axes.get_title(loc="left"): axes.get_position() for axes in panels}
    assert set(place) == {"Top left", "Top right", "Bottom left", "Bottom right"}
    assert place["Top left"].x1 < place["Top right"].x0
    assert place["Bottom left"].y1 < place["Top left"].y0
    assert place["Bottom left"].x0 == pytest.approx(place["Top left"].x0)
    for i, axes in enumerate(panels):
        widths = [bar.get_width() for bar in axes.patches]
        expected = [spatial[f"quadrants_{k}"][i] for k in ("with", "without", "diff")]
        np.testing.assert_allclose(widths, expected)


def test_layers_that_the_language_model_does_not_read_are_shaded(tmp_path, drawn):
    vision_encoder_layers(synthetic.spatial(4, 24), tmp_path / "f.png")
    assert "not read by the language model" in drawn.texts()
    spans = [p for p in drawn.last.axes[0].patches if p.get_hatch()]
    assert [(span.get_x(), span.get_width()) for span in spans] == [(22.5, 1.0)]


def test_nothing_is_shaded_if_the_last_layer_is_read(tmp_path, drawn):
    vision_encoder_layers(synthetic.spatial(4, 24) | {"feature_layer": 23}, tmp_path / "f.png")
    assert "not read by the language model" not in drawn.texts()


def test_encoders_without_a_class_token(tmp_path, drawn):
    vision_encoder_layers(without_class_token(), tmp_path / "f.png")
    assert len(drawn.last.axes) == 2
    divergence_analysis(without_class_token(), tmp_path / "g.png")
    assert "Class-token query" not in drawn.texts()


def test_models_without_a_readable_vision_encoder(tmp_path, drawn):
    spatial = {k: v for k, v in synthetic.spatial(4, 6).items() if "vision" not in k}
    del spatial["feature_layer"]
    divergence_analysis(spatial, tmp_path / "g.png")
    assert len(drawn.last.axes) == 3
    with pytest.raises(ValueError, match="no vision encoder"):
        vision_encoder_layers(spatial, tmp_path / "f.png")


def test_divergences_have_their_names_units_and_overall_values(tmp_path, drawn):
    divergence_analysis(synthetic.spatial(32, 24), tmp_path / "f.png")
    labels = [axes.get_ylabel() for axes in drawn.last.axes if axes.get_ylabel()]
    assert labels == ["KL divergence\n(nats)", "JS divergence\n(nats)", "JS distance\n(√nats)"]
    title = next(text for text in drawn.texts() if "Overall" in text)
    assert "KL divergence 1.7054 nats" in title
    assert "JS divergence 0.2165 nats" in title
    assert "JS distance 0.4653 √nats" in title


def test_an_infinite_kl_is_drawn_as_such(tmp_path, drawn):
    spatial = synthetic.spatial(4, 6)
    spatial["divergence_lm"]["kl"][2] = math.inf
    spatial["divergence_vision_cls"]["kl"][:] = math.inf
    spatial["divergence_overall"]["kl"] = math.inf
    divergence_analysis(spatial, tmp_path / "f.png")
    assert drawn.texts().count("∞") == 1 + 6


def bars(axes) -> list[tuple[float, float, float]]:
    """(y, low, high) of each horizontal bar."""
    lines = [one for one in axes.collections if isinstance(one, LineCollection)]
    ends = [segment for line in lines for segment in line.get_segments()]
    return [(y0, x0, x1) for (x0, y0), (x1, y1) in ends if y0 == y1]


def test_the_ranking_over_pairs_shows_its_first_heads(tmp_path, drawn):
    table = pd.DataFrame(
        {"rank": [2, 1, 3], "layer": [5, 4, 6], "head": [0, 10, 1], "pairs": 9}
        | {name: [0.2, 0.3, 0.1] for name in ("diff", "diff_raw")}
        | {f"{name}_low": [0.1, 0.2, 0.0] for name in ("diff", "diff_raw")}
        | {f"{name}_high": [0.3, 0.4, 0.2] for name in ("diff", "diff_raw")}
    )
    mean_attention(table, 2, 0.95, tmp_path / "a.png", question="Q")
    left, right = drawn.last.axes
    assert [text.get_text() for text in left.get_yticklabels()] == ["4.10", "5.0"]
    for axes in (left, right):
        np.testing.assert_allclose(sorted(bars(axes)), [(0, 0.2, 0.4), (1, 0.1, 0.3)])
    assert "over 9 pairs, top 2 heads" in " ".join(drawn.texts())
