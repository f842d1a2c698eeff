"""What ran over many pairs is shown as means, with intervals, and never called one pair."""

from pathlib import Path

import pandas as pd
import torch

from headpatch.core.output import read_table
from headpatch.core.output.files import write_table
from headpatch.core.output.folder import find
from headpatch.report.html import write
from headpatch.report.html.sections import path
from tests.report.html import made

ONE = "One pair shows one case, not a rule."


def page_of(folder: Path) -> str:
    return write(folder, folder / "report.html").path.read_text(encoding="utf-8")


def path_of_pairs(folder: Path) -> pd.DataFrame:
    """A path over 9 pairs; path.csv then holds the rows of each pair."""
    made.path(folder)
    table = read_table(folder / "path.csv")
    write_table(folder / "path.csv", pd.concat([table, table.assign(normalized=-7.0)]))
    for end, by in (("low", -0.05), ("high", 0.1)):
        table[f"normalized_{end}"] = table["normalized"] + by
    table["pairs"] = 9
    write_table(folder / "path_mean.csv", table)
    return table


def test_means_of_a_path_are_drawn_with_their_intervals(tmp_path: Path) -> None:
    table = path_of_pairs(tmp_path)
    section = path.section(find(tmp_path))
    assert section is not None
    stream = section.figures["path-noising"].data
    for trace in stream:
        assert -7 not in trace["y"]
    band, line = section.figures["path-edges"].data
    rows = table[(table["view"] == "edge") & (table["direction"] == "noising")]
    assert line["y"] == [round(one, 5) for one in rows["normalized"]]
    assert band["y"][: len(rows)] == [round(one, 5) for one in rows["normalized_high"]]
    assert section.values["rows"][0]["share"] == "+0.400 [+0.350, +0.500]"


def test_a_path_says_how_many_pairs_it_is_a_mean_of(tmp_path: Path) -> None:
    made.path(tmp_path / "one")
    path_of_pairs(tmp_path / "many")
    one, many = (page_of(tmp_path / name) for name in ("one", "many"))
    assert ONE in one
    assert ONE not in many
    assert "Means over 9 pairs" in many


def test_a_trace_says_how_many_pairs_it_is_a_mean_of(tmp_path: Path) -> None:
    made.trace(tmp_path)
    assert ONE in page_of(tmp_path)
    saved = torch.load(tmp_path / "trace.pt", weights_only=True)
    torch.save(saved | {"pair_names": ["a", "b"]}, tmp_path / "trace.pt")
    text = page_of(tmp_path)
    assert ONE not in text
    assert "Means over the pairs that have a token there, of 2, without a test." in text
