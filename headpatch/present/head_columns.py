"""Columns of more than one table: a head's layer and number, and the alpha of its kind."""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from headpatch.heads import Head
from headpatch.kinds import KINDS, REWEIGHTED


def with_alpha(
    table: pd.DataFrame, alpha: float | Sequence[float | None], toward: str = ""
) -> pd.DataFrame:
    """Return a table with ``alpha`` behind the column ``kind``, if a kind of it has one.

    `alpha` is of all rows or of each. What attention was re-weighted `toward` follows, if it was.
    """
    takes = table["kind"].map(lambda kind: KINDS[kind].alpha).astype(bool)
    if not takes.any():
        return table
    found, place = table.copy(), table.columns.get_loc("kind")
    assert isinstance(place, int)
    each = [*alpha] if isinstance(alpha, Sequence) else [alpha] * len(table)
    found.insert(place + 1, "alpha", np.where(takes, np.array(each, np.float64), np.nan))
    turns = table["kind"].isin(REWEIGHTED)
    if turns.any():
        found.insert(place + 2, "toward", turns.map({True: toward, False: ""}))
    return found


def with_donor(table: pd.DataFrame, name: str | None) -> pd.DataFrame:
    """Return a pair's table with ``donor`` behind its kinds, if z of another pair was put in."""
    if name is None:
        return table
    takes = table["kind"].map(lambda kind: KINDS[kind].donated).astype(bool)
    found, place = table.copy(), table.columns.get_loc("kind")
    assert isinstance(place, int)
    found.insert(place + 1, "donor", takes.map({True: name, False: ""}))
    return found


def with_head_columns(table: pd.DataFrame, layer: str = "layer") -> pd.DataFrame:
    """Return a table with the layer and the number of the head behind the column ``heads``.

    Read as numbers, heads 21.1 and 21.10 are one; their layer and number stay two. Both are empty
    where a row is of several heads, of none, or of a random control. `layer` names their column.
    """
    controls = table["role"] == "control" if "role" in table else [False] * len(table)
    heads = [
        None if control or not name or "+" in name else Head.parse(name)
        for name, control in zip(table["heads"], controls, strict=True)
    ]
    found, place = table.copy(), table.columns.get_loc("heads")
    assert isinstance(place, int)
    for offset, (column, field) in enumerate(((layer, "layer"), ("head", "head")), start=1):
        values = [None if one is None else getattr(one, field) for one in heads]
        whole = pd.Series(values, index=found.index, dtype="Int64")  # empty where there is none
        found.insert(place + offset, column, whole)
    return found
