"""What a command writes, prints as JSON and shows on its page are the same figures."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from headpatch.core.output.folder import find
from headpatch.present.canvas import signed

_SECTIONS: Mapping[str, tuple[Callable[..., Any], str, int, str, list[str]]] = {}
"""By verb: its section, a column of its rows and its digits; that of the table, and which rows."""


def same_cells(rows: Sequence[Mapping[str, Any]], written: pd.DataFrame) -> None:
    """Compare rows of JSON with those of a file, cell by cell, to the file's last digit."""
    assert rows
    texts = [{name: _cell(value) for name, value in row.items()} for row in rows]
    columns = list(texts[0])
    assert set(columns) <= set(written.columns)
    there = {tuple(row) for row in written[columns].itertuples(index=False, name=None)}
    assert [row for row in texts if tuple(row.values()) not in there] == []


def shown_in(out: Path, verb: str, written: pd.DataFrame) -> None:
    """Compare what a page's table shows with a file, where the section has one."""
    if verb not in _SECTIONS:
        return
    make, column, digits, of, roles = _SECTIONS[verb]
    section = make(find(out))
    assert section is not None
    values = written.loc[written["role"].isin(roles), of]
    expected = [signed(float(value), digits) for value in values]
    assert sorted(row[column] for row in section.values["rows"]) == sorted(expected)


def _cell(value: Any) -> str:
    if value is None:
        return ""
    return f"{value:.7g}" if isinstance(value, float) else str(value)
