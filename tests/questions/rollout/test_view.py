"""Words and tables of a rollout: where the maps fall, and whether their patches matter."""

from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch

from headpatch.core.question import Context
from headpatch.errors import InputError
from headpatch.present.chart import Chart
from headpatch.present.parts import Grid, Words
from headpatch.questions.rollout.columns import AREAS, REGIONS
from headpatch.questions.rollout.view import summary, view
from headpatch.reports import derived
from tests.report import made

section = partial(made.section, derived.section("rollout"))
ONE = Context("Q?", "top-left")


def shown(folder: Path) -> tuple[str, dict[str, list[list[str]]]]:
    """Return a page's words, and its tables by title."""
    blocks = section(folder).values["blocks"]
    words = " ".join(block["text"] for block in blocks if block["kind"] == "words")
    tables = {
        block["title"]: [[cell[0] for cell in row] for row in block["rows"]]
        for block in blocks
        if block["kind"] == "grid"
    }
    return words, tables


def test_each_map_says_its_share_on_the_region(tmp_path: Path) -> None:
    made.rollout(tmp_path)
    rows = shown(tmp_path)[1]["Where the maps fall"]
    assert rows == [
        ["rollout, at the patches", "with", "25.0%", "25.0%", "25.0%"],  # 4 of 16 patches
        ["rollout, at the patches", "without", "25.0%", "25.0%", "50.0%"],
        ["relevance, at the image tokens", "with", "100.0%", "25.0%", "25.0%"],
        ["relevance, at the image tokens", "without", "100.0%", "25.0%", "50.0%"],
    ]


def test_areas_are_those_under_the_curves(tmp_path: Path) -> None:
    made.rollout(tmp_path)
    words, tables = shown(tmp_path)
    rows = {
        row[2]: row[3:] for row in tables["Do the maps' patches matter?"] if row[1] == "deleted"
    }
    good, bad = rows["relevance, at the image tokens"], rows["rollout, at the patches"]
    assert (good[0], bad[0]) == ("+0.716", "+0.216")  # log2(5) / log2(17) = 0.568
    assert (good[2], bad[2]) == ("2/2", "0/2")
    assert (good[3], bad[3], good[5]) == ("+1.00", "+0.00", "+0.90")
    assert "relevance, at the image tokens: +0.716, more than any of 2 random orders" in words
    assert "rollout, at the patches: +0.216, no more than any of 2 random orders" in words
    assert words.count("One pair shows one case, not a rule.") == 1
    assert "In a deleted patch stands the other picture" in words


def test_pictures_and_curves_are_figures(tmp_path: Path) -> None:
    made.rollout(tmp_path)
    figures = section(tmp_path).figures
    assert list(figures) == [f"{name}-{i}" for name in ("rollout", "perturbation")
                             for i in range(4)]  # fmt: skip
    for name, figure in figures.items():
        if name.startswith("perturbation"):
            lines = {trace["name"]: trace for trace in figure.data}
            assert lines["relevance (tokens)"]["y"] == [0, 1, 1]
            assert lines["region"]["y"] == [0.9]


def test_maps_without_a_check_say_so(tmp_path: Path) -> None:
    made.rollout(tmp_path, checked=False)
    words, tables = shown(tmp_path)
    assert len(section(tmp_path).figures) == 4
    assert "The maps are not checked: both runs would say 'Yes' here." in words
    assert list(tables) == ["Where the maps fall"]


def test_a_forced_study_says_nothing(tmp_path: Path) -> None:
    made.rollout(tmp_path)
    made.run_yaml(tmp_path, valid=False)
    assert "INVALID" in shown(tmp_path)[0]


def test_a_map_of_other_patches_is_damage(tmp_path: Path) -> None:
    made.rollout(tmp_path)
    saved = torch.load(tmp_path / "rollout.pt", weights_only=True)
    saved["maps"]["rollout_patches"] = torch.ones(2, 9)
    torch.save(saved, tmp_path / "rollout.pt")
    with pytest.raises(InputError, match="it cannot be read"):
        section(tmp_path)


def area(below: int) -> dict[str, Any]:
    return {"run": "with", "way": "delete", "map": "rollout_patches", "area": 0.5,
            "random_mean": 0.1, "random_sd": 0.02, "random_n": 20,
            "random_below": below}  # fmt: skip


@pytest.mark.parametrize(
    ("below", "words"),
    [(20, "more than any of 20"), (7, "more than 7 of 20"), (0, "no more than any of 20")],
)
def test_words_about_random_orders(below: int, words: str) -> None:
    assert words in summary([area(below)], "", ONE)


def means(schema: Any, **keys: str) -> pd.DataFrame:
    """Return one row of means, whose intervals reach 0.1 further."""
    row: dict[str, Any] = dict(keys)
    for column in (one for one in schema if one.interval):
        row |= {column.name: 0.5, f"{column.name}_low": 0.4, f"{column.name}_high": 0.6}
    return pd.DataFrame([row | {"pairs": 3}])


def test_over_pairs_differences_have_intervals() -> None:
    files = {
        "rollout_mean.csv": means(REGIONS, method="rollout", stage="patches", run="with"),
        "perturbation_mean.csv": means(AREAS, run="with", way="delete", map="rollout_patches"),
    }
    parts = list(view(files, Context("Q?", "top-left", pairs=4)))
    words = " ".join(part.text for part in parts if isinstance(part, Words))
    assert "rollout, at the patches: +0.500 (+0.400 to +0.600). Means over 3 pairs." in words
    assert "1 pairs are not checked." in words
    where, check = (part for part in parts if isinstance(part, Grid))
    assert where.rows[0][2:4] == ("50.0%", "40.0% to 60.0%")
    assert check.rows[0][5:7] == ("+0.500", "+0.400 to +0.600")
    maps, areas = (part for part in parts if isinstance(part, Chart))
    for chart in (maps, areas):
        (panel,) = chart.panels
        assert panel.names == ["rollout (patches)"]
        assert [float(one.y[0]) for one in panel.series] == [0.5, 0.5]
        assert float(panel.series[0].low[0]) == 0.4
