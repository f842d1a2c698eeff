"""What the follow-ups of one pair write: `rollout`, `trace`."""

from pathlib import Path
from typing import TYPE_CHECKING

from headpatch.core.output.files import write_table, write_tensors
from headpatch.core.output.provenance import write_run

if TYPE_CHECKING:  # names of types only: who reads results must not load a model's code
    from headpatch.core.session import Session
    from headpatch.questions.rollout.one import Rolled
    from headpatch.questions.trace.one import Traced


def write_rollout(folder: Path, session: "Session", rolled: "Rolled") -> None:
    """Write ``rollout.csv``, ``rollout.pt``, ``run.yaml`` and, if checked, ``perturbation.csv``."""
    write_tensors(folder / "rollout.pt", rolled.saved())
    write_table(folder / "rollout.csv", rolled.table())
    if rolled.check is not None:
        write_table(folder / "perturbation.csv", rolled.check.curves)
    write_run(folder, session, None if rolled.check is None else rolled.check.noise_floor)


def write_trace(folder: Path, session: "Session", traced: "Traced") -> None:
    """Write ``trace.csv``, ``trace.pt`` and ``run.yaml``."""
    write_tensors(folder / "trace.pt", traced.saved())
    write_table(folder / "trace.csv", traced.table())
    write_run(folder, session, traced.noise_floor)
