"""Figures of means over pairs: every head at its mean, its bar from low to high, nothing else."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from matplotlib.collections import LineCollection

from headpatch.present.effects_view import MOST_ROWS, mean_effects

WAYS = [(kind, way) for kind in ("zero", "resample") for way in ("noising", "denoising")]


def effects(heads: int = 3) -> pd.DataFrame:
    rng = np.random.default_rng(0)
    rows = [
        {"heads": f"{head}.0", "kind": kind, "direction": way, "positions": "answer", "pairs": 7}
        for kind, way in WAYS
        for head in range(heads)
    ]
    table = pd.DataFrame(rows)
    table["normalized"] = rng.uniform(-0.5, 1, len(table))
    table["normalized_low"] = table["normalized"] - 0.1
    table["normalized_high"] = table["normalized"] + 0.2
    return table


def bars(axes) -> list[tuple[float, float, float]]:
    """(y, low, high) of each horizontal bar."""
    found = []
    for lines in axes.collections:
        if isinstance(lines, LineCollection):
            for (x0, y0), (x1, y1) in lines.get_segments():
                if y0 == y1:
                    found.append((y0, x0, x1))
    return found


@pytest.mark.usefixtures("draft")
def test_every_mean_has_its_bar(tmp_path: Path, drawn) -> None:
    table = effects()
    mean_effects(table, tmp_path / "a.png", level=0.9, question="Is it?", region="here")
    panels = drawn.last.axes
    assert len(panels) == 4
    by_way = {
        way: table[(table["kind"] == way[0]) & (table["direction"] == way[1])] for way in WAYS
    }
    for axes, way in zip(panels, [WAYS[0], WAYS[2], WAYS[1], WAYS[3]], strict=True):
        rows = by_way[way]
        points = axes.lines[-1].get_xydata()
        np.testing.assert_allclose(points[:, 0], rows["normalized"])
        np.testing.assert_allclose(
            sorted(bars(axes)),
            [(y, r["normalized_low"], r["normalized_high"])
             for y, r in enumerate(rows.to_dict("records"))],
        )  # fmt: skip
    words = " ".join(drawn.texts())
    for part in ("over 7 pairs", "90% interval", "Is it?", "here", "0.0", "2.0"):
        assert part in words


@pytest.mark.usefixtures("draft")
def test_too_many_heads_are_cut_to_the_largest(tmp_path: Path, drawn) -> None:
    table = effects(heads=50)
    mean_effects(table, tmp_path / "a.png", level=0.95)
    names = [text.get_text() for text in drawn.last.axes[0].get_yticklabels()]
    size = table["normalized"].abs().groupby(table["heads"]).max().sort_values(ascending=False)
    assert names == list(size.index[:MOST_ROWS])
    assert f"({MOST_ROWS} largest of 50)" in " ".join(drawn.texts())


@pytest.mark.usefixtures("draft")
def test_what_is_undefined_is_left_out(tmp_path: Path, drawn) -> None:
    table = effects()
    columns = ["normalized", "normalized_low", "normalized_high"]
    table.loc[table["heads"] == "1.0", columns] = np.nan
    mean_effects(table, tmp_path / "a.png", level=0.95)
    assert [y for y, _, _ in bars(drawn.last.axes[0])] == [0, 2]


@pytest.mark.usefixtures("draft")
def test_random_heads_stand_behind(tmp_path: Path, drawn) -> None:
    table = effects().assign(control_mean=0.1, control_mean_low=0.05, control_mean_high=0.2)
    mean_effects(table, tmp_path / "a.png", level=0.95)
    boxes = [patch.get_bbox().extents for patch in drawn.last.axes[0].patches]
    np.testing.assert_allclose([(box[0], box[2]) for box in boxes], [(0.05, 0.2)] * 3)
    assert "random heads of the same layers" in " ".join(drawn.texts())


def test_what_cannot_be_drawn_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="lack the columns normalized_low"):
        mean_effects(effects().drop(columns="normalized_low"), tmp_path / "a.png", level=0.95)
    with pytest.raises(ValueError, match="no row"):
        mean_effects(effects().head(0), tmp_path / "a.png", level=0.95)
    assert not list(tmp_path.iterdir())


@pytest.mark.usefixtures("draft")
def test_layers_and_long_sets_have_names_of_their_own(tmp_path: Path, drawn) -> None:
    roles = {"0.1": "set", "0.1+0.2+1.3": "set", "0.1+0.2+1.3+1.4": "set", "0.1+0.2+1.3+1.5": "set",
             "2.0+2.1+2.2+2.3": "layer", "v2.0+v2.1": "layer"}  # fmt: skip
    table = effects(heads=len(roles))
    table["heads"] = list(roles) * len(WAYS)
    table["role"] = table["heads"].map(roles)
    mean_effects(table, tmp_path / "a.png", level=0.95)
    names = [text.get_text() for text in drawn.last.axes[0].get_yticklabels()]
    assert names == ["0.1", "0.1+0.2+1.3", "set 1: 0.1+0.2+…", "set 2: 0.1+0.2+…", "layer:2",
                     "layer:v2"]  # fmt: skip


@pytest.mark.usefixtures("draft")
def test_several_places_are_said_by_the_rows(tmp_path: Path, drawn) -> None:
    table = effects()
    mean_effects(table, tmp_path / "a.png", level=0.95)
    assert "z changed at: answer" in " ".join(drawn.texts())
    table.loc[table["heads"] == "0.0", "positions"] = "answer+v:all"
    mean_effects(table, tmp_path / "b.png", level=0.95)
    words = " ".join(drawn.texts())
    assert "z changed as the rows say" in words and "0.0 (answer+v:all)" in words
