"""Whatever reads a table, no two heads become one."""

import io

import pandas as pd

from headpatch.core.output.files import columns_of, write_columns
from headpatch.heads import Grid
from headpatch.present.head_columns import with_head_columns


def test_heads_are_told_apart_by_a_reader_that_takes_their_names_for_numbers(tmp_path) -> None:
    names = [str(head) for head in Grid(32, 32)]
    effects = with_head_columns(pd.DataFrame({"heads": names, "effect": 0.5}))
    write_columns(tmp_path / "t.csv", columns_of(effects))
    table = pd.read_csv(tmp_path / "t.csv")
    assert list(table) == ["heads", "layer", "head", "effect"]
    assert table["heads"].nunique() < len(names)
    assert table.groupby(["layer", "head"]).ngroups == len(names)
    assert table["layer"].dtype == table["head"].dtype == "int64"
    again = [f"{row.layer}.{row.head}" for row in table.itertuples()]
    assert again == names


def test_sets_controls_and_rows_of_no_head_have_neither() -> None:
    table = pd.DataFrame({
        "heads": ["21.10", "v8.3", "1.1+2.2", "1.2", "", "3.4"],
        "role": ["head", "head", "joint", "control", "layers", "noise floor"],
    })  # fmt: skip
    found = with_head_columns(table, "head_layer")
    assert list(found) == ["heads", "head_layer", "head", "role"]
    assert found["head_layer"].fillna(-1).tolist() == [21, 8, -1, -1, -1, 3]
    assert found["head"].fillna(-1).tolist() == [10, 3, -1, -1, -1, 4]
    assert "heads" in table and "head" not in table
    stream = io.StringIO(found.to_csv(index=False))
    assert pd.read_csv(stream)["head"].isna().sum() == 3
