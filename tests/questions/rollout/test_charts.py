"""Charts of a rollout hold the tensors' and the table's numbers."""

import numpy as np
import pandas as pd
import pytest
import torch

from headpatch.present.canvas import Sheet
from headpatch.present.figure import draw
from headpatch.present.interactive import figures
from headpatch.present.overlays import density
from headpatch.questions.rollout.charts import MAPS, curves_chart, maps_chart
from tests.report import synthetic

pytestmark = pytest.mark.filterwarnings("error")


def rolled(patches=16):
    rng = np.random.default_rng(0)
    with_image, without = synthetic.pair(60, 40)
    return {
        "maps": {name: torch.tensor(rng.random((2, patches))).float() for name in MAPS},
        "boxes": torch.tensor(synthetic.boxes(4, 4)).float(),
        "region_box": torch.tensor([0.0, 0.0, 0.5, 0.5]),
        "in_region": torch.arange(patches) < 4,
        "image_with": torch.tensor(np.array(with_image)),
        "image_without": torch.tensor(np.array(without)),
        "token": "Yes",
        "rival": "No",
    }


def test_a_map_a_row_with_its_region_s_share():
    results = rolled()
    chart = maps_chart(results)
    for row, values in zip(range(4), results["maps"].values(), strict=True):
        laid = [density(one.numpy().astype(float), results["boxes"].numpy()) for one in values]
        for panel, one, cells in zip(chart.panels[2 * row :], values, laid, strict=False):
            assert panel.title.endswith(
                f"the object: region {float(one[:4].sum() / one.sum()):.1%}"
            )
            np.testing.assert_allclose(panel.density[0], cells[0], rtol=1e-6)
            assert panel.peak == pytest.approx(max(float(cell[0].max()) for cell in laid))
    assert chart.title == "Where 'Yes' (or 'No') comes from"
    with pytest.raises(ValueError, match="no map"):
        maps_chart({**results, "maps": {}})


def curves():
    found = []
    for run in ("with", "without"):
        for way in ("delete", "insert"):
            for order, draws in (("relevance_patches", 1), ("random", 3)):
                for drawn in range(draws):
                    for k in (0, 1, 2, 4, 8, 16):
                        share = k / 16 if order == "random" else float(k > 0)
                        found.append((run, way, order, drawn, k, 0.0, share))
            found.append((run, way, "region", 0, 4, 0.0, 1.0))
    return pd.DataFrame(found, columns=["run", "way", "order", "draw", "k", "ld", "share"])


def test_curves_of_the_check():
    chart = curves_chart(curves(), token="'Yes'")
    assert len(chart.panels) == 4
    for panel in chart.panels:
        series = {one.name: one for one in panel.series}
        assert list(series) == ["3 random", "relevance (patches)", "region"]
        np.testing.assert_allclose(series["relevance (patches)"].y, [0, 1, 1, 1, 1, 1])
        np.testing.assert_allclose(series["3 random"].y, np.array([0, 1, 2, 4, 8, 16]) / 16)
        assert (series["region"].x, series["region"].y) == (4, 1)
    with pytest.raises(ValueError, match="lack the columns share"):
        curves_chart(curves().drop(columns="share"))
    with pytest.raises(ValueError, match="no curve"):
        curves_chart(curves().iloc[:0])


@pytest.mark.parametrize("chart", [maps_chart(rolled()), curves_chart(curves())])
def test_a_rollout_can_be_drawn_and_shown(chart):
    draw(chart, Sheet(), "Q?", "top-left")
    assert len(figures(chart)) == len(chart.panels)
