"""What people see of ranked heads, in a terminal and on a page."""

from typing import Any

import numpy as np
import pytest
import torch

from headpatch.core.question import Context
from headpatch.present.chart import Chart
from headpatch.present.interactive import figures
from headpatch.present.parts import Grid, Words
from headpatch.questions.rank.columns import HEADS, PER_HEAD, SPATIAL
from headpatch.questions.rank.view import view
from tests.report import synthetic

COLUMNS = {
    "rank": [1, 2], "layer": [24, 3], "head": [17, 1],
    "diff": [0.4832, -0.1234], "with": [0.8042, 0.1], "without": [0.321, 0.2234],
    "diff_raw": [0.12, -0.1], "with_raw": [0.2, 0.1], "without_raw": [0.08, 0.2],
}  # fmt: skip


def files(vision: bool = True, **changed: Any) -> dict[str, Any]:
    spatial = synthetic.spatial(4, 6) | changed
    if not vision:
        spatial = {key: one for key, one in spatial.items() if "vision" not in key}
        del spatial["feature_layer"]
    counts = {"top": 2, "layer_counts": torch.tensor([0, 3, 0, 2])}
    return {HEADS.file: COLUMNS, PER_HEAD: synthetic.per_head(4, 4) | counts, SPATIAL: spatial}


def shown(given: dict[str, Any], **context: Any) -> tuple[list[Grid], list[str], list[Chart]]:
    parts = list(view(given, Context(**context)))
    words = [one.text for one in parts if isinstance(one, Words)]
    grids, charts = ([one for one in parts if isinstance(one, kind)] for kind in (Grid, Chart))
    return grids, words, charts


@pytest.mark.parametrize("vision", [False, True])
def test_one_pair(vision: bool) -> None:
    given = files(vision)
    spatial = given[SPATIAL]
    grids, words, charts = shown(given, options={"overlays": 0})
    first, quadrants, *_, divergences = grids
    assert first.rows[0] == (
        "1", "24", "17", "+0.4832", "0.8042", "0.3210", "+0.1200", "0.2000", "0.0800",
    )  # fmt: skip
    assert words[0] == "Layers of the top 2 heads: 1 (3), 3 (2)"
    assert quadrants.rows[0][:2] == ("top-left", f"{spatial['quadrants_with'][0]:.4f}")
    assert divergences.rows[0] == ("all LM heads", "1.7054", "0.2165", "0.4653")
    largest = int(spatial["divergence_lm"]["js"].argmax())
    kl = f"{spatial['divergence_lm']['kl'][largest]:.4f}"
    assert divergences.rows[1][:2] == (f"LM layer {largest}", kl)
    names = ["heads", "quadrants", *["vision"] * vision, "divergences"]
    assert [one.name for one in charts] == names
    assert len({name for one in charts for name in figures(one)}) == (14 if vision else 7)


def test_layers_that_are_never_read_are_marked() -> None:
    diff = torch.tensor([0.1, 0.2, 0.3, 0.4, 0.5, 0.0])
    grids, words, _ = shown(files(vision_patch_diff=diff, feature_layer=3))
    (vision,) = (one for one in grids if one.title.startswith("Vision encoder"))
    marked = {row[0]: "not read" in row[-1] for row in vision.rows}
    assert marked == {"4": True, "3": False, "2": False, "1": False, "0": False}
    assert any("layer 4 (+0.5000), layer 3 (+0.4000), layer 2 (+0.3000)" in one for one in words)


def test_over_pairs_the_first_heads_have_intervals() -> None:
    names = [f"{name}_{end}" for name in ("diff", "diff_raw") for end in ("low", "high")]
    ends = {name: [0.25, 0.125] for name in names}
    table = {HEADS.file: {**COLUMNS, **ends, "pairs": [3, 3]}}
    (grid,), words, (chart,) = shown(table, pairs=3, options={"top": 1}, level=0.9)
    assert not words and chart.name == "ranked_pairs"
    assert grid.headings[4] == "90% interval"
    assert [row[4] for row in grid.rows] == ["+0.2500 to +0.2500"]


PUBLISHED = {
    "source": "A [cite] paper",
    "heads": [
        {"layer": 24, "head": 17, "diff": 0.1, "with": 0.2, "without": 0.3},
        {"layer": 99, "head": 0, "diff": 0.1, "with": 0.2, "without": 0.3},
    ],
    "quadrants": {"bottom-right": [0.1703, 0.2598]},
    "divergence": {"js_distance": 0.4653},
    "vision_diff": {1: 0.0713, 8: 0.0693},
    "vision_divergence": {2: {"kl": 1.3115}},
}


@pytest.mark.parametrize("loaded", [False, True])
def test_published_beside_measured(loaded: bool) -> None:
    given = files()
    spatial = given[SPATIAL]
    lines = (
        ("head 24.17 diff", "0.1000", "0.4832"),
        ("head 24.17 without", "0.3000", "0.3210"),
        ("head 99.0 diff", "0.1000", "no such head"),
        ("bottom-right without", "0.2598", f"{spatial['quadrants_without'][3]:.4f}"),
        ("overall JS distance", "0.4653", "0.4653"),
        ("vision layer 1 difference", "+0.0713", f"{spatial['vision_patch_diff'][1]:+.4f}"),
        ("vision layer 8 difference", "+0.0693", "no such layer"),
        ("vision layer 2 KL", "1.3115", f"{spatial['divergence_vision_patch']['kl'][2]:.4f}"),
    )
    if loaded:  # as the page reads them
        given[SPATIAL] = _arrays(spatial)
    *_, grid = shown(given, study={"expected": PUBLISHED})[0]
    assert grid.title == "Published by A [cite] paper"
    assert set(lines) <= set(grid.rows)
    *_, blind = shown(files(vision=False), study={"expected": PUBLISHED})[0]
    assert [row[-1] for row in blind.rows].count("no such layer") == 3


def _arrays(saved: Any) -> Any:
    if isinstance(saved, dict):
        return {key: _arrays(one) for key, one in saved.items()}
    return np.asarray(saved) if isinstance(saved, torch.Tensor) else saved


def test_what_is_missing_is_left_out() -> None:
    rest = {key: one for key, one in files().items() if "spatial" not in key}
    grids, words, charts = shown(rest)
    assert len(grids) == len(words) == 1 and [one.name for one in charts] == ["heads"]
    with pytest.raises(ValueError, match="four quadrants"):
        shown(files(quadrant_names=["left"]))
