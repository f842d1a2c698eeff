"""The plain files that every analysis writes: tables, tensors and YAML."""

import csv
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from headpatch.disk import tensor_bytes

if TYPE_CHECKING:
    import pandas


def columns_of(table: "pandas.DataFrame") -> dict[str, list[Any]]:
    """Return a table's columns by name, for `write_columns` and for ``--json``."""
    return {str(name): list(values) for name, values in table.items()}


def write_table(path: Path, table: "pandas.DataFrame") -> None:
    """Write a table as CSV, as `write_columns` does; its index is left out."""
    write_columns(path, columns_of(table))


def write_columns(path: Path, columns: Mapping[str, Sequence[object]], more: bool = False) -> None:
    """Write a table as CSV; numbers with seven significant digits, which is what float32 holds.

    Parameters
    ----------
    more
        Add the rows to those of a file that has these columns.
    """
    with path.open("a" if more else "w", encoding="utf-8", newline="") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        if not more:
            writer.writerow(columns)
        for row in zip(*columns.values(), strict=True):
            writer.writerow(_cell(value) for value in row)


def _cell(value: object) -> object:
    if type(value).__name__ == "NAType":  # pandas' word for a missing integer
        return ""
    if isinstance(value, float):
        return "" if math.isnan(value) else f"{value:.7g}"
    return value


def write_tensors(path: Path, content: Mapping[str, object]) -> None:
    """Write plain tensors, numbers and texts, for `headpatch.core.output.read_tensors`."""
    path.write_bytes(tensor_bytes(content))


def write_yaml(path: Path, content: Mapping[str, object]) -> None:
    """Write nested plain values as YAML, keys in the order given."""
    text = yaml.safe_dump(content, sort_keys=False, allow_unicode=True, width=100)
    path.write_text(text, encoding="utf-8")
