"""Tables about a dataset of pairs, and of means over it, for a terminal."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

from rich.console import RenderableType

from headpatch.present.tables import plain_table

if TYPE_CHECKING:
    pass


def design(counts: Mapping[str, Mapping[str, int]]) -> RenderableType:
    """Show how often each level of each factor comes up.

    Parameters
    ----------
    counts
        By factor and level.
    """
    table = plain_table("factor", "levels (pairs)", title="Design", wrapped="levels (pairs)")
    for factor, levels in counts.items():
        table.add_row(factor, ", ".join(f"{level} ({count})" for level, count in levels.items()))
    return table
