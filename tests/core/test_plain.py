"""Records of pairs, as a file holds them."""

import io

import numpy as np
import pandas as pd
import pytest
import torch

from headpatch.core.plain import from_plain, to_plain
from headpatch.disk import tensor_bytes
from headpatch.heads import Head


def test_a_record_comes_back() -> None:
    assert from_plain(to_plain({"heads": (Head(1, 2), Head(0, 3))})) == {
        "heads": (Head(1, 2), Head(0, 3))
    }


@pytest.mark.parametrize(
    "named",
    [
        "os:system",
        "headpatch.disk:os.system",  # of a module that one of ours has imported
        "headpatch.disk:write_whole",
        "headpatch.core.plain:Mapping",
        "headpatch.core.plain:nothing",
    ],
)
def test_nothing_but_records_is_made_of_what_a_file_names(named: str) -> None:
    with pytest.raises(TypeError, match="is no record of headpatch's"):
        from_plain({"headpatch is": named, "of": {"command": "true"}})


def test_a_table_comes_back_and_has_no_tensor_of_a_single_cell() -> None:
    """Thousands of them took as long to read as a pair to measure."""
    count = 50
    table = pd.DataFrame(
        {
            "rank": pd.array([None, 3] * (count // 2), "Int64"),
            "share": pd.array([0.1, None] * (count // 2), "Float64"),
            "known": pd.array([True, None] * (count // 2), "boolean"),
            "effect": np.linspace(-1, 1, count),
            "answer": ["Yes", "No"] * (count // 2),
            "any": pd.Series([np.float32(0.1), pd.NA, "x", np.int64(2), None] * (count // 5)),
        }
    )
    for part in (table, table.iloc[7:20], table.iloc[:0]):
        content = {"unit": to_plain(part)}
        assert str(content).count("tensor(") <= len(table.columns)
        read = torch.load(io.BytesIO(tensor_bytes(content)), weights_only=True)
        pd.testing.assert_frame_equal(from_plain(read["unit"]), part)
        for was, now in zip(part["any"], from_plain(content["unit"])["any"], strict=True):
            assert type(was) is type(now)
