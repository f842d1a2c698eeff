"""Tables and tensors survive being written and read; a damaged file is one line that names it."""

import math
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

import pandas
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from headpatch.core.output.files import (
    columns_of,
    read_table,
    read_tensors,
    reading,
    write_columns,
    write_tensors,
)
from tests.refusals import refusal


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
    write_columns(tmp_path / "frame.csv", columns_of(pandas.DataFrame(columns, index=[7, 9])))
    assert (tmp_path / "frame.csv").read_bytes() == (tmp_path / "columns.csv").read_bytes()


def test_rows_are_added_below_those_of_a_file(tmp_path: Path) -> None:
    write_columns(tmp_path / "all.csv", {"a": [1, 2, 3], "b": ["x", "y", "z"]})
    write_columns(tmp_path / "parts.csv", {"a": [1], "b": ["x"]})
    write_columns(tmp_path / "parts.csv", {"a": [2, 3], "b": ["y", "z"]}, more=True)
    assert (tmp_path / "parts.csv").read_bytes() == (tmp_path / "all.csv").read_bytes()


NEEDED = {"heads": "text", "layer": "whole", "effect": "number", "redundant": "truth"}
ROWS = {"heads": ["1.10", ""], "layer": [1, 2], "effect": [0.5, 1], "redundant": [True, False]}


def test_columns_come_as_what_they_are(tmp_path: Path) -> None:
    write_columns(tmp_path / "t.csv", ROWS)
    found = read_table(tmp_path / "t.csv", NEEDED)
    assert [kind.kind for kind in found.dtypes] == ["O", "i", "f", "b"]
    assert list(found["heads"]) == ["1.10", ""]
    write_columns(tmp_path / "none.csv", {name: [] for name in ROWS})
    assert read_table(tmp_path / "none.csv", NEEDED).empty


TABLES: dict[str, tuple[Callable[[bytes], bytes], str]] = {
    "empty": (lambda _: b"", "it is empty"),
    "no text": (lambda text: text.replace(b"1.10", b"1\xff0"), "it holds bytes that are no text"),
    "zeros": (lambda text: text.replace(b"1.10", b"1\x000"), "it holds zero bytes"),
    "a row of another length": (lambda text: text + b"1,2,3,4,5\n", "not those of a table"),
    "a column less": (lambda text: text.replace(b"effect", b"affect"), "lacks the column 'effect'"),
    "words": (lambda text: text.replace(b"0.5", b"half"), "'effect' holds more than numbers"),
    "no whole number": (lambda text: text.replace(b",2,", b",2.5,"), "more than whole numbers"),
    "no truth": (lambda text: text.replace(b"True", b"Tru"), "more than True and False"),
}


@pytest.mark.parametrize("what", TABLES)
def test_a_damaged_table(tmp_path: Path, what: str) -> None:
    change, words = TABLES[what]
    path = tmp_path / "t.csv"
    write_columns(path, ROWS)
    path.write_bytes(change(path.read_bytes()))
    line = refusal(read_table, path, NEEDED, of=str(path))
    assert line.startswith(f"{path}: it cannot be read (") and words in line


TENSORS: dict[str, tuple[Callable[[Path], object], str]] = {
    "cut": (lambda path: path.write_bytes(path.read_bytes()[:300]), "it is damaged, or holds more"),
    "empty": (lambda path: path.write_bytes(b""), "it is damaged, or holds more"),
    "text": (lambda path: path.write_text("hello"), "it is damaged, or holds more"),
    "code": (lambda path: torch.save({"ld": print}, path), "it is damaged, or holds more"),
    "a list": (lambda path: torch.save([1.0], path), "it holds no tensors by name"),
    "a key less": (lambda path: write_tensors(path, {"ld_": 1.0}), "it lacks 'ld'"),
    "axes": (lambda path: write_tensors(path, {"ld": torch.ones(2)}), "1 axes instead of 0"),
    "gone": (lambda path: path.unlink(), "No such file or directory"),
}


@pytest.mark.parametrize("what", TENSORS)
def test_damaged_tensors(tmp_path: Path, what: str, capfd: pytest.CaptureFixture[str]) -> None:
    change, words = TENSORS[what]
    path = tmp_path / "t.pt"
    write_tensors(path, {"ld": torch.tensor(1.0)})
    change(path)
    line = refusal(read_tensors, path, {"ld": 0}, of=str(path))
    assert line.startswith(f"{path}: it cannot be read (") and words in line
    assert "weights_only" not in line and "pickle" not in line
    assert capfd.readouterr() == ("", "")


def test_an_error_of_the_program_is_not_taken_for_damage(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), reading(tmp_path):
        raise ZeroDivisionError
