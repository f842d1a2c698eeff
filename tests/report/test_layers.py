"""Quadrants, vision layers and divergences: the right values in the right place."""

import math

import numpy as np
import pytest

from headpatch.report.plots import (
    divergence_analysis,
    spatial_distribution,
    vision_encoder_layers,
)
from tests.report import synthetic

pytestmark = [pytest.mark.filterwarnings("error"), pytest.mark.usefixtures("draft")]


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
