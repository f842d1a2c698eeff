"""Estimates beside the exact effects, never alone."""

import re
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch

from headpatch.errors import InputError
from headpatch.report.html import write
from headpatch.report.html.sections import approx
from tests.report.html import made

section = partial(made.section, approx.section)


def page_of(folder: Path) -> str:
    return write(folder, folder / "report.html").path.read_text(encoding="utf-8")


def change(folder: Path, **values: object) -> None:
    file = folder / "approx.pt"
    torch.save(torch.load(file, weights_only=True) | values, file)


def test_the_estimate_that_misses_most_is_told(tmp_path: Path) -> None:
    made.approx(tmp_path)
    (run,) = section(tmp_path).values["runs"]
    assert run["farthest"] == {"name": "3.2", "way": "resample, noising", "exact": "+4.380",
                               "approx": "−0.250"}  # fmt: skip
    assert run["where"] == "24 heads, this pair; z changed at: answer"


def test_points_are_exact_against_estimated(tmp_path: Path) -> None:
    made.approx(tmp_path)
    saved = torch.load(tmp_path / "approx.pt", weights_only=True)
    found = section(tmp_path)
    for figure, way in zip(found.figures.values(), saved["effect"], strict=True):
        line, points = figure.data
        assert line["x"] == line["y"]
        for axis, side in (("x", "effect"), ("y", "approx")):
            values = np.array(points[axis])
            expected = saved[side][way].numpy().ravel()
            np.testing.assert_allclose(np.sign(values) * values**2, expected, rtol=1e-3, atol=1e-6)
        assert points["text"][14].startswith("3.2: exact +4.3800")


def test_one_pair_resamples_heads_and_many_resample_pairs(tmp_path: Path) -> None:
    made.approx(tmp_path / "one")
    made.approx(tmp_path / "many", pairs=7)
    one, many = (page_of(tmp_path / name) for name in ("one", "many"))
    assert "intervals from resampling heads, which are not independent draws" in one
    assert "Pearson of the means" not in one
    assert "intervals over pairs" in many
    assert "Pearson of the means" in many
    assert "24 heads, means over 7 pairs" in many
    (row, _) = section(tmp_path / "many").values["runs"][0]["rows"]
    assert row == {"kind": "resample", "direction": "noising", "pearson": "+0.50 [+0.25, +0.75]",
                   "of_means": "+0.38 [+0.38, +0.38]", "spearman": "+0.62", "recall": "0.88",
                   "chance": "0.12"}  # fmt: skip


def test_a_flat_side_has_no_correlation(tmp_path: Path) -> None:
    made.approx(tmp_path)
    saved = torch.load(tmp_path / "approx.pt", weights_only=True)
    flat = dict.fromkeys(("pearson", "pearson_low", "pearson_high", "spearman"), float("nan"))
    change(tmp_path, agreement={way: one | flat for way, one in saved["agreement"].items()})
    row = section(tmp_path).values["runs"][0]["rows"][0]
    assert (row["pearson"], row["spearman"]) == ("undefined", "undefined")


@pytest.mark.parametrize("missing", ["nothing", "other shape"])
def test_an_estimate_alone_is_refused(tmp_path: Path, missing: str) -> None:
    made.approx(tmp_path)
    effect = {} if missing == "nothing" else {
        f"resample_{way}": torch.ones(3) for way in ("noising", "denoising")
    }  # fmt: skip
    change(tmp_path, effect=effect)
    with pytest.raises(InputError, match=re.escape("approx.pt: it cannot be read")):
        section(tmp_path)


def test_sets_are_named_by_the_sweep_beside_them(tmp_path: Path) -> None:
    made.approx(tmp_path)
    saved = torch.load(tmp_path / "approx.pt", weights_only=True)
    sides = {side: {way: values.ravel()[:2] for way, values in saved[side].items()}
             for side in ("effect", "approx")}  # fmt: skip
    change(tmp_path, **sides)
    texts = next(iter(section(tmp_path).figures.values())).data[1]["text"]
    assert texts[1].startswith("set 1: ")
    torch.save({"heads": ["1.1+2.2", "<b>"]}, tmp_path / "sweep.pt")
    texts = next(iter(section(tmp_path).figures.values())).data[1]["text"]
    assert texts[0].startswith("1.1+2.2: ")
    assert texts[1].startswith("&lt;b&gt;: ")
    assert section(tmp_path).values["runs"][0]["where"].startswith("2 sets of heads")
