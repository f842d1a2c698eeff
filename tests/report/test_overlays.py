import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from headpatch.present.figure import draw as draw_chart
from headpatch.present.overlays import density, overlay_chart, tower_overlay_chart
from tests.report import synthetic

pytestmark = [pytest.mark.filterwarnings("error"), pytest.mark.usefixtures("draft")]


def cell_areas(x_edges: np.ndarray, y_edges: np.ndarray) -> np.ndarray:
    return np.diff(y_edges)[:, None] * np.diff(x_edges)


@given(st.integers(1, 12), st.integers(1, 12), st.integers(0, 1000))
def test_on_a_grid_density_is_the_share_times_the_tokens(rows, cols, seed):
    row = np.random.default_rng(seed).random(rows * cols) + 1e-3
    boxes = synthetic.boxes(rows, cols).astype(np.float32)
    cells, x_edges, y_edges = density(row, boxes)
    assert cells.shape == (rows, cols)
    np.testing.assert_allclose(cells.ravel(), row / row.sum() * rows * cols, rtol=1e-4)
    assert (cells * cell_areas(x_edges, y_edges)).sum() == pytest.approx(1)


def test_overlapping_tiles_add_and_bare_parts_stay_bare():
    boxes = np.array([[0.0, 0.0, 0.5, 1.0], [0.25, 0.0, 0.5, 0.5], [np.nan] * 4])
    cells, x_edges, y_edges = density(np.array([0.5, 0.25, 0.25]), boxes)
    assert x_edges.tolist() == [0, 0.25, 0.5]
    assert y_edges.tolist() == [0, 0.5, 1]
    np.testing.assert_allclose(cells, [[1, 3], [1, 1]])
    bare, *_ = density(np.array([0.5, 0.5]), np.array([[0, 0, 0.5, 0.5], [0.5, 0.5, 1, 1]]))
    assert np.isnan(bare[0, 1])
    assert np.isnan(bare[1, 0])


def test_a_head_without_image_attention_has_density_zero():
    cells, *_ = density(np.zeros(4), synthetic.boxes(2, 2))
    assert (cells == 0).all()


def draw(path, size=(336, 336), boxes=None, heads=((0, 0),), mode="RGB", **changes):
    boxes = synthetic.boxes(6, 6) if boxes is None else boxes
    runs = [synthetic.attention(2, 2, boxes, present) | changes for present in (True, False)]
    images = [image.convert(mode) for image in synthetic.pair(*size)]
    draw_chart(overlay_chart(*images, *runs, list(heads)), path)


def test_one_row_a_head_with_shared_scale_and_the_shares_printed(tmp_path, drawn):
    draw(tmp_path / "f.png", heads=[(0, 1), (1, 0)])
    with_, without = drawn.last.axes[0], drawn.last.axes[1]
    assert with_.collections[0].get_clim() == without.collections[0].get_clim()
    texts = drawn.texts()
    assert {"Head 0.1", "Head 1.0"} <= set(texts)
    run = synthetic.attention(2, 2, synthetic.boxes(6, 6), True)
    row = run["lm_rows"][0, 1, 5:41].numpy().astype(np.float64)
    share = synthetic.quadrant_shares(row, synthetic.boxes(6, 6))[0]
    printed = f"region {share:.1%} of image attention; image {row.sum():.1%} of all"
    assert any(printed in text for text in texts)
    assert any("LD +3.20" in text for text in texts)
    assert any("LD −4.10" in text for text in texts)


@pytest.mark.parametrize("size", [(1200, 120), (120, 1200), (40, 40), (3000, 2000)])
def test_pictures_of_any_shape(tmp_path, size):
    draw(tmp_path / "f.png", size=size)
    with Image.open(tmp_path / "f.png") as picture:
        assert picture.width == 280
        assert picture.height < 210


@pytest.mark.parametrize("mode", ["L", "RGBA", "P", "CMYK"])
def test_pictures_of_any_mode(tmp_path, mode):
    draw(tmp_path / "f.png", mode=mode)


def test_tiles_of_two_sizes_and_a_cropped_picture(tmp_path):
    tiles = np.concatenate([synthetic.boxes(3, 3), synthetic.boxes(6, 12)])
    draw(tmp_path / "f.png", boxes=tiles)
    draw(tmp_path / "g.png", boxes=0.25 + synthetic.boxes(4, 4) / 2)


def test_a_whole_layer_of_heads_fits_an_image_file(tmp_path):
    draw(tmp_path / "f.png", heads=[(0, 0)] * 32, boxes=synthetic.boxes(2, 2))
    with Image.open(tmp_path / "f.png") as picture:
        assert picture.height < 2_800


@pytest.mark.parametrize(("heads", "message"), [([], "empty"), ([(0, 2)], r"0\.2 is out of")])
def test_heads_that_are_not_there(tmp_path, heads, message):
    with pytest.raises(ValueError, match=message):
        draw(tmp_path / "f.png", heads=heads)
    assert not list(tmp_path.iterdir())


def test_vision_heads_that_turn_most_to_the_region_are_drawn_at_their_own_places() -> None:
    """Of 2 × 2 heads over four quarters; the region is the first. 1.0 rises by 0.6, 0.1 by 0.2."""
    quarters = np.array([[x, y, x + 0.5, y + 0.5] for y in (0, 0.5) for x in (0, 0.5)])
    shares = {(0, 0): (0.1, 0.3), (0, 1): (0.5, 0.3), (1, 0): (0.9, 0.3), (1, 1): (0.2, 0.2)}
    runs = []
    for run in range(2):
        rows = np.zeros((2, 2, 4))
        for (layer, head), both in shares.items():
            rows[layer, head] = 0.5 * np.array([both[run], *[(1 - both[run]) / 3] * 3])
        runs.append(
            {
                "vision_patch_rows": rows,
                "vision_boxes": quarters,
                "boxes": np.array([[0, 0, 1, 1.0]]),
                "region_box": np.array([0, 0, 0.5, 0.5]),
            }
        )
    picture = Image.new("RGB", (8, 8))
    chart = tower_overlay_chart(picture, picture, *runs, 2)
    assert [one.label for one in chart.panels] == ["Head v1.0"] * 2 + ["Head v0.1"] * 2
    assert "region 90.0% of image attention; image 50.0% of all" in chart.panels[0].title
    cells, *_ = chart.panels[0].density
    np.testing.assert_allclose(cells, [[3.6, 0.4 / 3], [0.4 / 3] * 2], atol=1e-6)
