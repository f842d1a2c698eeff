"""The packed overlays hold what the figure of overlays draws."""

import base64
import gzip

import numpy as np
import pytest

from headpatch.present.overlays import density
from headpatch.reports.pictures import overlays, packed
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
