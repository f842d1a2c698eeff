"""Effects of vision heads, and of whole vision layers."""

from functools import partial
from pathlib import Path

import numpy as np
import torch

from headpatch.core.output.folder import find
from headpatch.report.html.sections import tower
from tests.report.html import made

section = partial(made.section, tower.section)


def test_the_largest_head_comes_first(tmp_path: Path) -> None:
    made.tower(tmp_path)
    (run,) = section(tmp_path).values["runs"]
    assert run["rows"][0] == {"head": "v1.1", "values": ["+0.3000", "+0.3000"]}
    sizes = [max(abs(float(one.replace("−", "-"))) for one in row["values"]) for row in run["rows"]]
    assert sizes == sorted(sizes, reverse=True)
    assert run["where"] == "this pair; z changed at: patches tokens of the tower"


def test_what_is_never_read_is_told_with_its_effect(tmp_path: Path) -> None:
    made.tower(tmp_path)
    found = section(tmp_path)
    (run,) = found.values["runs"]
    assert (run["feature"], run["unread"], run["past"]) == (3, 1, "0")
    (line,) = found.figures[run["maps"][0]].layout["shapes"]
    assert line["y0"] == line["y1"] == 3.5
    saved = torch.load(tmp_path / "sweep.pt", weights_only=True)
    saved["effect"]["resample_noising"][4, 0] = -0.5
    torch.save(saved, tmp_path / "sweep.pt")
    (run,) = section(tmp_path).values["runs"]
    assert run["past"] == "5.0e-01"


def test_effects_below_the_floor_are_not_counted(tmp_path: Path) -> None:
    made.tower(tmp_path)
    saved = torch.load(tmp_path / "sweep.pt", weights_only=True)
    effects = torch.stack(list(saved["effect"].values()))
    (run,) = section(tmp_path).values["runs"]
    assert run["effects"] == 20
    assert run["above"] == int((effects.abs() > saved["noise_floor"]).sum()) < 20


def test_colours_are_one_scale_and_follow_the_root(tmp_path: Path) -> None:
    made.tower(tmp_path)
    found = section(tmp_path)
    saved = torch.load(tmp_path / "sweep.pt", weights_only=True)
    for name, way in zip(found.values["runs"][0]["maps"], saved["normalized"], strict=True):
        (drawn,) = found.figures[name].data
        z, values = np.array(drawn["z"]), saved["normalized"][way].numpy()
        np.testing.assert_allclose(np.sign(z) * z**2, values, atol=1e-5)
        assert (drawn["zmin"], drawn["zmax"]) == (-(0.3**0.5), 0.3**0.5) or np.allclose(
            [drawn["zmin"], drawn["zmax"]], [-(0.3**0.5), 0.3**0.5]
        )


def test_whole_layers_are_lines(tmp_path: Path) -> None:
    made.tower(tmp_path)
    found = section(tmp_path)
    figure = found.figures[found.values["runs"][0]["layers"]]
    saved = torch.load(tmp_path / "sweep.pt", weights_only=True)["layer_normalized"]
    for trace, values in zip(figure.data, saved.values(), strict=True):
        np.testing.assert_allclose(trace["y"], values.numpy(), rtol=1e-4)
    (shade,) = figure.layout["shapes"]
    assert shade["x0"] == 3.5


def test_means_over_pairs_are_called_so(tmp_path: Path) -> None:
    made.tower(tmp_path, pairs=3)
    (run,) = section(tmp_path).values["runs"]
    assert run["many"]
    assert run["where"].startswith("mean over 3 pairs")


def test_a_verdict_gives_layers_with_intervals(tmp_path: Path) -> None:
    made.verdict(tmp_path)
    found = section(tmp_path)
    assert found.values["runs"] == []
    assert found.values["judged"] == {"pairs": "30", "layer": "4", "value": "+0.040",
                                      "interval": "[+0.030, +0.060]"}  # fmt: skip
    band, line = found.figures["tower-judged"].data
    assert line["y"] == [0, 0.01, 0.02, 0.03, 0.04]
    assert max(band["y"]) == 0.06


def test_sweeps_of_the_language_model_or_of_sets_are_not_shown(tmp_path: Path) -> None:
    made.sweep(tmp_path)
    assert tower.section(find(tmp_path)) is None
    made.tower(tmp_path)
    saved = torch.load(tmp_path / "sweep.pt", weights_only=True)
    saved["normalized"] = {way: values.ravel() for way, values in saved["normalized"].items()}
    torch.save(saved, tmp_path / "sweep.pt")
    assert tower.section(find(tmp_path)) is None
