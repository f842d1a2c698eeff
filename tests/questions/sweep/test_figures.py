"""Maps of all heads, sets by their effect, and estimates beside exact effects, as drawn."""

import numpy as np
import pytest
import torch

from headpatch.present.figure import draw
from headpatch.questions.sweep.charts import (
    LABELLED,
    LOOKING,
    approx_chart,
    sets_chart,
    sweep_chart,
)
from tests.report import synthetic

pytestmark = [pytest.mark.filterwarnings("error"), pytest.mark.usefixtures("draft")]

WAYS = [f"{k}_{d}" for k in ("zero", "mean", "resample") for d in ("noising", "denoising")]
WORDS = {"question": "Is it $5?", "region": "top-left"}
FIGURES = synthetic.agreement()


def results(*shape: int, ways: list[str] = WAYS, floor: float = 0.0, seed: int = 0) -> dict:
    """Made-up effects, a few of them large."""
    rng = np.random.default_rng(seed)
    effects = {way: torch.from_numpy(0.02 * rng.standard_t(1.5, shape)).float() for way in ways}
    found = {
        "normalized": effects,
        "effect": {way: 8 * values for way, values in effects.items()},
        "noise_floor": floor,
        "positions": "answer",
        "heads": [f"1.{i}+2.{i}" for i in range(shape[0])],
    }
    if len(shape) == 2:
        ranks = rng.permutation(int(np.prod(shape))).reshape(shape) + 1
        found["attention_rank"] = torch.from_numpy(ranks)
    return found


def panels(figure):
    return [axes for axes in figure.axes if axes.get_label() != "<colorbar>"]


@pytest.fixture
def shown(tmp_path, drawn):
    """Draws a chart, and gives its panels."""

    def show(chart):
        draw(chart, tmp_path / "f.png", **WORDS)
        return panels(drawn.last)

    return show


def names(axes) -> list[str]:
    return [text.get_text() for text in axes.texts]


@pytest.mark.parametrize("shape", [(32, 32), (80, 64), (2, 2), (1, 1)])
def test_a_map_a_way_on_one_scale_centred_on_nothing(shown, shape):
    found = results(*shape)
    figure = shown(sweep_chart(found))
    images = [axes.images[0] for axes in figure]
    assert len(images) == len(WAYS)
    largest = max(float(values.abs().max()) for values in found["normalized"].values())
    for image in images:
        low, high = image.get_clim()
        assert -low == high == pytest.approx(largest)
        assert float(image.norm(0.0)) == pytest.approx(0.5)
        assert image.get_array().shape == shape
    titles = [axes.get_title(loc="left") for axes in figure[:3]]
    assert titles == ["Zero, noising", "Mean, noising", "Resample, noising"]
    for axes, way in zip(figure, WAYS[::2], strict=False):
        np.testing.assert_array_equal(axes.images[0].get_array(), found["normalized"][way])


def test_the_largest_are_named_beside_their_cells_and_hide_no_other(shown):
    found = results(32, 32)
    for axes, way in zip(shown(sweep_chart(found)), [*WAYS[::2], *WAYS[1::2]], strict=True):
        values = found["normalized"][way].abs()
        first = values.flatten().argsort(descending=True)[:LABELLED].tolist()
        expected = [f"{index // 32}.{index % 32}" for index in first]
        assert names(axes) == expected
        boxes = [text.get_window_extent() for text in axes.texts]
        frame = axes.get_window_extent().expanded(1.01, 1.01)
        assert all(frame.contains(box.x0, box.y0) for box in boxes)
        assert not any(a.overlaps(b) for i, a in enumerate(boxes) for b in boxes[:i])


def test_what_does_not_rise_above_the_floor_is_not_named_and_counted(shown, drawn):
    found = results(4, 4, ways=["zero_noising"])
    values = torch.full((4, 4), 1e-6)
    values[2, 3], values[1, 0] = -0.5, 0.25
    found.update(normalized={"zero_noising": values}, effect={"zero_noising": 8 * values})
    found["noise_floor"] = 1e-5
    assert names(shown(sweep_chart(found))[0]) == ["2.3", "1.0"]
    said = " ".join(" ".join(drawn.texts()).split())
    assert "14 of 16 effects do not rise above the noise floor" in said


def test_heads_that_look_are_outlined(shown):
    found = results(8, 8, ways=["resample_noising"])
    (squares,) = shown(sweep_chart(found))[0].lines
    layers, heads = np.nonzero(found["attention_rank"].numpy() <= LOOKING)
    np.testing.assert_array_equal(squares.get_xdata(), heads)
    np.testing.assert_array_equal(squares.get_ydata(), layers)
    del found["attention_rank"]
    assert not shown(sweep_chart(found))[0].lines


def vision(layers: int, heads: int) -> dict:
    """Made-up effects of a tower whose last layer is not read, and of its whole layers."""
    found = results(layers, heads)
    del found["attention_rank"]
    whole = {way: 3 * values.sum(1) for way, values in found["normalized"].items()}
    return found | {"layer_normalized": whole, "tower": "vision", "feature_layer": layers - 2}


@pytest.mark.parametrize("shape", [(24, 16), (24, 4), (3, 1)])
def test_whole_layers_stand_beside_the_heads_on_the_same_scale(shown, drawn, shape):
    found = vision(*shape)
    shown(sweep_chart(found))
    largest = max(float(values.abs().max()) for values in found["layer_normalized"].values())
    for axes, way in zip(panels(drawn.last), [*WAYS[::2], *WAYS[1::2]], strict=True):
        heads, whole = axes.images
        np.testing.assert_array_equal(whole.get_array()[:, 0], found["layer_normalized"][way])
        assert whole.norm is heads.norm
        assert whole.norm.vmax == pytest.approx(largest)
        left, right, bottom, top = whole.get_extent()
        assert (bottom, top) == (shape[0] - 0.5, -0.5)
        assert shape[1] - 0.5 < left < right == axes.get_xlim()[1]
        assert all(0 <= tick < shape[1] for tick in axes.get_xticks())
        edge = axes.transData.transform((shape[1] - 0.5, 0))[0]
        for text in axes.texts:
            if text.get_text() != "all":
                assert text.get_text().startswith("v")
                assert text.get_window_extent().x1 <= edge + 1
    assert any("all heads of a layer together" in text for text in drawn.texts())
    assert any("Effect of each vision head" in text for text in drawn.texts())


def test_what_is_not_read_is_marked_in_every_map(shown):
    for axes in shown(sweep_chart(vision(6, 4))):
        (line,) = axes.lines
        assert list(line.get_ydata()) == [4.5, 4.5]
        assert "not read" in line.get_label()
    all_read = vision(6, 4) | {"feature_layer": 5}
    assert not any(axes.lines for axes in shown(sweep_chart(all_read)))


@pytest.mark.parametrize("value", [0.0, float("nan")])
def test_nothing_and_undefined_effects_draw(shown, value):
    for chart, shape in ((sets_chart, (3,)), (sweep_chart, (3, 3))):
        found = results(*shape)
        for side, filled in (("effect", 0.0), ("normalized", value)):
            found[side] = {way: torch.full(shape, filled) for way in WAYS}
        figure = shown(chart(found))
    assert all(names(axes) == [] for axes in figure)  # of the map


def test_ways_that_were_not_run_leave_a_gap(shown):
    chart = sweep_chart(results(3, 3, ways=["zero_noising", "mean_denoising"]))
    assert [axes.axison for axes in shown(chart)] == [True, False, False, True]


def test_sets_are_counted_and_the_largest_is_named(shown, drawn):
    found = results(500)
    found["normalized"]["resample_noising"][7] = -9.0
    assert len(shown(sets_chart(found))) == len(WAYS)
    for axes in drawn.last.axes:
        assert sum(bar.get_height() for bar in axes.patches) == 500
    assert "1.7+2.7: −9.000" in names(drawn.last.axes[2])
    assert any("500 sets" in text for text in drawn.texts())


def test_what_is_no_sweep_is_refused():
    for chart, wrong in ((sweep_chart, results(3)), (sets_chart, results(3, 3)), (sweep_chart, {})):
        with pytest.raises(ValueError, match="normalized"):
            chart(wrong)


def test_means_over_pairs_say_so(shown, drawn):
    found = results(4, 4) | {"pair_names": ["a", "b", "c"]}
    shown(sweep_chart(found))
    assert any("Effect of each head, means over 3 pairs; z" in text for text in drawn.texts())


# Estimates beside exact effects


def estimated(*shape: int, ways: list[str] = WAYS, tower: str = "lm") -> dict:
    """Estimates that miss the largest effects."""
    found = results(*shape, ways=ways) | {"tower": tower, "agreement": dict.fromkeys(ways, FIGURES)}
    approx = {way: torch.where(one.abs() > 5, -0.1, one) for way, one in found["effect"].items()}
    return found | {"approx": approx}


def chart_of(saved: dict):
    """Its chart, with a name for each head or set."""
    shape = next(iter(saved["effect"].values())).shape
    tower = "v" * (saved["tower"] == "vision")
    return approx_chart(saved, [tower + ".".join(map(str, at)) for at in np.ndindex(*shape)])


@pytest.mark.parametrize("shape", [(32, 32), (24, 4), (500,), (2,)])
def test_every_point_is_drawn_on_equal_axes_through_the_diagonal(shown, drawn, shape):
    found = estimated(*shape)
    assert len(shown(chart_of(found))) == len(WAYS)
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


def test_the_agreement_is_never_left_out(shown):
    for axes in shown(chart_of(estimated(8, 8))):
        words = " ".join(" ".join(names(axes)).split())
        assert "r = +0.29 (−0.12 to +0.71)" in words
        assert "top-20 recall 0.85 (by chance 0.02)" in words


@pytest.mark.parametrize(("tower", "name"), [("lm", "2.1"), ("vision", "v2.1")])
def test_the_largest_exact_effect_is_named(shown, tower, name):
    found = estimated(3, 3, ways=["zero_noising"], tower=tower)
    found["effect"]["zero_noising"][2, 1] = -90.0
    assert name in names(shown(chart_of(found))[0])


def test_a_list_of_sets_names_none(shown):
    (agreement,) = filter(None, names(shown(chart_of(estimated(9, ways=["mean_denoising"])))[0]))
    assert agreement.startswith("r = ")


def test_flat_effects_and_ways_that_were_not_run_draw(shown, drawn):
    found = estimated(3, 3, ways=["zero_noising", "mean_denoising"])
    for side in ("effect", "approx"):
        found[side] = {way: 0 * values for way, values in found[side].items()}
    found["agreement"] = {
        "zero_noising": FIGURES | dict.fromkeys(["pearson", "pearson_low"], float("nan"))
    }
    assert [axes.axison for axes in shown(chart_of(found))] == [True, False, False, True]
    assert any("r undefined" in text for text in names(drawn.last.axes[0]))


def test_what_holds_no_estimates_is_refused():
    apart = estimated(3, 3)
    apart["approx"]["zero_noising"] = torch.zeros(2, 3)
    for wrong in ({}, apart):
        with pytest.raises(ValueError, match="approx"):
            approx_chart(wrong, [])


def test_over_pairs_the_figures_of_the_means_come_first(shown, drawn):
    found = estimated(8, 8, tower="vision") | {"pair_names": ["a", "b"], "positions": "patches"}
    more = {"of_means_pearson": 0.5, "of_means_pearson_low": 0.4, "of_means_pearson_high": 0.6,
            "of_means_top_recall": 0.7}  # fmt: skip
    found["agreement"] = dict.fromkeys(WAYS, FIGURES | more)
    for axes in shown(chart_of(found)):
        words = " ".join(" ".join(names(axes)).split())
        assert "r = +0.50 (+0.40 to +0.60) top-20 recall 0.70 (by chance 0.02)" in words
        assert "mean of the pairs: r = +0.29, recall 0.85" in words
    title = " ".join(drawn.texts())
    assert "effects, means over 2 pairs; z changed at: the patches of the tower" in title
    assert "In brackets: intervals over pairs." in title
