"""The packed overlays hold what the figure of overlays draws."""

import base64
import gzip

import numpy as np
import pytest

from headpatch.present.interactive_map import OPAQUE, RAMP
from headpatch.present.overlays import density
from headpatch.report.html.overlay import overlays, packed, painted
from tests.report import synthetic


def unpacked(text: str, shape: tuple[int, ...]) -> np.ndarray:
    return np.frombuffer(gzip.decompress(base64.b64decode(text)), np.uint8).reshape(shape)


def test_bytes_are_densities_of_the_figure() -> None:
    """To half a step of 255, for boxes that overlap and leave part of the picture bare too."""
    rng = np.random.default_rng(0)
    corners = np.array([[0, 0], [0.25, 0], [0.25, 0.5], [0.5, 0.5]])
    ragged = np.concatenate([corners, corners + np.array([0.3, 0.25])], axis=1)
    for boxes in (synthetic.boxes(3, 5), ragged):
        runs = [synthetic.attention(3, 2, boxes, present) for present in (True, False)]
        order = rng.permutation(6)
        found, text = overlays(runs, order.tolist())
        shape = (6, 2, len(found["y"]) - 1, len(found["x"]) - 1)
        levels = unpacked(text, shape)
        covered = np.ones(shape[2:], bool)
        if found["covered"] is not None:
            covered = np.array(found["covered"], bool).reshape(shape[2:])
        for place, flat in enumerate(order):
            for index, run in enumerate(runs):
                row = run["lm_rows"].double()[flat // 2, flat % 2, run["image_positions"]].numpy()
                expected, x, y = density(row, run["boxes"].double().numpy())
                np.testing.assert_array_equal(np.isfinite(expected), covered)
                peak = found["peaks"][place]
                drawn = levels[place, index] * peak / 255
                # half a step, and the peak's own rounding to 5 digits
                np.testing.assert_allclose(
                    drawn[covered], expected[covered], atol=peak * (0.5 / 255 + 2e-5)
                )
                np.testing.assert_allclose(found["x"], x, atol=1e-5)
                np.testing.assert_allclose(found["y"], y, atol=1e-5)


def test_rows_that_do_not_belong_together_are_refused() -> None:
    runs = [synthetic.attention(2, 2, synthetic.boxes(n, n), True) for n in (3, 4)]
    with pytest.raises(ValueError, match="same places"):
        overlays(runs, [0, 1, 2, 3])


def test_packing_does_not_depend_on_the_clock() -> None:
    assert packed(b"abc") == packed(b"abc")


def test_a_picture_is_covered_by_its_map_and_clear_where_there_is_none() -> None:
    """The largest density has the last colour; none, and no cell at all, leave the picture."""
    image = np.full((20, 40, 3), 100, np.uint8)
    cells = np.array([[2.0, 0.0], [1.0, np.nan]])
    edges = np.array([0.25, 0.5, 0.75])
    drawn = painted(image, cells, edges, edges, 2.0)
    last = np.array([int(RAMP[-1][i : i + 2], 16) for i in (1, 3, 5)])
    middle = np.array([int(RAMP[5][i : i + 2], 16) for i in (1, 3, 5)])
    for rows, columns, colour, share in (
        (slice(5, 10), slice(10, 20), last, OPAQUE),
        (slice(10, 15), slice(10, 20), middle, OPAQUE / 2),
        (slice(5, 15), slice(20, 30), 0, 0),
        (slice(0, 5), slice(0, 40), 0, 0),
        (slice(0, 20), slice(30, 40), 0, 0),
    ):
        expected = np.round((1 - share) * 100 + share * np.asarray(colour)) * np.ones(3)
        np.testing.assert_array_equal(drawn[rows, columns], np.broadcast_to(
            expected, drawn[rows, columns].shape))  # fmt: skip
    assert (image == 100).all()


def test_a_map_of_nothing_leaves_the_picture() -> None:
    image = np.random.default_rng(0).integers(0, 255, (9, 7, 3), dtype=np.uint8)
    edges = np.array([0.0, 1.0])
    np.testing.assert_array_equal(painted(image, np.zeros((1, 1)), edges, edges, 0.0), image)
