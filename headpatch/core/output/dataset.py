"""The table of the pairs that were drawn."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from headpatch.core.output.files import write_columns
from headpatch.pairs.manifest import NAME

if TYPE_CHECKING:  # names of types only: who reads results must not load a model's code
    from headpatch.pairs.generate import Drawn


def write_manifest(
    folder: Path, planned: "Sequence[Drawn]", extension: str
) -> list[dict[str, str]]:
    """Write the table of drawn pairs, and return its rows.

    Parameters
    ----------
    extension
        Of the pictures: png, jpg.
    """
    rows = [pair.row(extension) for pair in planned]
    write_columns(folder / NAME, {column: [row[column] for row in rows] for column in rows[0]})
    return rows
