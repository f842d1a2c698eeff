"""Figures of ranked heads: the right values in the right place."""

import math

import numpy as np
import pandas as pd
import pytest
import torch

from headpatch.present.figure import draw
from headpatch.questions.rank.charts import (
    divergences_chart,
    heads_chart,
    quadrants_chart,
    ranked_chart,
    vision_chart,
)
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
    draw(heads_chart(seed_results(), 5), tmp_path / "f.png")
    shares = drawn.last.axes[0]
    names = [label.get_text().split()[0] for label in shares.get_yticklabels()]
    assert names == ["24.17", "23.20", "19.31", "17.13", "17.30"]
    assert shares.yaxis_inverted()  # the first is on top
    texts = {word for text in drawn.texts() for word in text.split()}
    for _, _, diff, present, absent in SEED_TOP:
        assert {f"+{np.float32(diff):.3f}", f"{present:.3f}", f"{absent:.3f}"} <= texts
    assert "†" not in texts


def test_each_share_is_printed_away_from_the_other():
    results = seed_results()
    results["with"][24, 17], results["without"][24, 17] = 0.1, 0.9
    present, absent, line = heads_chart(results, 2).panels[0].series
    assert present.before.tolist() == [True, False] and absent.before.tolist() == [False, True]
    np.testing.assert_allclose([line.low, line.high], [[0.1, 0.3474], [0.9, 0.7754]], rtol=1e-6)


def test_layers_are_counted():
    (bars,) = heads_chart(seed_results(), 5).panels[2].series
    assert len(bars.y) == 32
    assert {i: h for i, h in enumerate(bars.y) if h} == {17: 2, 19: 1, 23: 1, 24: 1}


def test_heads_that_hardly_look_at_the_image_are_marked():
    results = seed_results()
    for key in ("with_raw", "without_raw"):
        results[key][23, 20] *= 0.1  # 3% of its attention is on the image
    chart = heads_chart(results, 5)
    assert [name.split()[0] for name in chart.panels[1].names if "†" in name] == ["23.20"]
    assert "Less than 5%" in chart.note


def test_a_head_with_no_image_attention_at_all_is_drawn(tmp_path):
    results = {k: torch.zeros(1, 2) for k in ("with", "without", "diff", "with_raw", "without_raw")}
    results["rank"] = torch.tensor([[1, 2]])
    draw(heads_chart(results, 20), tmp_path / "f.png")
    assert (tmp_path / "f.png").exists()


def test_top_must_be_positive():
    with pytest.raises(ValueError, match="top"):
        heads_chart(seed_results(), 0)


def test_quadrants_stand_where_they_are_in_the_image():
    spatial = synthetic.spatial(4, 6)
    chart = quadrants_chart(spatial)
    assert chart.columns == 2
    titles = [panel.title for panel in chart.panels]
    assert titles == ["Top left", "Top right", "Bottom left", "Bottom right"]
    for i, panel in enumerate(chart.panels):
        for series, run in zip(panel.series, ("with", "without"), strict=True):
            assert f"{run} {spatial[f'quadrants_{run}'][i]:.3f}" in panel.note
            np.testing.assert_allclose(series.y, spatial[f"quadrants_by_layer_{run}"][:, i])


def test_layers_that_the_language_model_does_not_read_are_shaded():
    spatial = synthetic.spatial(4, 24)
    for chart in (vision_chart(spatial), divergences_chart(spatial)):
        (span,) = chart.panels[0].guides
        assert (span.at, span.to) == (22.5, 23.5) and "not read" in span.name
    assert not vision_chart(spatial | {"feature_layer": 23}).panels[0].guides


def test_the_largest_difference_of_vision_layers_is_printed():
    spatial = synthetic.spatial(4, 24)
    diff = np.asarray(spatial["vision_patch_diff"])
    (bars,) = vision_chart(spatial).panels[3].series
    largest = int(np.abs(diff).argmax())
    printed = {place: text for place, text in enumerate(bars.texts) if text}
    assert list(printed) == [largest] and printed[largest].startswith(f"layer {largest}: ")


def test_encoders_without_a_class_token():
    spatial = {k: v for k, v in synthetic.spatial(4, 6).items() if "vision_cls" not in k}
    assert len(vision_chart(spatial).panels) == 2
    assert [one.name for one in divergences_chart(spatial).panels[0].series] == [
        "Mean over patch queries"
    ]


def test_models_without_a_readable_vision_encoder():
    spatial = {k: v for k, v in synthetic.spatial(4, 6).items() if "vision" not in k}
    del spatial["feature_layer"]
    assert len(divergences_chart(spatial).panels) == 3
    with pytest.raises(ValueError, match="no vision encoder"):
        vision_chart(spatial)


def test_divergences_have_their_names_units_and_overall_values():
    chart = divergences_chart(synthetic.spatial(32, 24))
    assert [(panel.title, panel.y_label) for panel in chart.panels[1::2]] == [
        ("Language model, KL divergence", "nats"),
        ("Language model, JS divergence", "nats"),
        ("Language model, JS distance", "√nats"),
    ]
    assert chart.title.endswith(
        "KL divergence 1.7054 nats, JS divergence 0.2165 nats, JS distance 0.4653 √nats"
    )


def test_an_infinite_kl_is_drawn_as_such(tmp_path, drawn):
    spatial = synthetic.spatial(4, 6)
    spatial["divergence_lm"]["kl"][2] = math.inf
    spatial["divergence_vision_cls"]["kl"][:] = math.inf
    spatial["divergence_overall"]["kl"] = math.inf
    draw(divergences_chart(spatial), tmp_path / "f.png")
    assert sum("∞" in text for text in drawn.texts()) == 1 + 6


def test_the_ranking_over_pairs_shows_its_first_heads():
    table = pd.DataFrame(
        {"rank": [2, 1, 3], "layer": [5, 4, 6], "head": [0, 10, 1], "pairs": 9}
        | {name: [0.2, 0.3, 0.1] for name in ("diff", "diff_raw")}
        | {f"{name}_low": [0.1, 0.2, 0.0] for name in ("diff", "diff_raw")}
        | {f"{name}_high": [0.3, 0.4, 0.2] for name in ("diff", "diff_raw")}
    )
    chart = ranked_chart(table, 2, 0.95)
    for panel in chart.panels:
        assert panel.names == ["4.10", "5.0"]
        (series,) = panel.series
        np.testing.assert_allclose([series.y, series.low, series.high],
                                   [[0.3, 0.2], [0.2, 0.1], [0.4, 0.3]])  # fmt: skip
    assert "over 9 pairs, top 2 heads" in chart.title
