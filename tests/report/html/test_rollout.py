"""Maps of a token over both pictures, beside their check."""

import base64
import io
import re
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from headpatch.errors import InputError
from headpatch.report.html.sections import rollout
from tests.report.html import made

section = partial(made.section, rollout.section)


def test_each_map_says_its_share_on_the_region(tmp_path: Path) -> None:
    made.rollout(tmp_path)
    even, found = section(tmp_path).values["maps"]
    assert [side["share"] for side in even["sides"]] == ["25.0%"] * 2  # 4 of 16 patches
    assert [side["share"] for side in found["sides"]] == ["100.0%"] * 2
    assert (even["even"], even["peak"], found["peak"]) == ("25.0%", "1.0", "4.0")
    assert [side["elsewhere"] for side in even["sides"]] == ["25.0%", "50.0%"]


def test_the_picture_is_covered_where_the_map_lies(tmp_path: Path) -> None:
    made.rollout(tmp_path)
    side = section(tmp_path).values["maps"][1]["sides"][1]
    data = base64.b64decode(side["picture"].partition(",")[2])
    shown = np.asarray(Image.open(io.BytesIO(data)).convert("RGB"), np.float64)
    bare = torch.load(tmp_path / "rollout.pt", weights_only=True)["image_without"].double().numpy()
    changed = np.abs(shown - bare).mean(2)
    height, width = (length // 2 for length in changed.shape)
    margin = 8  # JPEG's blocks
    inside = changed[: height - margin, : width - margin]
    assert inside.min() > 40
    assert np.median(changed[height + margin :, width + margin :]) < 5


def test_areas_are_those_under_the_curves(tmp_path: Path) -> None:
    made.rollout(tmp_path)
    found = section(tmp_path)
    rows = {row["map"]: row for row in found.values["rows"] if row["way"] == "deleted"}
    good, bad = rows["relevance, at the image tokens"], rows["rollout, at the patches"]
    assert (good["area"], bad["area"]) == ("+0.716", "+0.216")  # log2(5) / log2(17) = 0.568
    assert (good["below"], bad["below"]) == ("2 of 2", "0 of 2")
    assert (good["at"], bad["at"], good["region"]) == ("+1.00", "0.00", "+0.90")
    said = found.values["said"]
    assert "relevance, at the image tokens: +0.716, more than any of 2 random orders" in said
    assert "rollout, at the patches: +0.216, no more than any of 2 random orders" in said
    assert said.endswith("One pair shows one case, not a rule.")


def test_every_run_and_way_has_its_curves(tmp_path: Path) -> None:
    made.rollout(tmp_path)
    figures = section(tmp_path).figures
    assert list(figures) == [f"rollout-{run}-{way}" for run in ("with", "without")
                             for way in ("delete", "insert")]  # fmt: skip
    for figure in figures.values():
        lines = {trace["name"]: trace for trace in figure.data}
        assert lines["relevance (tokens)"]["y"] == [0, 1, 1]
        assert lines["region"]["y"] == [0.9]
        assert figure.layout["xaxis"]["ticktext"] == ["0", "4", "16"]


def test_maps_without_a_check_say_so(tmp_path: Path) -> None:
    made.rollout(tmp_path, checked=False)
    found = section(tmp_path)
    assert not found.figures
    assert found.values["said"] == "The maps are not checked: both runs would say 'Yes' here."
    assert found.values["rows"] == []


def test_a_forced_study_says_nothing(tmp_path: Path) -> None:
    made.rollout(tmp_path)
    made.run_yaml(tmp_path, valid=False)
    assert "INVALID" in section(tmp_path).values["said"]


def test_a_map_of_other_patches_is_damage(tmp_path: Path) -> None:
    made.rollout(tmp_path)
    saved = torch.load(tmp_path / "rollout.pt", weights_only=True)
    saved["maps"]["rollout_patches"] = torch.ones(2, 9)
    torch.save(saved, tmp_path / "rollout.pt")
    with pytest.raises(InputError, match=re.escape("rollout.pt: it cannot be read (its map")):
        section(tmp_path)
