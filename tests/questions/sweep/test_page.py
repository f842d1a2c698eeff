"""What the page shows of sweeps: maps of vision heads, whole layers, estimates as points."""

import re
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from headpatch.errors import InputError
from headpatch.present.section import Section
from headpatch.reports import derived
from tests.report import made

section = partial(made.section, derived.section("sweep"))


def words(found: Section) -> str:
    return " ".join(block["text"] for block in found.values["blocks"] if block["kind"] == "words")


def grids(found: Section) -> dict[str, list[list[str]]]:
    return {
        block["title"]: [[text for text, *_ in row] for row in block["rows"]]
        for block in found.values["blocks"]
        if block["kind"] == "grid"
    }


def change(file: Path, **values: Any) -> dict[str, Any]:
    saved: dict[str, Any] = torch.load(file, weights_only=True) | values
    torch.save(saved, file)
    return saved


# Vision heads


def test_the_largest_head_of_any_way_comes_first(tmp_path: Path) -> None:
    made.tower(tmp_path)
    found = section(tmp_path)
    (rows,) = (rows for title, rows in grids(found).items() if "any kind" in title)
    assert rows[0] == ["v1.1", "+0.3000", "+0.3000"]
    sizes = [max(abs(float(one.replace("−", "-"))) for one in row[1:]) for row in rows]
    assert sizes == sorted(sizes, reverse=True)
    assert "10 vision heads, this pair; z changed at: patches tokens of the tower." in words(found)


def test_what_is_never_read_is_told_with_its_effect(tmp_path: Path) -> None:
    made.tower(tmp_path)
    found = section(tmp_path)
    assert "reads layer 3: later layers" in words(found)
    assert "the largest effect there is 0 logits" in words(found)
    (line,) = found.figures["sweep-0"].layout["shapes"]
    assert line["y0"] == line["y1"] == 3.5
    saved = change(tmp_path / "sweep.pt")
    saved["effect"]["resample_noising"][4, 0] = -0.5
    change(tmp_path / "sweep.pt", effect=saved["effect"])
    assert "the largest effect there is 5.0e-01 logits" in words(section(tmp_path))


def test_effects_below_the_floor_are_not_counted(tmp_path: Path) -> None:
    made.tower(tmp_path)
    saved = change(tmp_path / "sweep.pt")
    above = int((torch.stack(list(saved["effect"].values())).abs() > saved["noise_floor"]).sum())
    assert f"{above} of 20 effects rise above the noise floor" in words(section(tmp_path))
    assert above < 20


def test_colours_are_one_scale_and_follow_the_root(tmp_path: Path) -> None:
    made.tower(tmp_path)
    found, saved = section(tmp_path), change(tmp_path / "sweep.pt")
    shown = (saved["normalized"], {w: one[:, None] for w, one in saved["layer_normalized"].items()})
    most = max(float(one.abs().max()) for maps in shown for one in maps.values()) ** 0.5
    for index, way in enumerate(saved["normalized"]):
        for drawn, maps in zip(found.figures[f"sweep-{index}"].data, shown, strict=True):
            z = np.array(drawn["z"])
            np.testing.assert_allclose(np.sign(z) * z**2, maps[way].numpy(), atol=1e-5)
            np.testing.assert_allclose([drawn["zmin"], drawn["zmax"]], [-most, most])


def test_means_over_pairs_are_called_so(tmp_path: Path) -> None:
    made.tower(tmp_path, pairs=3)
    found = words(section(tmp_path))
    assert "means over 3 pairs" in found
    assert "These are means without a test." in found


def test_every_sweep_of_a_folder_is_shown_with_figures_of_its_own(tmp_path: Path) -> None:
    made.tower(tmp_path / "one")
    made.tower(tmp_path / "other")
    found = section(tmp_path)
    names = [block["text"] for block in found.values["blocks"] if block["kind"] == "run"]
    assert names == ["one", "other"]
    assert len(found.figures) == 2 * 2


# Estimates


def test_the_estimate_that_misses_most_is_told(tmp_path: Path) -> None:
    made.approx(tmp_path)
    found = words(section(tmp_path))
    way = "resample, noising"
    assert f"Farthest apart: 3.2 ({way}), exact +4.380 logits, estimated −0.250." in found
    assert "24 heads, this pair; z changed at: answer." in found


def test_points_are_exact_against_estimated(tmp_path: Path) -> None:
    made.approx(tmp_path)
    saved, found = change(tmp_path / "approx.pt"), section(tmp_path)
    for index, way in enumerate(saved["effect"]):
        line, points = found.figures[f"approx-{index}"].data
        assert line["x"] == line["y"]
        order = np.argsort(-np.abs(saved["effect"][way].numpy()), axis=None, kind="stable")
        for axis, side in (("x", "effect"), ("y", "approx")):
            values = np.array(points[axis])
            expected = saved[side][way].numpy().ravel()[order]
            np.testing.assert_allclose(np.sign(values) * values**2, expected, rtol=1e-3, atol=1e-6)
        assert points["hovertext"][list(order).index(14)].startswith("3.2: exact +4.3800")


def test_estimates_of_another_shape_are_refused(tmp_path: Path) -> None:
    made.approx(tmp_path)
    effect = {f"resample_{way}": torch.ones(3) for way in ("noising", "denoising")}
    change(tmp_path / "approx.pt", effect=effect)
    with pytest.raises(InputError, match=re.escape("approx.pt: its estimates (6, 4)")):
        section(tmp_path)


def test_sets_are_named(tmp_path: Path) -> None:
    made.approx(tmp_path)
    saved = change(tmp_path / "approx.pt")
    sides = {side: {way: values.ravel()[:2] for way, values in saved[side].items()}
             for side in ("effect", "approx")}  # fmt: skip
    change(tmp_path / "approx.pt", **sides)
    swept = change(tmp_path / "sweep.pt")
    sides = {side: {way: values.ravel()[:2] for way, values in swept[side].items()}
             for side in ("effect", "normalized")}  # fmt: skip
    change(tmp_path / "sweep.pt", heads=["1.1+2.2", "<b>"], **sides)
    found = section(tmp_path)
    texts = found.figures["approx-0"].data[1]["hovertext"]
    assert sorted(text.partition(":")[0] for text in texts) == ["&lt;b&gt;", "1.1+2.2"]
    assert "2 sets of heads, this pair" in words(found)
