"""Tables and tensors survive being written and read."""

import math
from pathlib import Path
from tempfile import TemporaryDirectory

import pandas
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from headpatch.core.output import read_table, read_tensors, write_columns, write_tensors
from headpatch.core.output.files import write_table


@given(st.lists(st.floats(allow_nan=True, allow_infinity=False, width=32), min_size=1, max_size=9))
@settings(max_examples=50)
def test_float32_survives_a_table(values: list[float]) -> None:
    with TemporaryDirectory() as folder:
        file = Path(folder) / "table.csv"
        write_columns(file, {"x": values, "n": list(range(len(values)))})
        back = read_table(file)
    assert list(back.columns) == ["x", "n"]
    assert list(back["n"]) == list(range(len(values)))
    for value, read in zip(values, back["x"], strict=True):
        assert math.isnan(read) if math.isnan(value) else read == pytest.approx(value, rel=5e-7)


def test_heads_stay_text(tmp_path: Path) -> None:
    """24.10 is not 24.1, and a pair called 007 is not 7."""
    file = tmp_path / "effects.csv"
    write_columns(file, {"pair": ["007", "a, b"], "heads": ["24.10", "1.1+2.2"], "ld": [0.5, 1.0]})
    back = read_table(file)
    assert list(back["heads"]) == ["24.10", "1.1+2.2"]
    assert list(back["pair"]) == ["007", "a, b"]
    assert list(back["ld"]) == [0.5, 1.0]


def test_columns_of_unlike_length_are_an_error(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"shorter|longer"):
        write_columns(tmp_path / "t.csv", {"a": [1, 2], "b": [1]})


def test_tensors_read_back(tmp_path: Path) -> None:
    write_tensors(tmp_path / "good.pt", {"diff": torch.ones(2, 3), "top": 5, "names": ["a"]})
    good = read_tensors(tmp_path / "good.pt")
    assert torch.equal(good["diff"], torch.ones(2, 3))
    assert (good["top"], good["names"]) == (5, ["a"])


def test_a_frame_is_written_as_its_columns_without_its_index(tmp_path: Path) -> None:
    columns = {"heads": ["24.10", "1.1"], "ld": [0.25, math.nan], "n": [3, 4]}
    write_columns(tmp_path / "columns.csv", columns)
    write_table(tmp_path / "frame.csv", pandas.DataFrame(columns, index=[7, 9]))
    assert (tmp_path / "frame.csv").read_bytes() == (tmp_path / "columns.csv").read_bytes()


def test_rows_are_added_below_those_of_a_file(tmp_path: Path) -> None:
    write_columns(tmp_path / "all.csv", {"a": [1, 2, 3], "b": ["x", "y", "z"]})
    write_columns(tmp_path / "parts.csv", {"a": [1], "b": ["x"]})
    write_columns(tmp_path / "parts.csv", {"a": [2, 3], "b": ["y", "z"]}, more=True)
    assert (tmp_path / "parts.csv").read_bytes() == (tmp_path / "all.csv").read_bytes()
