"""What `sweep` writes."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from headpatch.core.output.files import columns_of, write_columns, write_tensors
from headpatch.core.output.provenance import write_run

if TYPE_CHECKING:  # names of types only: who reads results must not load a model's code
    from headpatch.core.session import Session
    from headpatch.questions.sweep.one import Sweep


def write_sweep(folder: Path, session: "Session", sweep: "Sweep") -> None:
    """Write ``effects.csv``, ``sweep.pt``, ``run.yaml`` and, if estimated, ``approx.pt``."""
    write_tensors(folder / "sweep.pt", sweep.saved)
    if sweep.approx is not None:
        write_tensors(folder / "approx.pt", sweep.approx)
    write_columns(folder / "effects.csv", sweep_columns(sweep))
    write_run(folder, session, sweep.noise_floor)


def sweep_columns(sweep: "Sweep") -> dict[str, list[Any]]:
    """Return the columns of a sweep's ``effects.csv``."""
    return columns_of(sweep.effects)
