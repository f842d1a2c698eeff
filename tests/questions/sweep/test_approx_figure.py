"""Estimates beside exact effects: every head a point, with the agreement in words."""

import numpy as np
import pytest
import torch

from headpatch.present.figure import draw
from headpatch.questions.sweep.charts import approx_chart
from tests.report import synthetic

pytestmark = [pytest.mark.filterwarnings("error"), pytest.mark.usefixtures("draft")]

WAYS = [f"{k}_{d}" for k in ("zero", "mean", "resample") for d in ("noising", "denoising")]
WORDS = {"question": "Is it $5?", "region": "top-left"}
FIGURES = synthetic.agreement()


def results(*shape: int, ways: list[str] = WAYS, tower: str = "lm") -> dict:
    """Made-up effects, a few of them large, and estimates that miss the largest."""
    rng = np.random.default_rng(0)
    effects = {way: torch.from_numpy(rng.standard_t(1.5, shape)).float() for way in ways}
    approx = {way: torch.where(one.abs() > 5, -0.1, one) for way, one in effects.items()}
    return {
        "effect": effects,
        "approx": approx,
        "agreement": dict.fromkeys(ways, FIGURES),
        "noise_floor": 1e-6,
        "tower": tower,
        "positions": "answer",
    }


def chart(saved: dict):
    """Its chart, with a name for each head or set."""
    shape = next(iter(saved["effect"].values())).shape
    tower = "v" * (saved["tower"] == "vision")
    return approx_chart(saved, [tower + ".".join(map(str, at)) for at in np.ndindex(*shape)])


@pytest.mark.parametrize("shape", [(32, 32), (24, 4), (500,), (2,)])
def test_every_point_is_drawn_on_equal_axes_through_the_diagonal(tmp_path, drawn, shape):
    found = results(*shape)
    draw(chart(found), tmp_path / "f.png", **WORDS)
    assert len(drawn.last.axes) == len(WAYS)
    for axes, way in zip(drawn.last.axes, [*WAYS[::2], *WAYS[1::2]], strict=True):
        _, points, diagonal = axes.lines
        np.testing.assert_array_equal(*diagonal.get_data())
        exact, approx = points.get_data()
        order = np.argsort(-np.abs(found["effect"][way].numpy()), axis=None, kind="stable")
        np.testing.assert_allclose(exact, found["effect"][way].ravel()[order])
        np.testing.assert_allclose(approx, found["approx"][way].ravel()[order])
        assert axes.get_xlim() == axes.get_ylim()
        low, high = axes.get_xlim()
        assert low < min(exact.min(), approx.min()) < max(exact.max(), approx.max()) < high


def test_the_agreement_is_never_left_out(tmp_path, drawn):
    draw(chart(results(8, 8)), tmp_path / "f.png", **WORDS)
    for axes in drawn.last.axes:
        words = " ".join(text.get_text() for text in axes.texts).replace("\n", " ")
        assert "r = +0.29 (−0.12 to +0.71)" in words
        assert "top-20 recall 0.85 (by chance 0.02)" in words


@pytest.mark.parametrize(("tower", "name"), [("lm", "2.1"), ("vision", "v2.1")])
def test_the_largest_exact_effect_is_named(tmp_path, drawn, tower, name):
    found = results(3, 3, ways=["zero_noising"], tower=tower)
    found["effect"]["zero_noising"][2, 1] = -90.0
    draw(chart(found), tmp_path / "f.png", **WORDS)
    assert name in [text.get_text() for text in drawn.last.axes[0].texts]


def test_a_list_of_sets_names_none(tmp_path, drawn):
    draw(chart(results(9, ways=["mean_denoising"])), tmp_path / "f.png")
    (agreement,) = (text for text in drawn.last.axes[0].texts if text.get_text())
    assert agreement.get_text().startswith("r = ")


def test_flat_effects_and_ways_that_were_not_run_draw(tmp_path, drawn):
    found = results(3, 3, ways=["zero_noising", "mean_denoising"])
    for side in ("effect", "approx"):
        found[side] = {way: 0 * values for way, values in found[side].items()}
    found["agreement"] = {
        "zero_noising": FIGURES | dict.fromkeys(["pearson", "pearson_low"], float("nan"))
    }
    draw(chart(found), tmp_path / "f.png", **WORDS)
    assert [axes.axison for axes in drawn.last.axes] == [True, False, False, True]
    assert any("r undefined" in text.get_text() for text in drawn.last.axes[0].texts)


def test_what_holds_no_estimates_is_refused():
    apart = results(3, 3)
    apart["approx"]["zero_noising"] = torch.zeros(2, 3)
    for wrong in ({}, apart):
        with pytest.raises(ValueError, match="approx"):
            approx_chart(wrong, [])


def test_over_pairs_the_figures_of_the_means_come_first(tmp_path, drawn):
    found = results(8, 8, tower="vision") | {"pair_names": ["a", "b"], "positions": "patches"}
    more = {"of_means_pearson": 0.5, "of_means_pearson_low": 0.4, "of_means_pearson_high": 0.6,
            "of_means_top_recall": 0.7}  # fmt: skip
    found["agreement"] = dict.fromkeys(WAYS, FIGURES | more)
    draw(chart(found), tmp_path / "f.png", **WORDS)
    for axes in drawn.last.axes:
        words = " ".join(text.get_text() for text in axes.texts).replace("\n", " ")
        assert "r = +0.50 (+0.40 to +0.60) top-20 recall 0.70 (by chance 0.02)" in words
        assert "mean of the pairs: r = +0.29, recall 0.85" in words
    title = " ".join(drawn.texts())
    assert "effects, means over 2 pairs; z changed at: the patches of the tower" in title
    assert "In brackets: intervals over pairs." in title
