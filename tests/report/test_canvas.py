import os
import pickle

import numpy as np
import pandas as pd
import pytest

from headpatch.present import canvas


def test_a_drawing_that_fails_leaves_the_old_file(tmp_path):
    path = tmp_path / "figure.png"
    path.write_bytes(b"old")
    with pytest.raises(RuntimeError), canvas.drawing(path, 1.0):
        raise RuntimeError
    assert path.read_bytes() == b"old"
    assert len(list(tmp_path.iterdir())) == 1


def test_a_save_that_fails_leaves_nothing_behind(tmp_path, monkeypatch):
    def fail(*_):
        raise OSError("disk full")

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(OSError, match="disk full"), canvas.drawing(tmp_path / "f.png", 1.0):
        pass
    assert not list(tmp_path.iterdir())


def test_the_file_gets_the_permissions_of_any_new_file(tmp_path):
    with canvas.drawing(tmp_path / "f.png", 1.0):
        pass
    (tmp_path / "plain").touch()
    assert (tmp_path / "f.png").stat().st_mode == (tmp_path / "plain").stat().st_mode


def test_a_missing_folder_is_an_error(tmp_path):
    with pytest.raises(OSError, match="absent"), canvas.drawing(tmp_path / "absent" / "f", 1.0):
        pass


def test_signed_numbers():
    assert canvas.signed(0.4832, 3) == "+0.483"
    assert canvas.signed(-0.0556, 3) == "−0.056"
    assert canvas.signed(-0.0001, 3) == "0.000"


def test_long_and_wide_questions_are_broken_into_lines():
    assert max(map(len, canvas._wrap("why " * 100, 120))) <= 120
    assert max(map(len, canvas._wrap("左上角有东西吗？" * 30, 120))) <= 48


def test_array_takes_tensors_and_names_what_is_wrong():
    import torch

    values = canvas.array({"a": torch.ones(2, 3)}, "a", 2)
    assert isinstance(values, np.ndarray)
    assert values.dtype == np.float64
    with pytest.raises(ValueError, match=r"lack 'b'; they hold a"):
        canvas.array({"a": 1}, "b", 0)
    with pytest.raises(ValueError, match=r"'a' has shape \(2, 3\), expected 1"):
        canvas.array({"a": torch.ones(2, 3)}, "a", 1)


def test_columns_that_are_missing_are_named_in_order() -> None:
    table = pd.DataFrame({"b": [1]})
    canvas.check_columns(table, ("b",), "effects")
    with pytest.raises(ValueError, match=r"^effects lack the columns a, c$"):
        canvas.check_columns(table, ("c", "b", "a"), "effects")


def test_a_figure_can_be_pickled() -> None:
    sheet = canvas.Sheet()
    with canvas.drawing(sheet, 1.0):
        pass
    assert pickle.loads(pickle.dumps(sheet.figure)).get_figwidth() == canvas.WIDTH
