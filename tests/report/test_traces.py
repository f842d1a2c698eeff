from io import StringIO

import numpy as np
import pytest
import torch
from rich.console import Console

from headpatch.report.rollouts import (
    MAPS,
    perturbation_curves,
    rollout_maps,
    rollout_summary,
    rollout_tables,
)
from headpatch.report.trace_tables import trace_summary, trace_tables
from tests.report import synthetic

pytestmark = [pytest.mark.filterwarnings("error"), pytest.mark.usefixtures("draft")]


def said(rich):
    console = Console(width=100, file=StringIO())
    console.print(rich, crop=False, markup=False)
    return console.file.getvalue()


def summary(token, rival, effect, below=False, forced="with"):
    row = {"head": "1.2", "effect": effect, "below_floor": below}
    measure = "contrast" if rival else "logit"
    return {
        "forced": forced,
        "token": token,
        "rival": rival,
        "measure": measure,
        f"{measure}_with": 4.0,
        f"{measure}_without": -4.0,
        "noise_floor": 1e-6,
        "attention": [{"head": "0.1", "value": 0.25}],
        "resample_noising": {"total": abs(effect), "top": [row], "spearman": 0.1},
    }


def test_the_table_of_tokens():
    tokens = [summary("Yes", "No", -2.0), summary("[,]", "", 1e-7, True)]
    text = said(trace_tables(tokens))
    assert "The with-run's answer, token by token" in text
    yes, comma = (line for line in text.splitlines() if "1.2" in line)
    assert yes.split() == ["Yes", "No", "+4.00", "-4.00", "0.1", "+0.25", "1.2", "-2.00"]
    assert comma.split() == ["[,]", "(4.00)", "(-4.00)", "0.1", "+0.25", "1.2", "(+1e-07)"]
    assert "heads move 'Yes' most" in trace_summary(tokens, True)
    assert "INVALID" in trace_summary(tokens, False)


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


def test_a_map_a_row_with_its_region_s_share(tmp_path, drawn):
    results = rolled()
    rollout_maps(results, tmp_path / "f.png", question="Q?", region="top-left")
    texts = drawn.texts()
    for values in results["maps"].values():
        share = float(values[0, :4].sum() / values[0].sum())
        assert f"With the object: region {share:.1%}" in texts
    assert "Where 'Yes' (or 'No') comes from" in texts
    with pytest.raises(ValueError, match="no map"):
        rollout_maps({**results, "maps": {}}, tmp_path / "g.png")


def curves():
    import pandas as pd

    found = []
    for run in ("with", "without"):
        for way in ("delete", "insert"):
            for order, draws in (("relevance_patches", 1), ("random", 3)):
                for draw in range(draws):
                    for k in (0, 1, 2, 4, 8, 16):
                        share = k / 16 if order == "random" else float(k > 0)
                        found.append((run, way, order, draw, k, 0.0, share))
            found.append((run, way, "region", 0, 4, 0.0, 1.0))
    return pd.DataFrame(found, columns=["run", "way", "order", "draw", "k", "ld", "share"])


def test_curves_of_the_check(tmp_path, drawn):
    perturbation_curves(curves(), tmp_path / "f.png", token="'Yes'")
    panels = drawn.last.axes
    assert len(panels) == 4
    own = next(line for line in panels[0].lines if line.get_label() == "relevance (patches)")
    np.testing.assert_allclose(own.get_ydata(), [0, 1, 1, 1, 1, 1])
    assert "3 random" in drawn.texts()
    with pytest.raises(ValueError, match="lack the columns share"):
        perturbation_curves(curves().drop(columns="share"), tmp_path / "g.png")
    with pytest.raises(ValueError, match="no curve"):
        perturbation_curves(curves().iloc[:0], tmp_path / "g.png")


def area(below, count=20, run="with"):
    return {
        "run": run, "way": "delete", "map": "rollout_patches", "area": 0.5, "random_mean": 0.1,
        "random_sd": 0.02, "random_n": count, "random_below": below, "region_size": 4,
        "at_region_size": 1.0, "random_at_region_size": 0.25, "region": 1.0,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("below", "words"),
    [(20, "more than any of 20"), (7, "more than 7 of 20"), (0, "no more than any of 20")],
)
def test_words_about_random_orders(below, words):
    assert words in rollout_summary([area(below)], "", True)
    assert "One pair" in rollout_summary([area(below)], "", True)
    assert "INVALID" in rollout_summary([area(below)], "", False)
    assert rollout_summary([], "why", True) == "The maps are not checked: why."


def test_tables_of_a_rollout():
    regions = [
        {"method": "rollout", "stage": "patches", "run": "with", "region": 0.5, "even": 0.25,
         "elsewhere": 0.01}
    ]  # fmt: skip
    text = said(rollout_tables(regions, [area(7)]))
    assert "7/20" in text
    assert "50.0%" in text
    assert "first 4" in text
    assert "matter" not in said(rollout_tables(regions, []))


def mean_summary(token, rival, effect, pairs=(4, 4), ends=True):
    nan = float("nan")
    found = summary(token, rival, effect)
    low, high = (effect - 1, effect + 1) if ends else (nan, nan)
    found["resample_noising"]["top"][0] |= {"effect_low": low, "effect_high": high}
    found["resample_noising"] |= {"total_low": abs(effect), "total_high": abs(effect)}
    return found | {
        "tokens": {"top": 3, "bottom": 1},  # a token may be any word
        "pairs": pairs[0],
        "measure_pairs": pairs[1],
    }


def test_the_table_of_means():
    slots = [
        mean_summary("Yes", "No", -2.0),
        mean_summary("top/bottom", "left", 0.5, (4, 3)),
        mean_summary("big", "red", 9.0, (1, 1), ends=False),
    ]
    text = said(trace_tables(slots, 0.95))
    yes, place, big = (line for line in text.splitlines() if "1.2" in line)
    assert yes.split()[:3] == ["Yes", "No", "4"]
    assert yes.rstrip().endswith("1.2 -2.00 [-3.00, -1.00]")
    assert place.split()[2] == "4/3"
    assert big.rstrip().endswith("1.2 +9.00")
    words = " ".join(text.split())
    assert "95% intervals over pairs" in words
    assert "partly lucky" in words
    line = trace_summary(slots, True, 4)
    assert "heads move 'Yes' most" in line  # not 'big', which one pair has
    assert line.endswith("Means over 4 pairs.")
    assert "INVALID" in trace_summary(slots, False, 4)
