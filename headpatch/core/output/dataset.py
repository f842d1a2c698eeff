"""What runs over many pairs write, and the table of the pairs that were drawn."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from headpatch.core.output.files import write_columns
from headpatch.core.output.provenance import write_dataset_run
from headpatch.core.study import Study
from headpatch.pairs.manifest import NAME

if TYPE_CHECKING:  # names of types only: who reads results must not load a model's code
    import pandas

    from headpatch.core.baseline_runs import Survey
    from headpatch.models.vlm import VLM
    from headpatch.pairs.generate import Drawn


def write_pairs(
    folder: Path,
    study: Study,
    vlm: "VLM",
    survey: "Survey",
    tables: "Mapping[str, pandas.DataFrame | Mapping[str, Sequence[object]]]",
    noise_floor: float | None = None,
    **more: object,
) -> None:
    """Write what a run over a dataset found: its `tables`, ``gate.csv`` and ``run.yaml``.

    Parameters
    ----------
    more
        What else ``run.yaml`` says of the run.
    """
    for name, table in tables.items():
        write_columns(folder / name, {str(key): list(values) for key, values in table.items()})
    write_columns(folder / "gate.csv", survey.gate_columns())
    write_dataset_run(folder, study, vlm, survey, noise_floor, **more)


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
